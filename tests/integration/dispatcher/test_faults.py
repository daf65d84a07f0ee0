# SPDX-License-Identifier: ZPL-2.1
"""A dispatcher on a storage that fails at chosen moments, and with jobs left in odd states."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import ZODB
from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import ConflictError, ReadOnlyError

from tests.integration.dispatcher import jobs_for_tests as jobs
from tests.support.running import Runner, Site, running, until
from zasync.agent import Agent
from zasync.interfaces import COMPLETED, NEW
from zasync.job import Job
from zasync.testing.faults import FaultyStorage, Point


@pytest.fixture
def faulty() -> FaultyStorage:
    return FaultyStorage()


@pytest.fixture
def db(faulty: FaultyStorage) -> Iterator[Any]:
    """A database in a storage that can be made to fail."""
    database = ZODB.DB(faulty)
    yield database
    database.close()


COMMITS = {"the claim": 1, "the end of the job": 2}
"""How many commits come before, counted from the put."""


IN_DOUBT = [Point.VOTE, Point.BEFORE_FINISH, Point.AFTER_FINISH]


@pytest.mark.parametrize("skip", COMMITS.values(), ids=list(COMMITS))
@pytest.mark.parametrize(
    ("point", "error"),
    [
        *itertools.product(
            [Point.VOTE, Point.BEFORE_FINISH, Point.AFTER_FINISH], [ClientDisconnected, OSError]
        ),
        (Point.VOTE, ConflictError),  # a storage finds conflicts before it finishes
    ],
)
def test_a_commit_that_fails_or_is_in_doubt_repeats_no_effect(
    site: Site, faulty: FaultyStorage, skip: int, point: str, error: type[Exception]
) -> None:
    with running(site.db, poll_interval=3600):
        job = Job(jobs.count_up)
        job.retry_policy_factory = jobs.again_soon
        callback = job.addCallback(jobs.note)
        fault = faulty.fail(point, error(), skip=skip)
        site.put(job)
        site.completed(job, callback)
    assert not fault.times, "the fault was met"
    assert site.sees(lambda: site.root["count"]) == 1
    assert job.result == 1
    assert len(jobs.seen) == 1


class UnableToAcquireLockError(Exception):
    __module__ = "relstorage.adapters.interfaces"
    __qualname__ = "UnableToAcquireLockError"


class LockTimeOut(UnableToAcquireLockError):
    """What a commit raises that waited for the commit lock for too long."""


@pytest.mark.parametrize("error", [ReadOnlyError, LockTimeOut])
@pytest.mark.parametrize("skip", COMMITS.values(), ids=list(COMMITS))
def test_a_storage_that_takes_no_writes_for_a_while_costs_no_attempt(
    site: Site, faulty: FaultyStorage, skip: int, error: type[Exception]
) -> None:
    with running(site.db, poll_interval=0.05):
        job = Job(jobs.count_up)
        job.retry_policy_factory = jobs.patient
        fault = faulty.fail(Point.VOTE, error(), skip=skip, times=7)
        site.put(job)
        site.completed(job)
    assert not fault.times, "more often than the policy tries again after a conflict"
    assert job.result == 1
    assert "conflicts" not in job.getRetryPolicy().data


def test_a_storage_that_cannot_be_read_for_a_while_stops_nothing(
    site: Site, faulty: FaultyStorage
) -> None:
    with running(site.db, poll_interval=0.05) as runner:
        site.db.cacheMinimize()
        fault = faulty.fail(Point.LOAD, ClientDisconnected(), times=3)
        runner.dispatcher._poller.connection.cacheMinimize()
        until(lambda: not fault.times, "the faults to be met")
        job = site.put(jobs.count_up)
        site.completed(job)
    assert job.result == 1


def test_an_odd_error_in_a_poll_is_reported_and_polling_goes_on(
    site: Site, faulty: FaultyStorage, caplog: pytest.LogCaptureFixture
) -> None:
    with running(site.db, poll_interval=0.05) as runner:
        queue = site.queue
        site.commit(lambda: setattr(queue.dispatchers[runner.uuid], "activated", None))
        fault = faulty.fail(Point.VOTE, RuntimeError("odd"))
        until(lambda: not fault.times, "the fault to be met")
        job = site.put(jobs.count_up)
        site.completed(job)
    assert "a poll failed: RuntimeError('odd')" in caplog.text


def test_a_dispatcher_whose_storage_is_away_stops_all_the_same(
    site: Site, faulty: FaultyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zasync.dispatcher import dispatcher as module

    monkeypatch.setattr(module, "LAST_WORD", 0.2)
    with running(site.db) as runner:
        fault = faulty.fail(Point.VOTE, ClientDisconnected(), times=1000)
        runner.stop()
        fault.times = 0
    assert site.sees(lambda: site.queue.dispatchers[runner.uuid].activated), "it could not say so"


# Jobs that the agent holds and this process does not know of


def left_behind(site: Site, runner: Runner, callable: Any, leave: Any) -> Any:
    """A job that the agent holds in the state that `leave(job)` makes."""

    def make() -> Any:
        record = site.queue.dispatchers[runner.uuid]
        if "main" not in record:
            record["main"] = Agent()
        job = Job(callable)
        job.addCallback(jobs.note)
        site.queue.put(job)
        found = next(iter(record["main"].claim_jobs(1)))
        assert found is job
        leave(job)
        return job

    return site.commit(make)


def finished(job: Any) -> None:
    job.start(7)
    job.finish("before")


def completed(job: Any) -> None:
    finished(job)
    job.callbacks[0].start(8)
    job.callbacks[0].finish(None)
    job.complete()


def active(job: Any) -> None:
    job.start(7)


def rescheduled(job: Any) -> None:
    job.start(7)
    job._again = 0


def waiting(job: Any) -> None:
    job.start(7)
    inner = Job(jobs.count_up)
    job.queue.put(inner)
    job.wait_for(inner)


@pytest.mark.parametrize(
    ("leave", "result", "noted"),
    [
        (finished, "before", ["before"]),
        (completed, "before", []),
        (active, 1, [1]),
        (rescheduled, 1, [1]),
        (waiting, 1, [1]),
    ],
)
def test_a_job_that_was_left_behind_is_seen_to(
    site: Site, leave: Any, result: Any, noted: list[Any]
) -> None:
    with running(site.db, agents=False, poll_interval=0.05) as runner:
        job = left_behind(site, runner, jobs.count_up, leave)
        site.until(lambda: job.status == COMPLETED, "the end of the job")
        agent = site.queue.dispatchers[runner.uuid]["main"]
        site.until(lambda: len(agent) == 0, "the tidying")
        assert job in list(agent.completed)
    assert job.result == result
    assert jobs.seen == [(each,) for each in noted]


# What ends a process


def test_system_exit_in_a_callback_fails_the_callback_only(site: Site) -> None:
    with running(site.db, size=1, poll_interval=0.05):
        job = Job(jobs.note, "done")
        leaving = job.addCallback(jobs.leave_with)
        second = job.addCallback(jobs.note)
        site.put(job)
        site.completed(job, leaving, second)
        after = site.put(Job(jobs.note, "after"))
        site.completed(after)
    assert job.result == "done"
    assert leaving.result.check(SystemExit)


def test_a_job_that_asks_for_later_is_run_then(site: Site) -> None:
    with running(site.db, poll_interval=0.05):
        job = Job(jobs.fail_first)
        job.retry_policy_factory = jobs.again_later
        site.put(job)
        site.completed(job)
    assert job.result == "second time"
    assert job.begin_after is not None
    assert job.active_start >= job.begin_after


def test_a_slow_callback_that_waits_is_finished_by_whoever_ends_it(site: Site) -> None:
    with running(site.db, poll_interval=0.05):
        job = Job(jobs.note, 1)
        callback = job.addCallback(jobs.double)
        site.put(job)
        site.completed(job, callback)
    assert callback.result == 2
    assert timedelta() <= job.initial_callbacks_end - job.active_end


def test_a_job_that_is_too_late_fails_and_its_callback_is_told(site: Site) -> None:
    with running(site.db, poll_interval=0.05):
        job = Job(jobs.count_up)
        callback = job.addCallback(jobs.note)
        site.put(job, begin_by=timedelta())
        site.completed(job, callback)
        assert "count" not in site.sees(lambda: site.root)
    assert job.result.check(TimeoutError)
    assert job.agent is not None, "it is to be found among the completed"


def test_a_poll_that_cannot_read_something_is_repeated_wherever_that_is(
    site: Site, faulty: FaultyStorage
) -> None:
    with running(site.db, poll_interval=0.05) as runner:
        for skip in range(12):
            with runner.dispatcher._poll_lock:
                runner.dispatcher._poller.connection.cacheMinimize()
                fault = faulty.fail(Point.LOAD, ClientDisconnected(), skip=skip)
            job = site.put(Job(jobs.note, skip))
            site.completed(job)
            fault.times = 0
    assert sorted(jobs.seen) == [(skip,) for skip in range(12)]


def test_a_thread_waits_for_the_storage_before_it_opens_its_connection(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, refused = site.db.open, []

    def open_later(*args: Any, **options: Any) -> Any:
        if threading.current_thread().name.startswith("zasync /") and not refused:
            refused.append(True)
            raise ClientDisconnected
        return real(*args, **options)

    monkeypatch.setattr(site.db, "open", open_later)
    with running(site.db):
        job = site.put(Job(jobs.note, 1))
        site.completed(job)
    assert refused
    assert "did not let us open a connection" in caplog.text


def test_a_deferred_of_a_job_that_was_taken_away_changes_nothing(site: Site) -> None:
    with running(site.db, poll_interval=0.05) as runner:
        job = site.put(jobs.later)
        until(lambda: jobs.deferreds, "the Deferred")
        agent = site.queue.dispatchers[runner.uuid]["main"]
        site.commit(lambda: agent.remove(job))
        jobs.deferreds[0].callback("too late")
        until(lambda: not runner.dispatcher.getActiveJobIds(), "the end of the run")
        after = site.put(Job(jobs.note, "after"))
        site.completed(after)
    assert site.sees(lambda: job.status) == NEW
    assert job.result is None
