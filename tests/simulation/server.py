# SPDX-License-Identifier: ZPL-2.1
"""A storage server in memory, and the clients that nodes reach it with over a bad network.

Like ZEO: one commit lock, held from vote to finish; conflicts are resolved on the server; clients
learn of others' commits by messages that may be late, and read a state as old as the last of them.
A message that says "finish" may be lost, or arrive after its sender has given up.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ZEO.Exceptions import ClientDisconnected, ServerException
from ZODB import ConflictResolution
from ZODB.POSException import ConflictError, POSKeyError, ReadConflictError
from ZODB.serialize import referencesf
from ZODB.utils import p64, u64, z64

WAIT_FOR_SERVER = 10.0  # seconds that a call waits for a connection
LATE = 5_000_000  # microseconds after which a message that was held up arrives by itself

CONFLICT, BEFORE, AFTER, LATE_FINISH, BROKEN, LOCKED, LOAD = FAULTS = (
    "conflict",  # the vote ends in a conflict
    "before",  # the connection is lost, and the finish message with it
    "after",  # the connection is lost after the server has got the finish message
    "late",  # the same, but the server gets it only later
    "broken",  # the server says that its storage failed
    "locked",  # the commit lock is not to be had in time
    "load",  # the connection is lost while something is read
)
LOST, DELIVERED, HELD_UP = "lost", "delivered", "held up"  # fates of a finish message


class UnableToAcquireLockError(Exception):
    """Like that of RelStorage, which is no StorageError; known to zasync by its name."""


UnableToAcquireLockError.__module__ = "relstorage.adapters.interfaces"


@dataclasses.dataclass(eq=False)
class Commit:
    """What a client wants to commit."""

    client: Any
    stores: list[tuple[bytes, bytes, bytes]] = dataclasses.field(default_factory=list)
    reads: list[tuple[bytes, bytes]] = dataclasses.field(default_factory=list)
    finishing: bool = False  # its finish message is on the way
    tid: bytes | None = None
    task: Any = None


@dataclasses.dataclass(eq=False)
class News:
    """What a client is told of one commit; of its own it is told by calling `told`."""

    tid: bytes
    oids: list[bytes]
    told: Callable[[bytes], Any] | None = None


class Server:
    """Holds the data; `committed(commit, oids)` is called after each commit."""

    tryToResolveConflict = ConflictResolution.tryToResolveConflict

    def __init__(self, committed: Callable[[Commit, list[bytes]], Any], seen: Any) -> None:
        self.revisions: dict[bytes, list[tuple[bytes, bytes]]] = {}
        self.last = z64
        self.holder: Commit | None = None
        self.held_up: list[tuple[Commit, int]] = []
        self.clients: list[Client] = []
        self.committed = committed
        self.seen = seen  # counts interesting situations
        self._oid = 0

    def new_oid(self) -> bytes:
        self._oid += 1
        return p64(self._oid)

    # Reading

    def load_before(self, oid: bytes, tid: bytes) -> tuple[bytes, bytes, bytes | None] | None:
        if oid not in self.revisions:
            raise POSKeyError(oid)
        after = None
        for known, data in reversed(self.revisions[oid]):
            if known < tid:
                return data, known, after
            after = known
        return None

    def loadSerial(self, oid: bytes, serial: bytes) -> bytes:
        for tid, data in self.revisions.get(oid, ()):
            if tid == serial:
                return data
        raise POSKeyError(oid, serial)

    def _crs_untransform_record_data(self, data: bytes) -> bytes:
        return data

    _crs_transform_record_data = _crs_untransform_record_data

    # Writing

    def check(self, commit: Commit) -> list[bytes]:
        """Resolve or raise conflicts; answers the oids that were resolved."""
        for oid, serial in commit.reads:
            if self.revisions[oid][-1][0] != serial:
                self.seen["a read that is no longer true stops a commit"] += 1
                raise ReadConflictError(oid=oid, serials=(self.revisions[oid][-1][0], serial))
        resolved = []
        for index, (oid, serial, data) in enumerate(commit.stores):
            current = self.revisions[oid][-1][0] if oid in self.revisions else z64
            if current != serial:
                data = self.tryToResolveConflict(oid, current, serial, data)
                commit.stores[index] = oid, current, data
                resolved.append(oid)
        if resolved:
            self.seen["conflicts are resolved"] += 1
        return resolved

    def commit(self, commit: Commit, told: Callable[[bytes], Any] | None = None) -> News:
        """Make what was voted on permanent, and tell everybody."""
        assert commit is self.holder
        self.last = commit.tid = p64(u64(self.last) + 1)
        for oid, _serial, data in commit.stores:
            self.revisions.setdefault(oid, []).append((self.last, data))
        oids = [oid for oid, _serial, _data in commit.stores]
        own = News(self.last, oids, told)
        for client in self.clients:
            client.news.append(own if client is commit.client else News(self.last, oids))
        self.release(commit)
        self.committed(commit, oids)
        return own

    def release(self, commit: Commit) -> None:
        commit.finishing = False
        if self.holder is commit:
            self.holder = None

    def settle(self, commit: Commit, fate: str, time: int) -> None:
        """What becomes of a vote or finish message whose sender is gone."""
        if not commit.finishing or fate == LOST:
            self.release(commit)
        elif fate == DELIVERED:
            self.commit(commit)
        else:
            commit.finishing = False
            self.held_up.append((commit, time + LATE))

    def arrive(self, time: int | None = None) -> None:
        """Let the finish messages in that were held up (until `time`; None: all)."""
        for commit, moment in list(self.held_up):
            if time is None or moment <= time:
                self.held_up.remove((commit, moment))
                self.commit(commit)
                self.seen["a commit lands after its sender gave up"] += 1

    def leave(self, client: Client, fate: str, time: int) -> None:
        """A client's connection is gone."""
        holder = self.holder
        if holder is not None and holder.client is client and not self.is_held_up(holder):
            self.settle(holder, fate, time)

    def is_held_up(self, commit: Commit) -> bool:
        """Whether the finish message of `commit` is still to arrive."""
        return any(commit is held for held, _moment in self.held_up)

    def pack(self) -> None:
        """Forget old revisions, and what cannot be reached."""
        reachable: set[bytes] = set()
        # What was written last stays, and what it refers to with it, as after a real pack.
        todo = [z64, *(oid for oid, known in self.revisions.items() if known[-1][0] == self.last)]
        while todo:
            oid = todo.pop()
            if oid not in reachable:
                reachable.add(oid)
                for _tid, data in self.revisions[oid][-1:]:
                    todo.extend(referencesf(data))
        for oid in list(self.revisions):
            if oid in reachable:
                del self.revisions[oid][:-1]
            elif self.revisions[oid][-1][0] < self.last:
                del self.revisions[oid]


