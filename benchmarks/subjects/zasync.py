# SPDX-License-Identifier: ZPL-2.1
"""zasync, over any storage; the workloads that need a ZODB are its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import transaction

from benchmarks import work
from benchmarks.places import URI
from benchmarks.subjects import TEXT
from zasync.foundation import clock
from zasync.interfaces import COMPLETED, KEY
from zasync.job import Job, parallel
from zasync.queue import Queue, Queues
from zasync.storage import close_database, open_database

COUNTER = "benchmark-counter"
_FILL = 100  # jobs in one transaction

_manager = transaction.TransactionManager(explicit=False)
_connection: Any = None


def install() -> None:
    """Open the place for the puts of this process; its queue and the hot counter are made."""
    global _connection
    db = open_database(os.environ[URI])
    make_queue(db)
    _connection = db.open(transaction_manager=_manager)


def make_queue(db: Any) -> None:
    """Commit the queue '' and the hot counter, if they are not there."""
    with db.transaction() as connection:
        if KEY not in connection.root():
            queues = connection.root()[KEY] = Queues()
            queues[""] = Queue()
            connection.root()[COUNTER] = work.Counter()


def put(name: str, number: int) -> None:
    """In one transaction; a conflict with a claim is tried again, as an application does."""
    _commit(lambda: _queue().put(job_for(name, number)))


def put_many(name: str, numbers: Iterable[int]) -> None:
    """In one transaction."""
    numbers = list(numbers)
    _commit(lambda: _queue().put_many([job_for(name, number) for number in numbers]))


def fill(name: str, count: int) -> None:
    if name in work.OTHERS:
        for first in range(0, count, _FILL):
            _put_others(name, range(first, min(first + _FILL, count)))
        return
    width = work.WIDTH if name == "fan_out" else 1
    each = max(1, _FILL // width)
    for first in range(0, count // width, each):
        put_many(name, range(first, min(first + each, count // width)))


def _put_others(name: str, numbers: Iterable[int]) -> None:
    """Jobs that nobody is to perform."""
    function = work.refused if name == "refused" else work.no_op
    options: dict[str, Any] = {}
    if name == "later":
        options["begin_after"] = clock.now() + timedelta(days=1)

    def change() -> None:
        jobs = [Job(function, number, TEXT) for number in numbers]
        if name == "full":
            for job, number in zip(jobs, numbers, strict=True):
                job.quota_names = (_full_quota(number % work.QUOTAS),)
        _queue().put_many(jobs, **options)

    _commit(change)


def _full_quota(number: int) -> str:
    """The name of a quota that lets no job run."""
    name, quotas = f"full{number}", _queue().quotas
    if name not in quotas:
        quotas.create(name, 0)
    return name


def _queue() -> Any:
    return _connection.root()[KEY][""]


def _commit(change: Callable[[], Any]) -> None:
    for attempt in _manager.attempts(20):
        with attempt:
            change()


def job_for(name: str, number: int) -> Job:
    """A new job of the workload `name`."""
    if name == "write_ten":
        return Job(work.write_ten, work.Item(), number)
    if name == "increment":
        return Job(work.increment, _connection.root()[COUNTER], number)
    if name == "wait":
        return Job(work.wait, number)
    if name == "fan_out":
        leaves = [Job(work.no_op, leaf, TEXT) for leaf in range(work.WIDTH)]
        return parallel(*leaves, postprocess=work.total)
    return Job(getattr(work, name), number, TEXT)


def remaining(uri: str) -> int:
    """How many jobs of the place have not ended; opened by whoever watches, at the end."""
    db = open_database(uri)
    try:
        with db.transaction() as connection:
            queue = connection.root()[KEY][""]
            records = queue.dispatchers.values()
            held = [job for record in records for agent in record.values() for job in agent]
            return len(queue) + sum(job.status != COMPLETED for job in held)
    finally:
        close_database(db)
