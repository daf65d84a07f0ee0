# SPDX-License-Identifier: ZPL-2.1
"""Databases with a queue in them, seen through as many connections as a test wants."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
import transaction
import ZODB
import zope.component
from ZODB.DemoStorage import DemoStorage

from zasync.agent import Agent
from zasync.interfaces import KEY
from zasync.job import Job
from zasync.queue import Queue, Queues

FIRST = UUID("11111111-1111-4111-8111-111111111111")
SECOND = UUID("22222222-2222-4222-8222-222222222222")
THIRD = UUID("33333333-3333-4333-8333-333333333333")


def install_queue(db: Any, queue: Any = None) -> None:
    """Commit a queue named '' to `db`."""
    with db.transaction() as connection:
        queues = connection.root()[KEY] = Queues()
        queues[""] = Queue() if queue is None else queue


class View:
    """A connection with a transaction manager of its own, and what it sees."""

    def __init__(self, db: Any) -> None:
        self.manager = transaction.TransactionManager()
        self.connection = db.open(transaction_manager=self.manager)

    @property
    def root(self) -> Any:
        return self.connection.root()

    @property
    def queues(self) -> Any:
        return self.root[KEY]

    @property
    def queue(self) -> Any:
        return self.queues[""]

    def begin(self) -> None:
        self.manager.begin()

    def commit(self) -> None:
        self.manager.commit()

    def abort(self) -> None:
        self.manager.abort()

    def close(self) -> None:
        self.manager.abort()
        self.connection.close()

    def see(self, item: Any) -> Any:
        """The stored object `item` of another view, as this one sees it."""
        return self.connection.get(item._p_oid)

    def put(self, *numbers: int, **options: Any) -> list[Any]:
        """Put and commit jobs that are told apart by a number."""
        jobs = [self.queue.put(numbered(number), **options) for number in numbers]
        self.commit()
        return jobs

    def dispatcher(self, uuid: UUID = FIRST, size: int = 3) -> Any:
        """The record of an activated dispatcher with an agent 'main', committed."""
        record = self.queue.dispatchers.register(uuid)
        record["main"] = Agent(size=size)
        record.activate()
        self.commit()
        return record


def numbered(number: int, *quota_names: str) -> Job:
    """A job that answers twice its number."""
    job = Job(operator.mul, number, 2)
    job.quota_names = quota_names
    return job


def numbers(jobs: Any) -> list[int]:
    return [job.args[0] for job in jobs]


@pytest.fixture
def db() -> Iterator[Any]:
    """A database in memory that resolves conflicts, with a queue."""
    db = ZODB.DB(DemoStorage())
    install_queue(db)
    yield db
    db.close()


@pytest.fixture
def open_view(db: Any) -> Iterator[Callable[[], View]]:
    views: list[View] = []

    def opened() -> View:
        views.append(View(db))
        return views[-1]

    yield opened
    for view in views:
        view.close()


@pytest.fixture
def view(open_view: Callable[[], View]) -> View:
    return open_view()


@pytest.fixture
def heard() -> Iterator[Callable[..., list[Any]]]:
    """`heard(*interfaces)` gives the list that fills with the events of these kinds."""
    registry = zope.component.getGlobalSiteManager()
    subscribed: list[tuple[Any, Any]] = []

    def listen(*interfaces: Any) -> list[Any]:
        events: list[Any] = []
        for interface in interfaces:
            registry.registerHandler(events.append, [interface])
            subscribed.append((events.append, interface))
        return events

    yield listen
    for handler, interface in subscribed:
        registry.unregisterHandler(handler, [interface])


def lane_after_lane(lanes: list[int]) -> None:
    """In the place of a clock's `random.shuffle`: the transactions take lane 0, then 1 ..."""
    lanes.reverse()


def always_lane(number: int) -> Callable[[list[int]], None]:
    """In the place of a clock's `random.shuffle`: all transactions take this lane."""

    def shuffle(lanes: list[int]) -> None:
        lanes[:] = [number]

    return shuffle
