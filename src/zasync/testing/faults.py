# SPDX-License-Identifier: ZPL-2.1
"""A storage that fails when it is told to: it raises, loses an answer, or is dead for good.

`FaultyStorage` wraps any storage and is given to `ZODB.DB` in its place.  It knows nothing of
zasync; what to do at places in zasync's own code is the affair of `zasync.testing.fail_points`.
"""

from __future__ import annotations

import dataclasses
import enum
import threading
from collections.abc import Callable
from typing import Any

import zope.interface
from ZEO.Exceptions import ClientDisconnected
from ZODB.DemoStorage import DemoStorage
from ZODB.interfaces import IMVCCStorage
from ZODB.mvccadapter import MVCCAdapter

__all__ = ["Fault", "FaultyStorage", "Killed", "Point"]

Action = Callable[[], object]


class Point(enum.StrEnum):
    """A moment in the talk with a storage.  All but the last lie before the call they name."""

    LOAD = "load"  # an object, one of its revisions, or a blob is read
    BEGIN = "begin"  # a commit begins
    STORE = "store"  # a changed object is handed over, or one that was read is checked
    VOTE = "vote"  # the storage is asked whether it can commit
    BEFORE_FINISH = "before finish"  # it can, and has not been told to
    AFTER_FINISH = "after finish"  # the commit has taken effect; who commits does not know yet


class Killed(BaseException):
    """The process is dead: nothing of it reaches the storage any more."""


@dataclasses.dataclass
class Fault:
    """What happens at a point: `times` times, once it has been passed `skip` times."""

    point: Point
    action: Action
    skip: int = 0
    times: int = 1  # how often it is still to happen
    met: int = 0  # how often it has happened
    after: bool = False  # once the call is done, instead of before it
    thread: threading.Thread | None = None  # None: whichever gets there

    def is_met(self, point: Point, after: bool) -> bool:
        """Count this passing of `point`; answer whether the fault is to happen now."""
        if (self.point, self.after) != (point, after) or not self.times:
            return False
        if self.thread not in (None, threading.current_thread()):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        self.met += 1
        return True