class Client:
    """The storage of one node."""

    def __init__(self, world: Any, node: Any, server: Server) -> None:
        self.world, self.node, self.server = world, node, server
        self.link = "up"  # "up", "black" (nothing goes through, nobody notices), or "down"
        self.cuts = 0  # how often the connection was lost
        self.faults: list[tuple[str, bool]] = []  # kind, whether it is for worker threads only
        self.news: deque[News] = deque()
        self.last = server.last
        self._commits: dict[Any, Commit] = {}
        self._target: Any = None
        server.clients.append(self)

    # The network

    def cut(self, fate: str) -> None:
        """Lose the connection; `fate` is that of a finish message under way."""
        self.cuts += 1
        self.server.leave(self, fate, self.world.time)

    def _travel(self, what: str, cuts: int | None = None) -> None:
        """A message goes to the server, or comes back; `cuts` is what it was when that began."""
        cuts = self.cuts if cuts is None else cuts
        self.world.reach(what)
        if self.link == "black":
            self.world.wait(lambda: self.link != "black" or self.cuts != cuts, what)
        if self.cuts != cuts:
            raise ClientDisconnected("connection lost")

    def _connect(self) -> None:
        if self.link == "down" and not self.world.wait(
            lambda: self.link != "down", "connect", WAIT_FOR_SERVER
        ):
            raise ClientDisconnected("timed out waiting for connection")

    def _fault(self, *kinds: str) -> str | None:
        """Which of the faults of these `kinds` is due."""
        in_worker = self.world.scheduler.running.stand_in is not None
        for kind, for_workers in self.faults:
            if kind in kinds and (in_worker or not for_workers):
                self.faults.remove((kind, for_workers))
                return kind
        return None

    def hear(self, until: News | None = None) -> None:
        """Take in what the server has told, up to `until`."""
        while self.news and self.link == "up":
            news = self.news.popleft()
            self.last = news.tid
            if news.told is not None:
                news.told(news.tid)
            elif self._target is not None:
                self._target.invalidate(news.tid, news.oids)
            if news is until:
                return

    # IStorage, as far as DB and Connection need it

    def registerDB(self, target: Any) -> None:
        self._target = target

    def sortKey(self) -> str:
        return "server"

    def getName(self) -> str:
        return "simulated"

    def getSize(self) -> int:
        return 0

    def isReadOnly(self) -> bool:
        return False

    def supportsUndo(self) -> bool:
        return False

    def __len__(self) -> int:
        return len(self.server.revisions)

    def close(self) -> None:
        pass

    def lastTransaction(self) -> bytes:
        return self.last

    def new_oid(self) -> bytes:
        return self.server.new_oid()

    def loadBefore(self, oid: bytes, tid: bytes) -> Any:
        self._connect()
        cuts = self.cuts
        self._travel("load", cuts)
        if self._fault(LOAD):
            self.world.seen["a load is cut off"] += 1
            self.cut(LOST)
            raise ClientDisconnected("connection lost while reading")
        return self.server.load_before(oid, tid)

    def loadSerial(self, oid: bytes, serial: bytes) -> bytes:
        return self.server.loadSerial(oid, serial)

    def tpc_begin(self, transaction: Any, *_: Any) -> None:
        self._commits[transaction] = Commit(self, task=self.world.scheduler.running)

    def store(self, oid: bytes, serial: Any, data: bytes, _version: str, transaction: Any) -> None:
        self._commits[transaction].stores.append((oid, serial or z64, data))

    def checkCurrentSerialInTransaction(self, oid: bytes, serial: bytes, transaction: Any) -> None:
        self._commits[transaction].reads.append((oid, serial))

    def tpc_abort(self, transaction: Any) -> None:
        commit = self._commits.pop(transaction, None)
        if commit is not None and not commit.finishing and not self.server.is_held_up(commit):
            self.server.release(commit)

    def tpc_vote(self, transaction: Any) -> list[bytes]:
        commit = self._commits[transaction]
        self._connect()
        cuts = self.cuts
        self._travel("vote", cuts)
        self._fail_vote()
        server = self.server
        if server.holder is not None:
            self.world.seen["a commit waits for the commit lock"] += 1
        self.world.wait(lambda: server.holder is None or self.cuts != cuts, "commit lock")
        if self.cuts != cuts:
            raise ClientDisconnected("connection lost while waiting for the commit lock")
        server.holder = commit
        try:
            resolved = server.check(commit)
            self._travel("voted", cuts)
        except Exception:
            server.release(commit)
            raise
        return resolved

    def _fail_vote(self) -> None:
        fault = self._fault(CONFLICT, BROKEN, LOCKED)
        if fault is not None:
            self.world.seen[f"commit error: {fault}"] += 1
        if fault == CONFLICT:
            raise ConflictError("simulated")
        if fault == BROKEN:
            raise ServerException("the storage is broken")
        if fault == LOCKED:
            raise UnableToAcquireLockError("the commit lock was not to be had")

    def tpc_finish(self, transaction: Any, func: Callable[[bytes], Any]) -> bytes:
        commit = self._commits.pop(transaction)
        cuts = self.cuts
        commit.finishing = True
        fault = self._fault(BEFORE, AFTER, LATE_FINISH)
        if fault is not None:
            self.cut({BEFORE: LOST, AFTER: DELIVERED, LATE_FINISH: HELD_UP}[fault])
        try:
            self._travel("finish", cuts)
        except ClientDisconnected:
            self._count_doubt(commit)
            raise
        news = self.server.commit(commit, func)
        try:
            self._travel("finished", cuts)
        except BaseException:
            news.told = None  # it learns of it as of anybody's commit
            self._count_doubt(commit)
            raise
        if news in self.news:
            self.hear(news)
        assert commit.tid is not None
        return commit.tid

    def _count_doubt(self, commit: Commit) -> None:
        kind = "was not committed" if commit.tid is None else "was committed"
        self.world.seen[f"a commit in doubt {kind}"] += 1


