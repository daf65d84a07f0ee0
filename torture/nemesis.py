# SPDX-License-Identifier: ZPL-2.1
"""What is done to the processes, their network, their clocks and the storage, and when.

The schedule follows from the seed.  Each fault is one function that begins it, waits, and ends
it; several go on at once, in threads, but one node at least is always left in peace.  A fault
counts when it has really happened.
"""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.support.proxy import TO_CLIENT, TO_SERVER
from torture.cluster import Cluster, Node
from torture.servers import Backend
from zasync.storage import close_database, open_database

KILL, SERVER, CUT, HOLE, ZOMBIE, JUMP, FULL, PACK = (
    "dispatcher killed",
    "server killed",
    "cut in doubt",
    "black hole",
    "zombie",
    "clock jump",
    "disk full",
    "pack",
)
DEFAULTS = {KILL: 64, SERVER: 7, CUT: 22, HOLE: 11, ZOMBIE: 11, JUMP: 7, FULL: 4, PACK: 5}
"""How many of each a run of 2,000 jobs tries; a few more than are asked of it."""
REQUIRED = {KILL: 60, SERVER: 6, CUT: 20, HOLE: 10, ZOMBIE: 10, JUMP: 6, FULL: 3, PACK: 3}
NEED_NETWORK, NEED_SERVER, NEED_FULL_DISK = {CUT, HOLE}, {SERVER}, {FULL}
SPOILS_RECOVERY = (SERVER, FULL, HOLE, ZOMBIE)
"""While these go on, and a moment after, no time of recovery is promised."""

