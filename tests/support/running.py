# SPDX-License-Identifier: ZPL-2.1
"""A real dispatcher in a thread with a reactor of its own, and bounded waits for what it does."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import transaction
from twisted.internet.selectreactor import SelectReactor

from zasync.agent import Agent
from zasync.dispatcher import Dispatcher, registry
from zasync.interfaces import COMPLETED, KEY
from zasync.queue import Queue, Queues

_tick = threading.Event()  # never set: waiting for it lets others run


def until(predicate: Callable[[], Any], what: str = "it", seconds: float = 15.0) -> Any:
    """Wait until `predicate()` is true and answer what it answered; fail after `seconds`."""
    for _ in range(int(seconds / 0.005)):
        found = predicate()
        if found:
            return found
        _tick.wait(0.005)
    raise AssertionError(f"waited {seconds} s in vain for {what}")


class Site:
    """A database with queues, seen through a connection of its own."""

    def __init__(self, db: Any, queue_names: tuple[str, ...] = ("",)) -> None:
        self.db = db
        self.manager = transaction.TransactionManager()
        self.connection = db.open(transaction_manager=self.manager)
        root = self.connection.root()
        if KEY not in root:
            queues = root[KEY] = Queues()
            for name in queue_names:
                queues[name] = Queue()
            self.manager.commit()

    @property
    def root(self) -> Any:
        return self.connection.root()

    @property
    def queues(self) -> Any:
        return self.root[KEY]

    @property
    def queue(self) -> Any:
        return self.queues[""]

    def put(self, *args: Any, queue: str = "", **options: Any) -> Any:
        """Put a job in one transaction; a conflict with a claim is tried again."""
        for attempt in self.manager.attempts(10):
            with attempt:
                job = self.queues[queue].put(*args, **options)
        return job

    def commit(self, change: Callable[[], Any]) -> Any:
        """Do `change()` in a transaction, again after a conflict."""
        for attempt in self.manager.attempts(10):
            with attempt:
                result = change()
        return result

    def sees(self, predicate: Callable[[], Any]) -> Any:
        self.manager.begin()
        return predicate()

    def until(self, predicate: Callable[[], Any], what: str = "it", seconds: float = 15.0) -> Any:
        """Wait until `predicate()` is true in a new transaction."""
        return until(lambda: self.sees(predicate), what, seconds)

    def completed(self, *jobs: Any, seconds: float = 15.0) -> None:
        """Wait until all `jobs` are completed."""
        self.until(
            lambda: all(job.status == COMPLETED for job in jobs),
            f"the completion of {len(jobs)} jobs",
            seconds,
        )

    def held(self) -> int:
        """How many jobs the agents of the queue hold."""
        records = self.queue.dispatchers.values()
        return sum(len(agent) for record in records for agent in record.values())

    def let_others_die_soon(self) -> None:
        """Have the dispatchers that are in the database found dead within a moment.

        For a copy of a database that is used in the process in which its dispatcher ran: that
        process lives.
        """

        def shorten() -> None:
            for record in self.queue.dispatchers.values():
                record.set_intervals(timedelta(seconds=0.1), timedelta(seconds=0.2))

        self.commit(shorten)

    def close(self) -> None:
        self.manager.abort()
        self.connection.close()


class Runner:
    """A dispatcher and the thread that its reactor runs in."""

    def __init__(self, db: Any, **options: Any) -> None:
        self.reactor = SelectReactor()
        options.setdefault("uuid", uuid.uuid4())
        self.dispatcher = Dispatcher(db, self.reactor, **options)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self.dispatcher.activate()
        self.reactor.run(installSignalHandlers=False)

    @property
    def uuid(self) -> uuid.UUID:
        return self.dispatcher.UUID

    def start(self) -> Runner:
        self.thread.start()
        until(lambda: self.dispatcher.polls.total, "the first poll")
        return self

    def stop(self) -> None:
        """Stop cleanly, as the reactor's shutdown does."""
        if self.thread.is_alive():
            self.reactor.callFromThread(self.reactor.stop)
            self.thread.join(20)
        registry._dispatchers.pop(self.uuid, None)
        assert not self.thread.is_alive()

    def vanish(self) -> None:
        """Stop polling for ever without saying so, as a process does that is killed."""
        poller = self.dispatcher._poller
        assert poller is not None
        with self.dispatcher._poll_lock:
            self.dispatcher.activated = None
            self.dispatcher._poller = None
            self.dispatcher.hints.stop()
            self.dispatcher._watch.stop()
            poller.close()


@contextlib.contextmanager
def running(db: Any, *, size: int = 3, agents: bool = True, **options: Any) -> Iterator[Runner]:
    """A dispatcher with an agent 'main' of `size` in each queue."""
    runner = Runner(db, **options)
    if agents:
        site = Site(db)
        try:

            def register() -> None:
                for queue in site.queues.values():
                    if runner.uuid not in queue.dispatchers:
                        queue.dispatchers.register(runner.uuid)["main"] = Agent(size=size)

            site.commit(register)
        finally:
            site.close()
    runner.start()
    try:
        yield runner
    finally:
        runner.stop()