class _Script:
    """What is to go wrong, for all the connections of one process."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.dead = False
        self._lock = threading.Lock()

    def reach(self, point: Point, after: bool = False) -> None:
        self.check_alive()
        with self._lock:
            fault = next((each for each in self.faults if each.is_met(point, after)), None)
        if fault is not None:
            fault.action()

    def check_alive(self) -> None:
        if self.dead:
            raise Killed


class _Tally:
    """How many commits of all connections to one storage took effect."""

    def __init__(self) -> None:
        self.commits = 0
        self._lock = threading.Lock()

    def count(self) -> None:
        with self._lock:
            self.commits += 1


class _Talk:
    """The calls of one connection, each with the points that it passes."""

    # What remains to a process that is dead: the server forgets it, and gives its locks back.
    _LEFT_TO_THE_DEAD = frozenset({"release", "close", "sortKey", "afterCompletion"})

    def __init__(self, storage: Any, script: _Script, tally: _Tally) -> None:
        self._storage = storage
        self._script = script
        self._tally = tally
        zope.interface.directlyProvides(self, zope.interface.providedBy(storage))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_storage", "_script", "_tally"):
            raise AttributeError(name)
        if name not in self._LEFT_TO_THE_DEAD:
            self._script.check_alive()
        return getattr(self._storage, name)

    def __len__(self) -> int:
        return len(self._storage)

    def sync(self, force: bool = True) -> None:
        """ZODB forces it when a transaction begins, and not when one has ended."""
        if force:
            self._script.check_alive()
        if not self._script.dead:
            self._storage.sync(force)

    def poll_invalidations(self) -> Any:
        return [] if self._script.dead else self._storage.poll_invalidations()

    def _pass(self, point: Point, call: Callable[..., Any], args: Any, kw: Any) -> Any:
        self._script.reach(point)
        answer = call(*args, **kw)
        self._script.reach(point, after=True)
        return answer

    def load(self, *args: Any, **kw: Any) -> Any:
        return self._pass(Point.LOAD, self._storage.load, args, kw)

    def loadBefore(self, *args: Any, **kw: Any) -> Any:
        return self._pass(Point.LOAD, self._storage.loadBefore, args, kw)

    def loadSerial(self, *args: Any, **kw: Any) -> Any:
        return self._pass(Point.LOAD, self._storage.loadSerial, args, kw)

    def loadBlob(self, *args: Any, **kw: Any) -> Any:
        return self._pass(Point.LOAD, self._storage.loadBlob, args, kw)

    def tpc_begin(self, *args: Any, **kw: Any) -> Any:
        return self._pass(Point.BEGIN, self._storage.tpc_begin, args, kw)

    def store(self, *args: Any, **kw: Any) -> Any:
        return self._pass(Point.STORE, self._storage.store, args, kw)

    def storeBlob(self, *args: Any, **kw: Any) -> Any:
        return self._pass(Point.STORE, self._storage.storeBlob, args, kw)

    def checkCurrentSerialInTransaction(self, *args: Any, **kw: Any) -> Any:
        call = self._storage.checkCurrentSerialInTransaction
        return self._pass(Point.STORE, call, args, kw)

    def tpc_vote(self, *args: Any, **kw: Any) -> Any:
        return self._pass(Point.VOTE, self._storage.tpc_vote, args, kw)

    def tpc_finish(self, *args: Any, **kw: Any) -> Any:
        self._script.reach(Point.BEFORE_FINISH)
        tid = self._storage.tpc_finish(*args, **kw)
        self._tally.count()
        self._script.reach(Point.AFTER_FINISH)
        return tid

    def tpc_abort(self, *args: Any, **kw: Any) -> Any:
        return self._storage.tpc_abort(*args, **kw)  # a server does that for the dead, too


class FaultyStorage(_Talk):
    """Wraps `storage`, by default a new one in memory, and fails as its methods say.

    A storage without connections of its own (FileStorage, DemoStorage, ClientStorage) gets them
    from ZODB's MVCCAdapter, as `ZODB.DB` would give them.  Faults hold for all connections and
    threads of the database it is given to.  `times` bounds how often one happens, and `skip`
    how often the point is passed before that.  What is to happen at one point happens in the
    order of the calls; one fault takes one passing.  A process with several databases gives its
    other storages the first one as `together_with`: they share faults and death.
    """

    def __init__(self, storage: Any = None, *, together_with: FaultyStorage | None = None) -> None:
        storage = DemoStorage() if storage is None else storage
        self.storage = storage  # the one that was wrapped
        self._owns = True
        if not IMVCCStorage.providedBy(storage):
            storage = MVCCAdapter(storage)
        script = _Script() if together_with is None else together_with._script
        super().__init__(storage, script, _Tally())
        zope.interface.directlyProvides(self, zope.interface.providedBy(self.storage), IMVCCStorage)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or name == "storage":
                raise
            return getattr(self.storage, name)  # the adapter shows only what a database needs

    def new_instance(self) -> Any:
        """What a connection talks to.  ZODB calls it."""
        self._script.check_alive()
        return _Talk(self._storage.new_instance(), self._script, self._tally)

    def sibling(self) -> FaultyStorage:
        """The same storage for another process: with faults, commits and a death of its own.

        It is given to another `ZODB.DB`.  To close that does not close the storage.
        """
        sibling = FaultyStorage.__new__(FaultyStorage)
        sibling.storage, sibling._owns = self.storage, False
        _Talk.__init__(sibling, self._storage, _Script(), _Tally())
        zope.interface.directlyProvides(sibling, zope.interface.providedBy(self))
        return sibling

    def close(self) -> None:
        """Close the storage, unless this is a sibling."""
        if self._owns:
            self._storage.close()

    # What goes wrong

    def fail(
        self,
        point: str,
        error: BaseException,
        *,
        skip: int = 0,
        times: int = 1,
        only_here: bool = False,
    ) -> Fault:
        """Have `error` raised at `point`; with `only_here` only in the thread that calls this.

        Answers the fault, whose `met` counts.  ValueError for a point that is none.
        """
        if isinstance(error, Killed):
            return self.call(point, self.kill, skip=skip, times=times, only_here=only_here)
        action = _raising(error)
        return self.call(point, action, skip=skip, times=times, only_here=only_here)

    def lose_reply(
        self,
        point: str = Point.AFTER_FINISH,
        error: BaseException | None = None,
        *,
        skip: int = 0,
        times: int = 1,
        only_here: bool = False,
    ) -> Fault:
        """Have the storage do what it is asked at `point`, and `error` raised instead of an answer.

        The error is a ClientDisconnected unless said otherwise.  Without a point it is a commit
        in doubt: it took effect, and who made it is told that the connection was lost.
        """
        fault = self.fail(
            point,
            ClientDisconnected("the reply was lost") if error is None else error,
            skip=skip,
            times=times,
            only_here=only_here,
        )
        if fault.point is Point.BEFORE_FINISH:
            fault.point = Point.AFTER_FINISH
        fault.after = fault.point is not Point.AFTER_FINISH
        return fault

    def call(
        self,
        point: str,
        action: Action,
        *,
        skip: int = 0,
        times: int = 1,
        only_here: bool = False,
    ) -> Fault:
        """Have `action()` called at `point`.  It may raise, wait, or end the process."""
        thread = threading.current_thread() if only_here else None
        fault = Fault(Point(point), action, skip, times, thread=thread)
        self.faults.append(fault)
        return fault

    def kill(self) -> None:
        """Be dead from now on: raises Killed, here and whenever the storage is used.

        What others wait for is given back, as a server does when it loses a client.
        """
        self._script.dead = True
        raise Killed

    def revive(self) -> None:
        """Go on as the next process does: alive, and with no faults to come."""
        self._script.dead = False
        self.faults.clear()

    @property
    def faults(self) -> list[Fault]:
        """What was asked for, whether it has happened or not."""
        return self._script.faults

    @property
    def commits(self) -> int:
        """How many transactions of this process took effect in this storage."""
        return self._tally.commits

    @property
    def dead(self) -> bool:
        """Whether the process is dead."""
        return self._script.dead


def _raising(error: BaseException) -> Action:
    def act() -> None:
        error.__context__ = None  # it may be raised many times, and is to tell of the last only
        raise error.with_traceback(None)

    return act