class Direct:
    """The storage of those who only look: no network, and no lock."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._target: Any = None
        self._commit: Commit | None = None

    registerDB = Client.registerDB
    sortKey, getName, getSize = Client.sortKey, Client.getName, Client.getSize
    isReadOnly, supportsUndo, close = Client.isReadOnly, Client.supportsUndo, Client.close
    new_oid, loadSerial, __len__ = Client.new_oid, Client.loadSerial, Client.__len__

    def lastTransaction(self) -> bytes:
        return self.server.last

    def loadBefore(self, oid: bytes, tid: bytes) -> Any:
        return self.server.load_before(oid, tid)

    def told(self, tid: bytes, oids: Iterable[bytes]) -> None:
        if self._target is not None:
            self._target.invalidate(tid, list(oids))

    # Writing happens only while the world is made.

    def tpc_begin(self, transaction: Any, *_: Any) -> None:
        self._commit = Commit(self)
        self.news: list[News] = []

    def store(self, oid: bytes, serial: Any, data: bytes, _version: str, transaction: Any) -> None:
        assert self._commit is not None
        self._commit.stores.append((oid, serial or z64, data))

    def checkCurrentSerialInTransaction(self, *_: Any) -> None:
        pass

    def tpc_vote(self, transaction: Any) -> None:
        self.server.holder = self._commit

    def tpc_finish(self, transaction: Any, func: Callable[[bytes], Any]) -> bytes:
        assert self._commit is not None
        news = self.server.commit(self._commit)
        func(news.tid)
        return news.tid

    def tpc_abort(self, transaction: Any) -> None:
        self._commit = None
