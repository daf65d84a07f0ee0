# SPDX-License-Identifier: ZPL-2.1
"""Several processes in one: each with a dispatcher that can die, over one storage in memory.

Time is virtual and moves when a test runs the cluster.  What a dead process still does in its
threads reaches nothing; what goes wrong otherwise is up to the process' `FaultyStorage`.
`zasync.testing.crashing` is the short way to it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import transaction
import ZODB

from zasync import configure
from zasync.agent import Agent
from zasync.dispatcher import Dispatcher, registry
from zasync.foundation import clock
from zasync.foundation.clock import Clock
from zasync.foundation.process import ProcessIdentity
from zasync.interfaces import COMPLETED, KEY, TimeoutError
from zasync.queue import Queue, Queues
from zasync.testing.faults import FaultyStorage, Killed
from zasync.testing.reactor import Reactor, running_reactors
from zasync.testing.state import describe_job
from zasync.testing.virtual_clock import START, VirtualClock

POLL_INTERVAL = 5.0  # virtual seconds
LONGEST = 900.0  # virtual seconds until all is done: a death, the longest pauses, and more
PATIENCE = 5.0  # real seconds that threads get before time moves on without them
TICK = 0.002  # real seconds between two looks at them
GRACE = 1.0  # virtual seconds that running jobs get when a process ends

_real = Clock()


class Process:
    """A dispatcher over a storage of its own, which can be made to fail, or be killed."""

    def __init__(self, cluster: Cluster, uuid: UUID, agent_size: int) -> None:
        self.uuid = uuid
        self.storage = cluster.storage.sibling()
        self.db = ZODB.DB(self.storage)
        self.dispatcher = Dispatcher(
            self.db, cluster.reactor, poll_interval=POLL_INTERVAL, uuid=uuid, grace=GRACE
        )
        cluster.register(uuid, agent_size)

    def start(self) -> None:
        """Have the dispatcher do its first poll, and the others as time flies."""
        with contextlib.suppress(Killed):
            self.dispatcher.activate()

    @property
    def dead(self) -> bool:
        """Whether it was killed."""
        return self.storage.dead

    def kill(self) -> None:
        """Kill it where it stands.  Raises nothing."""
        with contextlib.suppress(Killed):
            self.storage.kill()

    def bury(self) -> None:
        """Let nothing of a dead process go on in this one."""
        dispatcher = self.dispatcher
        if dispatcher not in registry.every():
            return
        registry.pop(self.uuid)
        dispatcher.activated = None
        dispatcher.hints.stop()
        dispatcher._watch.stop()
        dispatcher._poller = None
        for pool in dispatcher.pools():
            pool.stop_signal.set()
            pool.resize(0)
        dispatcher.coroutines.stop(timeout=1.0)

    def stop(self) -> None:
        """End it properly, as SIGTERM does."""
        if self.dispatcher.activated and not self.dead:
            self.dispatcher.deactivate()
        self.bury()


class Cluster:
    """A database in memory with a queue, a client's view of it, and processes that work it.

    `root`, `queue` and `commit` are the client's.  `storage` is the client's too: its faults are
    faults of the client.  RuntimeError while another testing reactor runs.
    """

    def __init__(self) -> None:
        if running_reactors():
            raise RuntimeError("another testing reactor runs, and time is the same for all")
        configure.base()
        self.storage = FaultyStorage()
        self.db = ZODB.DB(self.storage)
        self.manager = transaction.TransactionManager()
        self.connection = self.db.open(transaction_manager=self.manager)
        self.reactor = Reactor()
        self.processes: list[Process] = []
        queues = self.root[KEY] = Queues()
        queues[""] = Queue()
        self.commit()
        self._excepthook = threading.excepthook
        threading.excepthook = self._thread_died
        self._clock = VirtualClock(START, seed=1)
        self._clock_before = clock.install(self._clock)
        self.reactor.start()

    # The client

    @property
    def root(self) -> Any:
        return self.connection.root()

    @property
    def queue(self) -> Any:
        return self.root[KEY][""]

    def commit(self) -> None:
        self.manager.commit()

    def begin(self) -> None:
        """See what the processes have committed."""
        self.manager.begin()

    # Processes

    def add(self, uuid: UUID, *, agent_size: int = 3) -> Process:
        """A process, still to be started, with that UUID and an agent 'main'.

        ValueError while another one of that UUID lives.
        """
        for former in self.processes:
            if former.dead:
                former.bury()
        process = Process(self, uuid, agent_size)
        self.processes.append(process)
        return process

    def register(self, uuid: UUID, agent_size: int) -> None:
        """Make the record and the agent of a process that has none; commits."""
        self.begin()
        dispatchers = self.queue.dispatchers
        if uuid not in dispatchers:
            dispatchers.register(uuid)["main"] = Agent(size=agent_size)
        elif (state := dispatchers[uuid].process) is not None:
            dispatchers[uuid].process = _of_the_past(state)
        self.commit()

    def alive(self) -> list[Process]:
        return [process for process in self.processes if not process.dead]

    # Time

    def run_until(
        self, question: Callable[[], Any], what: str = "it", seconds: float = LONGEST
    ) -> None:
        """Let time fly until `question()`, asked in a new transaction, is true, or nobody lives.

        TimeoutError, with the states of all jobs, after so many virtual `seconds`.
        """
        end = clock.monotonic() + seconds
        while self.alive():
            self.begin()
            if question():
                return
            if clock.monotonic() > end:
                raise TimeoutError(f"waited {seconds:g} s in vain for {what}\n{self.describe()}")
            self.fly(POLL_INTERVAL)

    def run_to_the_end(self, *jobs: Any) -> None:
        """Let time fly until `jobs` are COMPLETED and what they left is tidied up.

        Ends early when no process lives any more.  TimeoutError if it takes too long.
        """

        def done() -> bool:
            return all(job.status == COMPLETED for job in jobs) and self.is_tidy()

        self.run_until(done, f"the end of {len(jobs)} jobs")

    def is_tidy(self) -> bool:
        """Whether the queue is empty, and so are all agents."""
        return not len(self.queue) and not any(
            len(agent) for record in self.queue.dispatchers.values() for agent in record.values()
        )

    def fly(self, seconds: float) -> None:
        """Let `seconds` go by.  A process that dies meanwhile is dead; that raises nothing."""
        with contextlib.suppress(Killed):
            self.reactor.time_flies(seconds)
        self._let_threads_work()
        for process in self.processes:
            if process.dead:
                process.bury()

    def _let_threads_work(self) -> None:
        """Do not let hours go by, on a busy machine, while a thread has had no turn."""
        deadline = _real.monotonic() + PATIENCE
        while self._at_work() > self._clock.asleep and _real.monotonic() < deadline:
            _real.wait(threading.Event(), TICK)

    def _at_work(self) -> int:
        """How many jobs are in threads of processes that live."""
        return sum(
            tracked.running
            for process in self.alive()
            for pool in process.dispatcher.pools()
            for tracked in pool.busy
        )

    def _thread_died(self, what: threading.ExceptHookArgs) -> None:
        if not issubclass(what.exc_type, Killed):  # it went with its process
            self._excepthook(what)

    # The end

    def describe(self) -> str:
        """How the jobs of the queue and of all agents stand."""
        self.begin()
        jobs = [*self.queue]
        for record in self.queue.dispatchers.values():
            for agent in record.values():
                jobs += agent
        return "\n".join(describe_job(job) for job in jobs) or "no job is waiting or running"

    def close(self) -> None:
        """End all processes, put the clock back, close the database."""
        self.storage.revive()
        for process in self.processes:
            process.storage.faults.clear()
            process.stop()
        self.reactor.stop()
        threading.excepthook = self._excepthook
        clock.install(self._clock_before)
        self._clock.retire()
        for process in self.processes:
            process.db.close()
        self.manager.abort()
        self.connection.close()
        self.db.close()


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """A `Cluster` that is closed at the end of the `with` block."""
    made = Cluster()
    try:
        yield made
    finally:
        made.close()


def _of_the_past(state: Any) -> dict[str, Any]:
    """The identity of a process that surely runs no more: this one's, at another time."""
    identity = ProcessIdentity.from_state(state)
    return dataclasses.replace(identity, started=0).to_state()
