# SPDX-License-Identifier: ZPL-2.1
"""Rows of the fault matrix (tests/FAULTS.md) that simulated processes on virtual time can show."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import transaction
import ZODB
from persistent.mapping import PersistentMapping
from ZEO.Exceptions import ServerException
from ZODB.DemoStorage import DemoStorage
from ZODB.FileStorage import FileStorage
from ZODB.POSException import InvalidObjectReference, POSKeyError, UndoError

from tests.support.queues import View, install_queue
from zasync import local
from zasync.foundation import clock
from zasync.interfaces import COMPLETED, NEW, PENDING
from zasync.job import Job, RetryCommonForever
from zasync.testing.crashing import crash_at_every_commit
from zasync.testing.faults import Point
from zasync.testing.processes import Cluster, cluster

FIRST, SECOND = UUID(int=1), UUID(int=2)


@pytest.fixture
def here() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


class Counter(PersistentMapping):
    """Counts in the database."""

    value = 0

    def count(self, *ignored: Any) -> int:
        self.value += 1
        return int(self.value)

    def count_and_tell(self) -> None:
        self.count()
        local.setLiveAnnotation("said", self.value)

    def look_at(self, other: Any) -> int:
        return len(other)


def leave(error: type[BaseException]) -> None:
    raise error


def counter_in(here: Cluster) -> Any:
    here.root["counter"] = Counter()
    here.commit()
    return here.root["counter"]


def put(here: Cluster, *jobs: Any, **options: Any) -> list[Any]:
    made = [here.queue.put(job, **options) for job in jobs]
    here.commit()
    return made


# A: what ends a process


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_job_that_wants_to_end_the_process_fails_and_frees_its_place(
    here: Cluster, error: type[BaseException]
) -> None:
    counter = counter_in(here)
    (bad,) = put(here, Job(leave, error))
    good = put(here, Job(counter.count), Job(counter.count))
    here.add(FIRST, agent_size=1).start()

    here.run_to_the_end(bad, *good)

    assert bad.result.check(error)
    assert counter.value == 2


# C: storages


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), ServerException("disk full")]
)
def test_a_full_disk_uses_nothing_up_and_work_goes_on_once_there_is_room(
    here: Cluster, error: Exception
) -> None:
    counter = counter_in(here)
    jobs = put(here, *(Job(counter.count) for _ in range(4)))
    process = here.add(FIRST)
    full = process.storage.fail(Point.VOTE, error, skip=1, times=10_000)
    process.start()
    here.fly(600)
    assert full.met > 5
    here.begin()
    assert counter.value == 0

    full.times = 0
    here.run_to_the_end(*jobs)

    assert counter.value == 4
    assert not any(job.failed for job in jobs)


def test_a_live_annotation_survives_all_accidents() -> None:
    def set_up(root: Any) -> Any:
        root["counter"] = Counter()
        return Job(root["counter"].count_and_tell)

    def check(root: Any, job: Any) -> None:
        assert root["counter"].value == 1
        assert job.annotations["said"] == 1

    assert crash_at_every_commit(set_up, check).tried > 12


@pytest.mark.parametrize("stall", [5, 30])
def test_slow_commits_kill_nobody(
    here: Cluster, stall: int, caplog: pytest.LogCaptureFixture
) -> None:
    counter, first, second = counter_in(here), here.add(FIRST), here.add(SECOND)
    jobs = put(here, *(Job(counter.count, each) for each in range(6)))
    for job in jobs:
        job.retry_policy_factory = RetryCommonForever
    here.commit()
    for process in (first, second):
        # Before it begins: later it would hold the lock for which whoever moves time may wait.
        process.storage.call(Point.BEGIN, lambda: clock.wait(None, stall), times=5)
        process.start()

    here.run_to_the_end(*jobs)

    assert counter.value == 6
    assert "is dead; handing back" not in caplog.text


@pytest.fixture
def on_file(tmp_path: Path) -> Iterator[View]:
    db = ZODB.DB(FileStorage(str(tmp_path / "Data.fs")))
    install_queue(db)
    view = View(db)
    yield view
    view.close()
    db.close()


def undo_last(view: View) -> None:
    db = view.connection.db()
    manager = transaction.TransactionManager()
    manager.begin()
    db.undo(db.undoInfo(0, 1)[0]["id"], manager.get())
    manager.commit()
    view.begin()


def test_to_undo_a_put_takes_the_job_out_and_leaves_the_others(on_file: View) -> None:
    (kept,) = on_file.put(1)
    on_file.put(2)
    undo_last(on_file)

    assert list(on_file.queue) == [kept]
    assert on_file.dispatcher()["main"].claimJob() is kept


def test_to_undo_a_completion_makes_no_job_both_done_and_pending(on_file: View) -> None:
    agent = on_file.dispatcher()["main"]
    (job,) = on_file.put(21)
    assert agent.claimJob() is job
    on_file.commit()
    assert job() == 42
    on_file.begin()
    try:
        undo_last(on_file)
    except UndoError:
        assert job.status == COMPLETED
    on_file.begin()
    assert len(on_file.queue) == 0
    assert (job in list(agent)) != (job in list(agent.completed))


# D: jobs


def test_an_argument_that_is_gone_fails_the_job_once_and_is_named(here: Cluster) -> None:
    counter = counter_in(here)
    argument = here.root["argument"] = PersistentMapping()
    here.commit()
    (job,) = put(here, Job(counter.look_at, argument))
    del here.storage.storage.changes._data[argument._p_oid]
    here.connection.cacheMinimize()
    process = here.add(FIRST)
    process.start()

    here.run_to_the_end(job)

    assert job.result.check(POSKeyError)
    assert argument._p_oid.hex().lstrip("0") in job.result.getErrorMessage()
    assert process.storage.commits < 6, "no storm of attempts"


def test_jobs_that_all_write_one_object_all_get_done(here: Cluster) -> None:
    counter = counter_in(here)
    jobs = [Job(counter.count) for _ in range(24)]
    for job in jobs:
        job.retry_policy_factory = RetryCommonForever
    put(here, *jobs)
    here.add(FIRST).start()
    here.add(SECOND).start()

    here.run_to_the_end(*jobs)

    assert counter.value == 24
    assert not any(job.failed for job in jobs)


# E: quotas, order, time


def test_a_rescheduled_job_that_is_taken_out_frees_its_place(here: Cluster) -> None:
    counter = counter_in(here)
    here.queue.quotas.create("one")
    first, second = Job(counter.count), Job(counter.count)
    first.quota_names = second.quota_names = ["one"]
    put(here, first)
    record = here.queue.dispatchers
    here.register(FIRST, 3)
    record[FIRST].activate()
    assert record[FIRST]["main"].claimJob() is first
    record[FIRST].deactivate()  # back in the queue, with its place
    here.queue.remove(first)
    here.commit()
    put(here, second)
    here.add(SECOND).start()

    here.run_to_the_end(second)

    assert counter.value == 1


def test_two_quotas_in_opposite_order_hold_nobody_up(here: Cluster) -> None:
    counter = counter_in(here)
    for name in ("left", "right"):
        here.queue.quotas.create(name)
    jobs = [Job(counter.count, number) for number in range(12)]
    for number, job in enumerate(jobs):
        job.quota_names = ["left", "right"] if number % 2 else ["right", "left"]
        job.retry_policy_factory = RetryCommonForever
    put(here, *jobs)
    here.add(FIRST).start()
    here.add(SECOND).start()

    here.run_to_the_end(*jobs)

    assert counter.value == 12


@pytest.mark.parametrize(
    "jump", [timedelta(hours=1), timedelta(hours=-1), timedelta(days=365)], ids=str
)
def test_a_clock_that_jumps_kills_nobody_and_loses_nothing(
    here: Cluster, jump: timedelta, caplog: pytest.LogCaptureFixture
) -> None:
    counter, clock_here = counter_in(here), here.reactor._clock()
    here.add(FIRST).start()
    here.add(SECOND).start()
    before = put(here, *(Job(counter.count, each) for each in range(3)))
    here.run_to_the_end(*before)
    clock_here._offset += round(jump.total_seconds() * 1_000_000)  # the wall clock alone
    for job in (after := [Job(counter.count, each) for each in range(3)]):
        job.retry_policy_factory = RetryCommonForever
    put(here, *after)

    here.run_to_the_end(*after)
    here.fly(120)

    here.begin()
    assert counter.value == 6
    assert "is dead; handing back" not in caplog.text
    assert all(record.activated for record in here.queue.dispatchers.values())


def test_a_job_of_a_client_whose_clock_is_ahead_holds_up_nobody(here: Cluster) -> None:
    counter = counter_in(here)
    (ahead,) = put(here, Job(counter.count), begin_after=clock.now() + timedelta(minutes=10))
    with clock_ahead(timedelta(minutes=10)):
        (of_the_future,) = put(here, Job(counter.count))
    (job,) = put(here, Job(counter.count))
    here.add(FIRST).start()

    here.run_until(lambda: job.status == COMPLETED, "the job behind it", seconds=30)
    here.run_until(lambda: of_the_future.status == COMPLETED, "one put at once", seconds=30)

    assert ahead.status == PENDING
    here.run_to_the_end(ahead)


@contextmanager
def clock_ahead(by: timedelta) -> Iterator[None]:
    """What happens in the block is done by a process whose wall clock is ahead."""
    real = clock.current()

    class Ahead:
        def now(self) -> datetime:
            return real.now() + by

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    clock.install(Ahead())  # type: ignore[arg-type]
    try:
        yield
    finally:
        clock.install(real)


def test_a_steady_stream_starves_nobody_that_came_before(here: Cluster) -> None:
    counter = counter_in(here)
    (early,) = put(here, Job(counter.count))
    late = put(here, *(Job(counter.count) for _ in range(20)))
    here.add(FIRST, agent_size=1).start()

    here.run_to_the_end(early, *late)

    starts = [job.active_start for job in (early, *late)]
    assert starts == sorted(starts)


@pytest.mark.parametrize("interval", [0.05, 3600])
def test_a_poll_interval_may_be_short_or_long(here: Cluster, interval: float) -> None:
    counter = counter_in(here)
    process = here.add(FIRST)
    process.dispatcher.poll_interval = interval
    jobs = put(here, *(Job(counter.count, each) for each in range(10)))
    for job in jobs:
        job.retry_policy_factory = RetryCommonForever
    here.commit()
    process.start()
    here.fly(interval)
    polls, start = process.dispatcher.polls.total, clock.monotonic()

    here.run_until(lambda: counter.value == 10, "all jobs", seconds=2 * interval + 60)

    flown = clock.monotonic() - start
    assert process.dispatcher.polls.total - polls <= flown / interval + 40


# F: operations


class BrokenHandler(logging.Handler):
    """Its disk is full."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_log_that_cannot_be_written_stops_nothing(here: Cluster) -> None:
    counter, handler = counter_in(here), BrokenHandler()
    logger = logging.getLogger("zasync")
    logger.addHandler(handler)
    try:
        good, bad = put(here, Job(counter.count), Job(leave, ValueError))
        here.add(FIRST, agent_size=1).start()
        here.run_to_the_end(good, bad)
    finally:
        logger.removeHandler(handler)

    assert counter.value == 1
    assert bad.result.check(ValueError)


