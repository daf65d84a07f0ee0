# SPDX-License-Identifier: ZPL-2.1
"""What the benchmarks have in common: jobs, a dispatcher in a thread, waiting for the jobs."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import transaction
from twisted.internet.selectreactor import SelectReactor

from zasync.agent import Agent
from zasync.dispatcher import Dispatcher, registry
from zasync.interfaces import KEY
from zasync.job import Job
from zasync.queue import Queue, Queues

ended = threading.Semaphore(0)
starts: dict[int, float] = {}


def no_op(number: int) -> int:
    """The smallest job."""
    starts[number] = time.perf_counter()
    ended.release()
    return number


def wait_for(jobs: int) -> None:
    """Wait until so many `no_op`s were called in this process."""
    for _ in range(jobs):
        if not ended.acquire(timeout=60):
            raise TimeoutError("a job was not performed within 60 s")


def settled(counts: Callable[[], Any], quiet: float = 0.3) -> Any:
    """What `counts` answers once it has stayed the same for `quiet` seconds."""
    last, since = counts(), time.monotonic()
    while time.monotonic() - since < quiet:
        time.sleep(0.02)
        now = counts()
        if now != last:
            last, since = now, time.monotonic()
    return last


def install(database: Any) -> None:
    """Make the queue '' if there is none."""
    with database.transaction() as connection:
        if KEY not in connection.root():
            queues = connection.root()[KEY] = Queues()
            queues[""] = Queue()


def fill(database: Any, jobs: int, each: int = 100) -> None:
    """Put so many `no_op`s, `each` to a transaction."""
    install(database)
    for first in range(0, jobs, each):
        with database.transaction() as connection:
            queue = connection.root()[KEY][""]
            for number in range(first, min(first + each, jobs)):
                queue.put(Job(no_op, number))


@contextlib.contextmanager
def performing(database: Any, size: int, poll_interval: float = 5) -> Iterator[tuple[Any, Any]]:
    """A dispatcher in a thread; gives a queue in the calling thread's connection, and its UUID."""
    install(database)
    name = uuid.uuid4()
    with database.transaction() as connection:
        queue = connection.root()[KEY][""]
        queue.dispatchers.register(name)["main"] = Agent(size=size)
    reactor = SelectReactor()
    dispatcher = Dispatcher(database, reactor, poll_interval, name)

    def run() -> None:
        dispatcher.activate()
        reactor.run(installSignalHandlers=False)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    connection = database.open()
    try:
        settled(lambda: dispatcher.polls.total)
        transaction.begin()
        yield connection.root()[KEY][""], name
    finally:
        transaction.abort()
        connection.close()
        reactor.callFromThread(reactor.stop)
        thread.join(30)
        registry.pop(name)
        database.close()
