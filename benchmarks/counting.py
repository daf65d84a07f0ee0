# SPDX-License-Identifier: ZPL-2.1
"""What a plain job costs the storage: commits, records and bytes, counted, not timed."""

from __future__ import annotations

import dataclasses
import tempfile
import uuid
from pathlib import Path
from typing import Any

import transaction
import ZODB
from ZODB.FileStorage import FileStorage

from benchmarks import work
from zasync import testing
from zasync.dispatcher import Dispatcher
from zasync.job import Job

RECORD_HEADER = 42  # bytes that a FileStorage adds to each record


class CountingStorage(FileStorage):
    """A FileStorage that counts what is committed."""

    commits = records = bytes = 0

    def store(self, oid: bytes, oldserial: bytes, data: bytes, *rest: Any) -> Any:
        self.records += 1
        self.bytes += len(data) + RECORD_HEADER
        return super().store(oid, oldserial, data, *rest)

    def tpc_finish(self, *args: Any) -> Any:
        self.commits += 1
        return super().tpc_finish(*args)

    def counts(self) -> tuple[int, int, int]:
        return self.commits, self.records, self.bytes


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one job cost, on average."""

    what: str
    commits: float
    records: float
    bytes: float


def one_at_a_time(jobs: int = 200) -> Cost:
    """Each job is put when the one before has ended; what the put itself commits is left out."""
    with tempfile.TemporaryDirectory() as directory:
        storage = CountingStorage(str(Path(directory) / "Data.fs"))
        with work.performing(ZODB.DB(storage), size=3) as (queue, _uuid):
            before = storage.counts()
            for number in range(jobs):
                queue.put(Job(work.no_op, number))
                transaction.commit()
                work.wait_for(1)
            after = work.settled(storage.counts)
    put = jobs  # one commit for each put; its records: job, tree of the lane, counter
    return _cost("put to end, one at a time", before, after, jobs, commits_of_others=put)


def backlog(jobs: int = 2000, size: int = 10) -> Cost:
    """All jobs wait when the dispatcher starts."""
    with tempfile.TemporaryDirectory() as directory:
        storage = CountingStorage(str(Path(directory) / "Data.fs"))
        database = ZODB.DB(storage)
        work.fill(database, jobs)
        before = storage.counts()
        with work.performing(database, size=size):
            work.wait_for(jobs)
            after = work.settled(storage.counts)
    return _cost(f"backlog of {jobs}, agent of size {size}", before, after, jobs)


def records_of_a_plain_job() -> int:
    """How many records a put of one job makes that are not there already."""
    with tempfile.TemporaryDirectory() as directory:
        storage = CountingStorage(str(Path(directory) / "Data.fs"))
        database = ZODB.DB(storage)
        work.fill(database, 1)
        before = len(storage)
        work.fill(database, 1)
        made = len(storage) - before
        database.close()
    return made


def _cost(
    what: str,
    before: tuple[int, ...],
    after: tuple[int, ...],
    jobs: int,
    commits_of_others: int = 0,
) -> Cost:
    commits, records, size = (late - early for early, late in zip(before, after, strict=True))
    return Cost(what, (commits - commits_of_others) / jobs, records / jobs, size / jobs)


def idle(hours: float = 1.0) -> int:
    """How many bytes a day a database grows by that one idle dispatcher pings in."""
    with tempfile.TemporaryDirectory() as directory:
        storage = FileStorage(str(Path(directory) / "Data.fs"))
        database = ZODB.DB(storage)
        work.fill(database, 0)
        reactor = testing.Reactor()
        dispatcher = Dispatcher(database, reactor, uuid=uuid.uuid4())
        dispatcher.activate()
        reactor.start()
        reactor.time_flies(60)
        before = storage.getSize()
        reactor.time_flies(hours * 3600)
        grown = storage.getSize() - before
        reactor.stop()
        testing.tear_down_dispatcher(dispatcher)
        testing.tearDownDatetime()
        database.close()
    return round(grown * 24 / hours)