def test_completed_jobs_rotate_out_while_others_run(here: Cluster) -> None:
    counter = counter_in(here)
    here.add(FIRST).start()
    for _ in range(10):
        for job in (jobs := [Job(counter.count) for _ in range(5)]):
            job.retry_policy_factory = RetryCommonForever
        put(here, *jobs)
        here.run_to_the_end(*jobs)
        here.reactor._clock().advance(24 * 3600.0)
        here.fly(60)

    here.begin()
    kept = list(here.queue.dispatchers[FIRST]["main"].completed)
    assert counter.value == 50
    assert 30 <= len(kept) < 50, "about a week"


def share_between_databases() -> None:
    """Have a new object belong to two databases, which none of them can store."""
    connection = local.getJob()._p_jar
    shared = PersistentMapping()
    connection.root()["shared"] = shared
    connection.get_connection("other").root()["shared"] = shared


@pytest.fixture
def two_databases() -> Iterator[Any]:
    databases: dict[str, Any] = {}
    main = ZODB.DB(DemoStorage(), databases=databases, database_name="main")
    other = ZODB.DB(DemoStorage(), databases=databases, database_name="other")
    manager = transaction.TransactionManager()
    connection = main.open(transaction_manager=manager)
    yield connection
    manager.abort()
    connection.close()
    main.close()
    other.close()


def test_what_belongs_to_two_databases_fails_the_job_and_leaves_nothing(
    two_databases: Any,
) -> None:
    job = Job(share_between_databases)
    two_databases.add(job)
    two_databases.transaction_manager.commit()

    assert job().check(InvalidObjectReference)

    two_databases.transaction_manager.begin()
    assert job.status == COMPLETED
    assert "shared" not in two_databases.root()


def take_out(other: Any) -> None:
    other.queue.remove(other)


def test_a_job_may_take_out_one_that_waits(here: Cluster) -> None:
    counter = counter_in(here)
    waiting = Job(counter.count)
    (remover,) = put(here, Job(take_out, waiting))
    put(here, waiting, begin_after=clock.now() + timedelta(minutes=5))
    here.add(FIRST).start()

    here.run_to_the_end(remover)

    assert not remover.failed
    assert waiting.status == NEW
    assert counter.value == 0
