# SPDX-License-Identifier: ZPL-2.1
"""A storage, a poll or a job that hangs: nothing is begun that others might begin, all is told,
and the stop is bounded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import ZODB

from tests.integration.dispatcher import jobs_for_tests as jobs
from tests.support.blocking import BlockingStorage
from tests.support.running import Runner, Site, running, until
from zasync.dispatcher import dispatcher as module
from zasync.interfaces import COMPLETED
from zasync.job import Job
from zasync.testing import fail_points


@pytest.fixture
def blocking() -> Iterator[BlockingStorage]:
    storage = BlockingStorage()
    yield storage
    storage.unblock()


@pytest.fixture
def db(blocking: BlockingStorage) -> Iterator[Any]:
    database = ZODB.DB(blocking)
    yield database
    blocking.unblock()
    database.close()


@pytest.fixture
def quick_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAST_WORD", 0.2)
    monkeypatch.setattr(module, "POLL_END", 0.1)


def lives_for(site: Site, runner: Runner, seconds: float) -> None:
    """Have the others take the dispatcher for dead after so many seconds without a ping."""

    def change() -> None:
        record = site.queue.dispatchers[runner.uuid]
        record.ping_interval = timedelta(seconds=seconds / 4)
        record.ping_death_interval = timedelta(seconds=seconds)

    site.commit(change)
    until(lambda: runner.dispatcher.pulse.interval == seconds / 4, "a poll that sees it")


def cut_off(blocking: BlockingStorage, runner: Runner) -> Callable[[], None]:
    """What blocks the storage, and returns when no job may be begun any more."""

    def cut() -> None:
        if runner.dispatcher.pulse.is_known():
            blocking.block()
            until(lambda: not runner.dispatcher.pulse.is_known(), "the pulse to be lost")

    return cut


class Held:
    """Says when a thread waits until it may begin a job."""

    def __init__(self, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
        self._pulse = runner.dispatcher.pulse
        self._wait = self._pulse.wait
        self.event = threading.Event()
        monkeypatch.setattr(self._pulse, "wait", self)

    def __call__(self) -> None:
        self.event.set()
        self._wait()


# No ping, no beginning


@pytest.mark.parametrize(
    ("point", "callable"),
    [("run.taken", jobs.note), ("run.taken", jobs.note_later), ("run.settled", jobs.note_later)],
)
def test_a_dispatcher_that_cannot_ping_begins_no_job_until_it_can(
    site: Site,
    blocking: BlockingStorage,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    point: str,
    callable: Any,
) -> None:
    with running(site.db, poll_interval=0.05) as runner:
        lives_for(site, runner, 1.0)
        held = Held(runner, monkeypatch)
        with fail_points.armed(point, cut_off(blocking, runner)):
            job = site.put(Job(callable, "begun"))
            until(held.event.is_set, "the thread to wait")
            until(lambda: "until it can, it begins no job" in caplog.text, "the report")
            assert jobs.seen == []
            assert not runner.dispatcher.getStatusInfo()["begins jobs"]
        blocking.unblock()
        site.completed(job)
        until(lambda: "has committed a ping again" in caplog.text, "the report")
    assert jobs.seen == [("begun",)]
    assert caplog.text.count("until it can, it begins no job") == 1


@pytest.mark.parametrize(
    ("point", "callable"), [("run.taken", jobs.note), ("run.settled", jobs.note_later)]
)
def test_a_job_that_others_took_meanwhile_is_not_begun(
    site: Site,
    blocking: BlockingStorage,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    point: str,
    callable: Any,
) -> None:
    with running(site.db, poll_interval=0.05) as runner:
        lives_for(site, runner, 1.0)
        held = Held(runner, monkeypatch)
        with fail_points.armed(point, cut_off(blocking, runner)):
            job = site.put(Job(callable, "begun"))
            until(held.event.is_set, "the thread to wait")
        agent = site.queue.dispatchers[runner.uuid]["main"]
        site.commit(lambda: agent.remove(job))
        blocking.unblock()
        until(lambda: not runner.dispatcher.getActiveJobIds(), "the end of the run")
        after = site.put(Job(jobs.note, "after"))
        site.completed(after)
    assert jobs.seen == [("after",)]
    assert "ReassignedError" in caplog.text


# Polls


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("error", [RuntimeError, SystemExit, GeneratorExit])
def test_whatever_breaks_a_poll_off_the_next_goes_on_with_its_work(
    site: Site, caplog: pytest.LogCaptureFixture, error: type[BaseException], threaded: bool
) -> None:
    raised: list[bool] = []

    def fail() -> None:
        if threading.current_thread() is not threading.main_thread() and jobs.gate("put").is_set():
            fail_points.disarm("poll.committed")
            raised.append(True)
            raise error

    with running(site.db, poll_interval=0.05) as runner:
        runner.dispatcher._threaded = threaded
        with fail_points.armed("poll.committed", fail):
            jobs.gate("put").set()
            job = site.put(Job(jobs.count_up))
            site.completed(job)
            assert raised
    assert job.result == 1
    assert "broke off" in caplog.text


def test_a_dispatcher_without_a_thread_for_a_job_tries_again(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, refused = threading.Thread.start, []

    def start(thread: threading.Thread) -> None:
        if thread.name == "zasync /main" and not refused:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with running(site.db, poll_interval=0.05):
        job = site.put(Job(jobs.count_up))
        site.completed(job)
    assert refused
    assert job.result == 1
    assert "can't start new thread" in caplog.text


def test_a_poll_that_hangs_makes_the_dispatcher_stuck_and_is_told_with_where_it_is(
    site: Site, blocking: BlockingStorage, caplog: pytest.LogCaptureFixture
) -> None:
    with running(site.db, poll_interval=0.05) as runner:
        dispatcher = runner.dispatcher
        dispatcher._poller.connection.cacheMinimize()
        blocking.block(reads=True)
        until(lambda: dispatcher.getStatusInfo()["status"] == "STUCK", "the status")
        until(lambda: "has not completed a poll" in caplog.text, "the report")
        assert "_pass" in caplog.text, "the function in which it hangs"
        assert caplog.text.count("has not completed a poll") == 1
        health = dispatcher.health()
        assert health["health"] == "broken"
        assert "stuck" in [problem["kind"] for problem in health["problems"]]
        blocking.unblock()
        until(lambda: dispatcher.getStatusInfo()["status"] == "RUNNING", "the status")
        until(lambda: "polls again" in caplog.text, "the report")
        assert dispatcher.health()["health"] == "healthy"


# The stop


@pytest.mark.usefixtures("quick_stop")
@pytest.mark.parametrize("reads", [False, True])
def test_a_stop_ends_in_time_though_the_storage_never_answers(
    site: Site, blocking: BlockingStorage, caplog: pytest.LogCaptureFixture, reads: bool
) -> None:
    with running(site.db, poll_interval=0.05) as runner:
        job = site.put(Job(jobs.wait_at, "a"))
        until(jobs.gate("a reached").is_set, "the job")
        runner.dispatcher._poller.connection.cacheMinimize()
        blocking.block(reads=reads)
        began = time.monotonic()
        runner.dispatcher.deactivate(grace=0.2)
        assert time.monotonic() - began < 10
        assert runner.dispatcher.handed_back is False
        assert "could not hand back its jobs in time" in caplog.text
        assert runner.dispatcher.getStatusInfo()["status"] == "STOPPED"
        blocking.unblock()
        jobs.gate("a").set()
        # What had been asked of the storage may take effect late; else the job is still its own.
        record = site.queue.dispatchers[runner.uuid]
        site.until(lambda: job.status == COMPLETED or not record.activated, "the end")


@pytest.mark.usefixtures("quick_stop")
def test_a_dispatcher_that_was_abandoned_can_be_activated_again(
    site: Site, blocking: BlockingStorage
) -> None:
    with running(site.db, poll_interval=0.05) as runner:
        dispatcher = runner.dispatcher
        blocking.block(reads=True)
        dispatcher._poller.connection.cacheMinimize()
        until(lambda: blocking.waiting, "the poll to hang")
        dispatcher.deactivate(grace=0)
        blocking.unblock()
        dispatcher.activate()
        site.commit(lambda: setattr(site.queue.dispatchers[runner.uuid], "process", None))
        assert dispatcher.getStatusInfo()["status"] in ("STARTING", "RUNNING")
        until(lambda: dispatcher.polls.total > 1, "a poll")


def test_a_job_that_waits_for_the_storage_does_not_delay_the_stop(site: Site) -> None:
    with running(site.db, poll_interval=0.05) as runner:
        job = site.put(Job(jobs.lose_the_storage))
        until(jobs.gate("storage lost").is_set, "the job")
        began = time.monotonic()
        runner.dispatcher.deactivate(grace=0.1)
        assert time.monotonic() - began < 4
        assert runner.dispatcher.handed_back
    assert site.sees(lambda: job.status) != COMPLETED
    assert site.sees(lambda: len(site.queue)) == 1, "what asks its policy"


def test_nobody_takes_a_dispatcher_for_dead_while_its_jobs_get_to_end(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(site.db, poll_interval=0.05) as runner:
        lives_for(site, runner, 1.0)
        job = site.put(Job(jobs.wait_at, "a"))
        waiting = Job(jobs.note, "begun while it stops")
        until(jobs.gate("a reached").is_set, "the job")
        stopping = threading.Thread(target=runner.dispatcher.deactivate, args=(30,))
        stopping.start()
        until(lambda: not runner.dispatcher.activated, "the beginning of the stop")
        site.put(waiting)
        ping = site.queue.dispatchers[runner.uuid].last_ping
        for _ in range(5):
            before = site.sees(lambda: ping.value)
            site.until(lambda before=before: ping.value > before, "the next ping")
        assert runner.dispatcher.pulse.is_known()
        jobs.gate("a").set()
        stopping.join(20)
        assert runner.dispatcher.handed_back
    assert site.sees(lambda: job.status) == COMPLETED
    assert jobs.seen == [], "a stop claims nothing"


# Jobs that hang


def test_a_job_beyond_its_limit_is_told_with_where_it_is_and_the_pings_go_on(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with running(site.db, poll_interval=0.05, size=1) as runner:
        dispatcher = runner.dispatcher
        lives_for(site, runner, 1.0)
        job = Job(jobs.wait_at, "a")
        job.run_limit = timedelta(milliseconds=100)
        site.put(job)
        until(jobs.gate("a reached").is_set, "the job")
        ping = site.queue.dispatchers[runner.uuid].last_ping
        site.until(lambda: ping.overdue, "what others can see")
        ((oid, database, agent, since),) = ping.overdue
        assert (oid, database, agent) == (job.oid, "unnamed", "main")
        assert abs(since - job._active_start) < 5_000_000
        until(lambda: "than its limit of 0 s" in caplog.text, "the report")
        assert "in wait_at" in caplog.text, "where it is"
        info = dispatcher.getStatusInfo()
        assert info["overdue"] == [(job.oid, "unnamed")]
        assert info["capacity"] == {"size": 1, "running": 1, "overdue": 1}
        assert dispatcher.getJobInfo(job.oid)["overdue"]
        assert dispatcher.getJobInfo(job.oid)["running for"] > timedelta(milliseconds=100)
        health = dispatcher.health()
        assert health["health"] == "broken", "there is no other place"
        assert health["overdue"][0]["job"] == job.oid
        before = site.sees(lambda: ping.value)
        site.until(lambda: ping.value > before, "the next ping")
        jobs.gate("a").set()
        site.completed(job)
        site.until(lambda: not ping.overdue, "the end of the report")
        assert dispatcher.health()["health"] == "healthy"
        assert not dispatcher.getJobInfo(job.oid)["overdue"]


def test_a_coroutine_beyond_the_limit_for_all_is_told_again_after_twice_the_time(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    limit = timedelta(milliseconds=100)
    with running(site.db, poll_interval=0.05, hang_report_after=limit) as runner:
        job = site.put(Job(jobs.wait_for_ever, "a"))
        until(jobs.gate("a reached").is_set, "the job")
        until(lambda: caplog.text.count("keeps its place") >= 2, "two reports")
        assert "it waits for a Deferred or a coroutine" in caplog.text
        assert runner.dispatcher.getStatusInfo()["overdue"] == [(job.oid, "unnamed")]
        runner.dispatcher.deactivate(grace=0)
    assert site.sees(lambda: site.queue.dispatchers[runner.uuid].last_ping.overdue) == ()
