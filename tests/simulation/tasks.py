# SPDX-License-Identifier: ZPL-2.1
"""Threads of which exactly one runs at a time, and which one is decided by the simulation.

A thread gives the turn back at a *yield point*: a named place in zasync's code, a call of the
storage, any wait.  Between two yield points nothing else happens.
"""

from __future__ import annotations

import queue
import threading
import types
from collections.abc import Callable
from typing import Any

UNBOUNDED = 1_000_000  # yield points: until it waits


class Killed(BaseException):
    """The process is dead: its threads go no further."""


class Task:
    """One thread of a node; goes on only when it is resumed."""

    def __init__(self, scheduler: Scheduler, node: Any, name: str, function: Callable[[], Any]):
        self.scheduler = scheduler
        self.node = node
        self.name = name
        self.error: BaseException | None = None
        self.ended = False
        self.doomed = False
        self.at = "start"  # where it stands
        self.awaits: Callable[[], Any] | None = None
        self.deadline: int | None = None  # microseconds of the simulation
        self.budget = 0  # yield points that it may pass before it gives the turn back
        self.stand_in: Any = None  # what zasync takes for its thread
        self._function = function
        self._turn = threading.Lock()
        self._turn.acquire()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def _main(self) -> None:
        self._turn.acquire()
        try:
            if not self.doomed:
                self._function()
        except Killed:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self.ended = True
            self.scheduler.turn.release()

    def is_runnable(self, time: int) -> bool:
        if self.awaits is None or self.awaits():
            return True
        return self.deadline is not None and self.deadline <= time

    # Called by the scheduler

    def go_on(self, budget: int) -> None:
        """Let it run to its next stop."""
        self.budget = budget
        self._turn.release()
        self.scheduler.turn.acquire()
        if self.ended:
            self._thread.join()

    # Called in the task

    def reach(self, name: str) -> None:
        """A yield point."""
        if self.doomed:
            raise Killed
        self.budget -= 1
        if self.budget <= 0:
            self.at = name
            self._give_turn()

    def wait(self, predicate: Callable[[], Any], name: str, deadline: int | None = None) -> bool:
        """Stand until `predicate()` is true, or it is `deadline`; answers whether it is true."""
        if self.doomed:
            raise Killed
        if not predicate():
            self.at, self.awaits, self.deadline = name, predicate, deadline
            try:
                self._give_turn()
            finally:
                self.awaits = self.deadline = None
        return bool(predicate())

    def _give_turn(self) -> None:
        self.scheduler.turn.release()
        self._turn.acquire()
        if self.doomed:
            raise Killed


class Scheduler:
    """Knows all tasks, and which of them runs."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.turn.acquire()
        self.running: Task | None = None
        self.tasks: list[Task] = []
        self._started = 0

    def start(self, node: Any, name: str, function: Callable[[], Any]) -> Task:
        """Make a task; it does nothing before it is resumed.  Killed if its node is dead."""
        if self.running is not None and self.running.doomed:
            raise Killed
        self._started += 1
        task = Task(self, node, f"{name} {self._started}", function)
        self.tasks.append(task)
        return task

    def resume(self, task: Task, budget: int = UNBOUNDED) -> None:
        """Let `task` pass up to `budget` yield points."""
        assert self.running is None
        assert not task.ended
        self.running = task
        try:
            task.go_on(budget)
        finally:
            self.running = None
        if task.ended:
            self.tasks.remove(task)

    def kill(self, node: Any) -> None:
        """End all tasks of `node` where they stand."""
        for task in [task for task in self.tasks if task.node is node]:
            task.doomed = True
            self.resume(task)
            assert task.ended, f"{task.name} goes on after it was killed at {task.at}"

    def reach(self, name: str) -> None:
        if self.running is not None:
            self.running.reach(name)

    def wait(self, predicate: Callable[[], Any], name: str, deadline: int | None = None) -> bool:
        assert self.running is not None, "only a task can wait"
        return self.running.wait(predicate, name, deadline)


class Event(threading.Event):
    """An event for which a task waits without keeping the turn."""

    def __init__(self, world: Any) -> None:
        super().__init__()
        self._world = world

    def wait(self, timeout: float | None = None) -> bool:
        return self._world.wait(self.is_set, "event", timeout)  # type: ignore[no-any-return]


class RLock:
    """A lock for which a task waits without keeping the turn."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self._owner: Any = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = self._world.scheduler.running
        if self._count and self._owner is not me:
            limit = None if timeout < 0 else timeout
            if not blocking or not self._world.wait(lambda: not self._count, "lock", limit):
                return False
        self._owner = me
        self._count += 1
        return True

    def release(self) -> None:
        self._count -= 1

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()


def threads_of(world: Any) -> Any:
    """What zasync gets instead of the module `threading`."""

    class Thread:
        """Takes the place of `threading.Thread`: a task of the node that makes it."""

        def __init__(self, target: Any, name: str = "thread", args: Any = (), **_: Any) -> None:
            self.name = name
            self._target, self._args = target, args
            self._task: Task | None = None

        def start(self) -> None:
            node = world.here()
            self._task = world.scheduler.start(
                node, f"{node.name} {self.name}", lambda: self._target(*self._args)
            )
            self._task.stand_in = self

        def is_alive(self) -> bool:
            return self._task is not None and not self._task.ended

        def join(self, timeout: float | None = None) -> None:
            world.wait(lambda: not self.is_alive(), "join", timeout)

    class Threads(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            return getattr(threading, name)

    module: Any = Threads("threading")
    module.Thread = Thread
    module.Event = lambda: Event(world)
    module.RLock = lambda: RLock(world)
    module.current_thread = lambda: world.scheduler.running.stand_in
    return module


def queues_of(world: Any) -> Any:
    """What zasync gets instead of the module `queue`."""

    class SimpleQueue:
        def __init__(self) -> None:
            self._items: list[Any] = []

        def put(self, item: Any) -> None:
            self._items.append(item)

        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            if not world.wait(lambda: self._items, "idle", timeout):
                raise queue.Empty
            return self._items.pop(0)

        def empty(self) -> bool:
            return not self._items

    class Queues(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            return getattr(queue, name)

    module: Any = Queues("queue")
    module.SimpleQueue = SimpleQueue
    return module
