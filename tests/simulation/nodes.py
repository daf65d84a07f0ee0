# SPDX-License-Identifier: ZPL-2.1
"""Simulated processes: a clock, a reactor, a database and a real dispatcher, or a mere client."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import ZODB
from ZEO.Exceptions import ClientDisconnected

from tests.simulation.server import Client
from tests.simulation.tasks import Task
from zasync import threadlocal
from zasync.dispatcher import Dispatcher, registry
from zasync.dispatcher.coroutines import CoroutineLoop
from zasync.foundation import clock
from zasync.foundation.process import ProcessIdentity

START = clock.to_micros(datetime.fromisoformat("2026-03-01T12:00:00+00:00"))
SECOND = 1_000_000


class SimulatedClock(clock.Clock):
    """The clock of whichever node has the turn."""

    def __init__(self, world: Any) -> None:
        super().__init__()
        self.random = world.random
        self._world = world

    def now(self) -> datetime:
        return clock.from_micros(self._world.now_micros())

    def monotonic(self) -> float:
        return self._world.time / SECOND  # type: ignore[no-any-return]

    def wait(self, signal: clock.Signal, seconds: float | None) -> bool:
        self._world.wait(signal.is_set, "wait", seconds)
        return signal.is_set()


class DelayedCall:
    def __init__(self, due: int, number: int, call: Callable[[], Any]) -> None:
        self.due, self.number, self.call = due, number, call
        self.over = False

    def active(self) -> bool:
        return not self.over

    def cancel(self) -> None:
        self.over = True


class Reactor:
    """The event loop of a node, in the time of the simulation."""

    def __init__(self, node: Node) -> None:
        self._node, self._world = node, node.world
        self._calls: list[DelayedCall] = []
        self._number = 0
        self._triggers: list[Callable[[], Any]] = []
        self.stopping = False

    def callLater(self, seconds: float, function: Any, *args: Any, **kwargs: Any) -> DelayedCall:
        self._number += 1
        due = self._world.time + round(seconds * SECOND)
        call = DelayedCall(due, self._number, lambda: function(*args, **kwargs))
        self._calls.append(call)
        return call

    def callFromThread(self, function: Any, *args: Any, **kwargs: Any) -> None:
        self.callLater(0, function, *args, **kwargs)

    callWhenRunning = callFromThread

    def callInThread(self, function: Any, *args: Any, **kwargs: Any) -> None:
        self._node.start("thread", lambda: function(*args, **kwargs))

    def addSystemEventTrigger(self, _phase: str, _event: str, function: Any, *args: Any) -> None:
        self._triggers.append(lambda: function(*args))

    def stop(self) -> None:
        self.stopping = True

    def run(self) -> None:
        """Make the calls that are due, until told to stop."""
        while not self.stopping:
            self._calls = [call for call in self._calls if not call.over]
            if not self._calls:
                self._world.wait(lambda: self._calls or self.stopping, "no calls")
                continue
            call = min(self._calls, key=lambda call: (call.due, call.number))
            if call.due > self._world.time:
                known = self._number
                self._world.wait_until(
                    lambda known=known: self._number != known or self.stopping, "polls", call.due
                )
                continue
            call.over = True
            call.call()
        for trigger in self._triggers:
            trigger()


class Coroutines(CoroutineLoop):
    """Drives each coroutine in a task, instead of in an event loop of real time."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._running = 0

    def run(self, coroutine: Any, surroundings: Any, done: Any, *_: Any) -> None:
        world = db_world(self._db)
        world.here().start("coroutine", lambda: self._drive(world, coroutine, surroundings, done))

    def _drive(self, world: Any, coroutine: Any, surroundings: Any, done: Any) -> None:
        context = contextvars.copy_context()
        context.run(threadlocal.surroundings.set, surroundings)
        self._running += 1
        try:
            while not self._stopping:
                world.wait(lambda: self._stopping, "awaits", 1.0)
                try:
                    context.run(coroutine.send, None)
                except StopIteration as end:
                    return done(end.value, None)
        finally:
            self._running -= 1
            coroutine.close()

    @property
    def active(self) -> int:
        return self._running

    def stop(self, timeout: float) -> None:
        self._stopping = True


def db_world(db: Any) -> Any:
    return db.storage.world


class Node:
    """A process: what is true of it as long as it lives, and its tasks."""

    def __init__(self, world: Any, number: int, uuid: UUID | None, host: int) -> None:
        self.world, self.number, self.uuid, self.host = world, number, uuid, host
        self.name = f"node {number}" if uuid else f"client {number}"
        self.alive = True
        self.frozen = False
        self.skew = 0  # microseconds by which its wall clock is ahead
        self.has_code = True
        self.storage = Client(world, self, world.server)
        self.db: Any = None
        self.dispatcher: Any = None
        self.reactor = Reactor(self)
        self.poll_began = 0
        self.born = world.time

    def start(self, name: str, function: Callable[[], Any]) -> Task:
        return self.world.scheduler.start(  # type: ignore[no-any-return]
            self, f"{self.name} {name}", function
        )

    @property
    def tasks(self) -> list[Task]:
        return [task for task in self.world.scheduler.tasks if task.node is self]

    def open(self) -> Any:
        if self.db is None:
            self.db = ZODB.DB(self.storage)
        return self.db

    def dispatch(self) -> None:
        """The main thread of a process with a dispatcher."""
        try:
            db = self.open()
            self.db = db
        except ClientDisconnected:  # then the process ends, as far as zasync is concerned
            self.alive = False
            self.world.seen["a node cannot even open its database"] += 1
            return
        self.dispatcher = Dispatcher(db, self.reactor, uuid=self.uuid, poll_interval=5, grace=10.0)
        registry.pop(self.uuid)  # each node is a process of its own, whatever its UUID
        self.dispatcher.activate()
        self.reactor.run()
        self.alive = False

    def identity(self) -> ProcessIdentity:
        return ProcessIdentity(
            host=f"host{self.host}",
            machine=None,
            boot_id="boot",
            namespace=1,
            pid=self.number,
            started=self.born,
        )

    def pools(self) -> list[Any]:
        queues = {} if self.dispatcher is None else self.dispatcher.queues
        return [pool for pools in queues.values() for pool in pools.values()]

    def __repr__(self) -> str:
        return self.name


def later(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
