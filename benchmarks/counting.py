# SPDX-License-Identifier: ZPL-2.1
"""What a plain job costs the storage: commits, records and bytes, counted, not timed.

`python -m benchmarks.counting BATCH` answers all of it in one line of JSON.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import transaction
import ZODB
from ZODB.FileStorage import FileStorage

from benchmarks import tally, work
from benchmarks.subjects import TEXT
from benchmarks.subjects.zasync import make_queue
from benchmarks.worker import dispatching
from zasync import testing
from zasync.dispatcher import Dispatcher
from zasync.interfaces import KEY
from zasync.job import Job

RECORD_HEADER = 42  # bytes that a FileStorage adds to each record
THREADS = 10
PATIENCE = 60.0  # seconds for all jobs


@dataclasses.dataclass(frozen=True)
class Counts:
    """What was written, and how many records were read for it."""

    commits: float = 0.0
    records: float = 0.0
    bytes: float = 0.0
    loads: float = 0.0

    def __sub__(self, other: Counts) -> Counts:
        return Counts(*(one - two for one, two in zip(self._all(), other._all(), strict=True)))

    def __truediv__(self, jobs: int) -> Counts:
        return Counts(*(one / jobs for one in self._all()))

    def _all(self) -> tuple[float, ...]:
        return dataclasses.astuple(self)


class CountingStorage(FileStorage):
    """A FileStorage that counts what is committed."""

    commits = records = bytes = loads = 0

    def store(self, oid: bytes, oldserial: bytes, data: bytes, *rest: Any) -> Any:
        self.records += 1
        self.bytes += len(data) + RECORD_HEADER
        return super().store(oid, oldserial, data, *rest)

    def tpc_finish(self, *args: Any) -> Any:
        self.commits += 1
        return super().tpc_finish(*args)

    def loadBefore(self, oid: bytes, tid: bytes) -> Any:
        self.loads += 1
        return super().loadBefore(oid, tid)

    def counts(self) -> Counts:
        return Counts(self.commits, self.records, self.bytes, self.loads)


def one_at_a_time(jobs: int = 200) -> Counts:
    """Per job, from its put to its end, with the put's commit; the next comes when it has ended."""
    with _counted() as (storage, db), _putting(db) as put, dispatching(db, size=THREADS):
        settled(storage.counts)
        begin, done = storage.counts(), tally.mine().total()
        for number in range(jobs):
            put(1)
            _await(done + number + 1)
        return (settled(storage.counts) - begin) / jobs


def backlog(jobs: int = 2000, each: int = 100, batch: int = 0) -> tuple[Counts, Counts]:
    """Per job, of the puts, `each` in one transaction, and then of the work on all of them."""
    with _counted() as (storage, db):
        empty, done = storage.counts(), tally.mine().total()
        with _putting(db) as put:
            for _ in range(0, jobs, each):
                put(each)
        full = storage.counts()
        with dispatching(db, size=THREADS, batch=batch):
            _await(done + jobs)
            end = settled(storage.counts)
    return (full - empty) / jobs, (end - full) / jobs


def records_of_a_plain_job() -> int:
    """How many records a put of one job makes that are not there already."""
    with _counted() as (storage, db), _putting(db) as put:
        put(1)
        before = len(storage)
        put(1)
        made: int = len(storage) - before
        return made


def idle(hours: float = 1.0) -> int:
    """How many bytes a day a database grows by that one idle dispatcher pings in (virtual time)."""
    with _counted() as (storage, db):
        reactor = testing.Reactor()
        dispatcher = Dispatcher(db, reactor, uuid=uuid.uuid4())
        dispatcher.activate()
        reactor.start()
        reactor.time_flies(60)
        before = storage.getSize()
        reactor.time_flies(hours * 3600)
        grown = storage.getSize() - before
        reactor.stop()
        testing.tear_down_dispatcher(dispatcher)
        testing.tearDownDatetime()
    return round(grown * 24 / hours)


def settled(counts: Callable[[], Any], quiet: float = 0.5) -> Any:
    """What `counts` answers once it has stayed the same for `quiet` seconds."""
    last, since = counts(), time.monotonic()
    while time.monotonic() - since < quiet:
        time.sleep(0.02)
        now = counts()
        if now != last:
            last, since = now, time.monotonic()
    return last


@contextlib.contextmanager
def _counted() -> Iterator[tuple[CountingStorage, Any]]:
    with tempfile.TemporaryDirectory() as directory:
        storage = CountingStorage(str(Path(directory) / "Data.fs"))
        db = ZODB.DB(storage)
        make_queue(db)
        try:
            yield storage, db
        finally:
            db.close()


@contextlib.contextmanager
def _putting(db: Any) -> Iterator[Callable[[int], None]]:
    """A function that puts so many no-ops in one transaction."""
    manager = transaction.TransactionManager()
    connection = db.open(transaction_manager=manager)

    def put(count: int) -> None:
        for attempt in manager.attempts(20):
            with attempt:
                queue = connection.root()[KEY][""]
                for number in range(count):
                    queue.put(Job(work.no_op, number, TEXT))

    try:
        yield put
    finally:
        manager.abort()
        connection.close()


def _await(total: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while tally.mine().total() < total:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the jobs were not performed within {PATIENCE:g} s")
        time.sleep(0.001)


def main(batch: str = "0") -> None:
    logging.basicConfig(level=logging.CRITICAL)
    put, worked = backlog(batch=int(batch))
    answer: dict[str, float] = {
        "put_records": put.records,
        "put_bytes": put.bytes,
        "commits": worked.commits,
        "loads": worked.loads,
        "records": put.records + worked.records,
        "bytes": put.bytes + worked.bytes,
    }
    if batch == "0":
        single = one_at_a_time()
        answer |= {
            "single_commits": single.commits - 1,
            "single_records": single.records,
            "single_bytes": single.bytes,
            "made_records": records_of_a_plain_job(),
            "idle_bytes_a_day": idle(),
        }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