# Where a dispatcher may die by itself, besides anywhere.
PLACES = (
    "poll.claimed",
    "poll.committing",
    "poll.committed",
    "run.taken",
    "run.begun",
    "run.returned",
    "run.committing",
    "run.settled",
    "callbacks.next",
    "callbacks.called",
    "callbacks.done",
)
HOUR = 3600
AGAIN = 0.5  # seconds until what could not be done is tried again
LATEST = 300.0  # seconds after the last planned fault until those that did not happen are given up


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing to do: what, at which second, and the seed of its details."""

    at: float
    kind: str
    seed: int


def schedule(counts: dict[str, int], seconds: float, seed: int) -> list[Fault]:
    """Spread each kind evenly over the time, with chance; the same for the same seed."""
    chance = random.Random(seed)
    faults = []
    for kind, count in counts.items():
        for number in range(count):
            at = (number + chance.random()) * seconds / count
            faults.append(Fault(at, kind, chance.getrandbits(32)))
    return sorted(faults, key=lambda fault: fault.at)


class Nemesis:
    """Carries out a schedule."""

    def __init__(self, cluster: Cluster, faults: list[Fault], death: float) -> None:
        self.cluster, self.faults, self.death = cluster, faults, death
        self.happened: Counter[str] = Counter()
        self._busy: list[threading.Thread] = []
        self._retries: list[Fault] = []
        self._lock = threading.Lock()
        self._actions: dict[str, Callable[[random.Random], bool]] = {
            KILL: self.kill_dispatcher,
            SERVER: self.kill_server,
            CUT: self.cut_in_doubt,
            HOLE: self.black_hole,
            ZOMBIE: self.zombie,
            JUMP: self.clock_jump,
            FULL: self.disk_full,
            PACK: self.pack,
        }

    def run(self, tick: Callable[[], None]) -> None:
        """Do it all; what could not be done at its time is done later.  Calls `tick` often."""
        begin = time.monotonic()
        waiting = list(self.faults)
        end = begin + (waiting[-1].at if waiting else 0) + LATEST
        while waiting or self._going_on() or self._retries:
            now = time.monotonic()
            if now > end:
                break
            with self._lock:
                waiting, self._retries = self._retries + waiting, []
            due = [fault for fault in waiting if begin + fault.at <= now]
            waiting = [fault for fault in waiting if begin + fault.at > now]
            for fault in due:
                self._begin(fault, now - begin)
            tick()
            time.sleep(0.05)
        for thread in self._busy:
            thread.join(60)

    def _going_on(self) -> bool:
        self._busy = [thread for thread in self._busy if thread.is_alive()]
        return bool(self._busy)

    def _begin(self, fault: Fault, now: float) -> None:
        """Do it in a thread of its own; if it does not happen, it is due again a moment later."""
        begun = time.monotonic()

        def act() -> None:
            if not self._done(fault):
                later = now + time.monotonic() - begun + AGAIN
                with self._lock:
                    self._retries.append(dataclasses.replace(fault, at=later))

        thread = threading.Thread(target=act, name=fault.kind, daemon=True)
        self._busy.append(thread)
        thread.start()

    def _done(self, fault: Fault) -> bool:
        begin = time.monotonic()
        if not self._actions[fault.kind](random.Random(fault.seed)):
            return False
        self.cluster.log.write(what="fault", kind=fault.kind, begin=begin, end=time.monotonic())
        with self._lock:
            self.happened[fault.kind] += 1
        return True

    # Processes

    def kill_dispatcher(self, chance: random.Random) -> bool:
        node = self.cluster.take(chance)
        if node is None:
            return False
        try:
            self._kill(node, chance)
            if chance.random() < 0.3:
                node.rename()
            time.sleep(chance.uniform(0, 1))
            node.start()
        finally:
            self.cluster.give_back(node)
        return True

    def _kill(self, node: Node, chance: random.Random) -> None:
        """At once, or as soon as it comes to a place."""
        place = chance.choice(PLACES) if chance.random() < 0.5 else None
        if place is not None:
            node.tell(kill_at=place)
            if node.note_death(4.0):
                return
        node.kill()

    def zombie(self, chance: random.Random) -> bool:
        """Stop it until the others take it for dead, and some time more; then let it go on."""
        node = self.cluster.take(chance)
        if node is None:
            return False
        try:
            node.freeze()
            time.sleep(2 * self.death)
            node.thaw()
            time.sleep(0.5)
        finally:
            node.thaw()
            self.cluster.give_back(node)
        return True

    def clock_jump(self, chance: random.Random) -> bool:
        """Set a clock an hour wrong, and right again later: others may come upon it meanwhile."""
        node = chance.choice(self.cluster.nodes)
        node.tell(offset=chance.choice([-HOUR, HOUR]))
        time.sleep(chance.uniform(4, 12))
        node.tell(offset=0)
        return True

    # The network

    def cut_in_doubt(self, chance: random.Random) -> bool:
        proxies = [node.proxy for node in self.cluster.nodes if node.proxy is not None]
        if chance.random() < 0.3:
            proxies = self.cluster.client_proxies
        proxy = chance.choice(proxies)
        cut = proxy.cut_at(self.cluster.backend.commit(), forward=chance.random() < 0.6)
        if cut.done.wait(5):
            return True
        proxy.cancel(cut)
        return cut.done.wait(5) if cut.taken.is_set() else False

    def black_hole(self, chance: random.Random) -> bool:
        node = self.cluster.take(chance)
        if node is None:
            return False
        assert node.proxy is not None
        try:
            node.proxy.black_hole(*chance.choice([(), (), (TO_SERVER,), (TO_CLIENT,)]))
            time.sleep(2 * self.death)
        finally:
            node.proxy.heal()
            self.cluster.give_back(node)
        return True

    # The storage

    def kill_server(self, chance: random.Random) -> bool:
        with self.cluster.storage_lock:
            self.cluster.backend.kill()
            time.sleep(chance.uniform(0, 1))
            self.cluster.backend.start()
        return True

    def disk_full(self, chance: random.Random) -> bool:
        with self.cluster.storage_lock:
            self.cluster.backend.fill_disk()
            time.sleep(chance.uniform(1, 3))
            self.cluster.backend.free_disk()
        return True

    def pack(self, chance: random.Random) -> bool:
        with self.cluster.storage_lock:
            try:
                db = open_database(self.cluster.backend.uri)
                try:
                    db.pack()
                finally:
                    close_database(db)
            except Exception as error:
                self.cluster.log.write(what="pack failed", error=repr(error))
                return False
        return True


def counts(scale: float, kinds_off: set[str]) -> tuple[dict[str, int], dict[str, int]]:
    """How many faults of each kind to try, and how many of them must happen."""

    def scaled(numbers: dict[str, int]) -> dict[str, int]:
        return {
            kind: max(1, round(number * scale))
            for kind, number in numbers.items()
            if kind not in kinds_off
        }

    return scaled(DEFAULTS), scaled(REQUIRED)


def impossible(backend: Backend) -> set[str]:
    """The kinds that make no sense on a storage."""
    off: set[str] = set()
    if not backend.has_server:
        off |= NEED_NETWORK | NEED_SERVER
    if not backend.can_be_full:
        off |= NEED_FULL_DISK
    return off
