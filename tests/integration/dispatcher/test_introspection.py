# SPDX-License-Identifier: ZPL-2.1
"""What a dispatcher tells of itself."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from twisted.internet.selectreactor import SelectReactor
from zope.interface.verify import verifyObject

from tests.integration.dispatcher import jobs_for_tests as jobs
from tests.support.clocks import StandingClock
from tests.support.running import Site, running, until
from zasync.dispatcher import Dispatcher, clear
from zasync.dispatcher.history import JobInfos, PollInfo, Polls, statistics
from zasync.foundation import clock
from zasync.interfaces import IReactor
from zasync.job import Job

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_the_status_goes_from_stopped_over_running_to_stopped(site: Site) -> None:
    with running(site.db, poll_interval=1) as runner:
        info = runner.dispatcher.getStatusInfo()
        assert info["status"] == "RUNNING"
        assert info["uuid"] == runner.uuid
        assert info["poll interval"] == timedelta(seconds=1)
        assert timedelta() <= info["time since last poll"] <= info["uptime"]
    info = runner.dispatcher.getStatusInfo()
    assert info["status"] == "STOPPED"
    assert info["uptime"] is None


def test_a_dispatcher_that_does_not_poll_is_stuck(site: Site) -> None:
    dispatcher = Dispatcher(site.db, SelectReactor(), poll_interval=1, uuid=uuid.uuid4())
    standing = StandingClock()
    before = clock.install(standing)
    try:
        assert dispatcher.getStatusInfo()["status"] == "STOPPED"
        dispatcher.activate()
        assert dispatcher.getStatusInfo()["status"] == "STARTING"
        standing.move(seconds=3)
        assert dispatcher.getStatusInfo()["status"] == "STUCK"
        dispatcher.poll()
        assert dispatcher.getStatusInfo()["status"] == "RUNNING"
        standing.move(seconds=3)
        assert dispatcher.getStatusInfo()["status"] == "STUCK"
        assert dispatcher.health()["problems"][0]["kind"] == "stuck"
        standing.move(seconds=28)
        kinds = [problem["kind"] for problem in dispatcher.health()["problems"]]
        assert kinds == ["stuck", "not-committing"]
        assert dispatcher.health()["begins_jobs"]
        standing.move(seconds=15)
        assert not dispatcher.health()["begins_jobs"]
        dispatcher.deactivate(grace=0)
        assert dispatcher.health()["problems"] == []
    finally:
        clock.install(before)
        clear()


def test_polls_say_what_each_agent_held_and_claimed(site: Site) -> None:
    with running(site.db, poll_interval=0.05) as runner:
        job = site.put(Job(jobs.wait_at, "a"))
        until(jobs.gate("a reached").is_set, "the job")
        key = (job.oid, "unnamed")
        claiming = [p for p in runner.dispatcher.polls if p[""]["main"]["new jobs"] == [key]]
        assert len(claiming) == 1
        until(
            lambda: runner.dispatcher.getPollInfo()[""]["main"]["active jobs"] == [key],
            "a poll that sees it active",
        )
        newest = runner.dispatcher.getPollInfo()
        assert newest[""]["main"]["size"] == 3
        assert newest[""]["main"]["len"] == 1
        assert newest[""]["main"]["error"] is None
        assert next(iter(runner.dispatcher.iterPolls(since=timedelta(hours=1))))
        with pytest.raises(ValueError, match="no poll"):
            runner.dispatcher.getPollInfo(before=timedelta(hours=1))
        jobs.gate("a").set()
        site.completed(job)


def test_job_infos_say_what_ran_where(site: Site) -> None:
    with running(site.db, poll_interval=0.05) as runner:
        good = site.put(Job(jobs.note, 5))
        bad = site.put(Job(int, "five"))
        site.completed(good, bad)
        dispatcher = runner.dispatcher
        until(lambda: dispatcher.getStatistics()["failed"] == 1, "the info of the failure")
        until(lambda: dispatcher.getStatistics()["successful"] == 1, "the info of the success")
        info = dispatcher.getJobInfo(good.oid)
        assert info["result"] == "5"
        assert info["queue"] == ""
        assert info["agent"] == "main"
        assert info["failed"] is False
        assert "note(5)" in info["call"]
        assert dispatcher.getJobInfo(bad.oid, "unnamed")["failed"] is True
        with pytest.raises(KeyError):
            dispatcher.getJobInfo(12345)
        counts = dispatcher.getStatistics(queue="", agent="main", since=timedelta(hours=1))
        assert counts["started"] == 2
        assert counts["longest successful"] == (good.oid, "unnamed")
        assert dispatcher.getStatistics(queue="nowhere")["started"] == 0
        assert dispatcher.getActiveJobIds() == []


def test_at_and_before_exclude_each_other(site: Site) -> None:
    dispatcher = Dispatcher(site.db, uuid=__import__("uuid").uuid4())
    try:
        with pytest.raises(ValueError, match="not both"):
            dispatcher.getStatistics(at=NOON, before=NOON)
    finally:
        clear()


def test_twisteds_reactor_provides_what_a_dispatcher_asks(site: Site) -> None:
    with running(site.db) as runner:
        for name in IReactor:
            assert callable(getattr(runner.reactor, name))
        assert verifyObject(IReactor, runner.reactor, tentative=True)


def test_polls_are_bounded_and_found_by_time() -> None:
    polls = Polls(2)
    infos = []
    for minute in range(3):
        info = PollInfo(polls.next_key())
        info.utc_timestamp = NOON + timedelta(minutes=minute)
        polls.add(info)
        infos.append(info)
    assert list(polls) == [infos[2], infos[1]]
    assert polls.total == 3
    assert len(polls) == 2
    assert polls.first(NOON + timedelta(minutes=1, seconds=30)) is infos[1]
    assert list(polls.iter(stop=NOON + timedelta(minutes=2))) == [infos[2]]
    polls.clear()
    with pytest.raises(ValueError, match="no poll"):
        polls.first()


def info_of(start: int, seconds: int | None, failed: bool | None) -> dict[str, object]:
    began = NOON + timedelta(seconds=start)
    ended = None if seconds is None else began + timedelta(seconds=seconds)
    return {"started": began, "completed": ended, "failed": failed}


def test_statistics_count_and_find_the_extremes() -> None:
    infos = [
        ((1, "db"), info_of(0, 5, False)),
        ((2, "db"), info_of(1, 2, False)),
        ((3, "db"), info_of(2, 4, True)),
        ((4, "db"), info_of(3, None, None)),
        ((5, "db"), info_of(4, 1, None)),
        ((6, "db"), info_of(99, None, None)),
        ((7, "db"), info_of(-50, 10, False)),
    ]
    counts = statistics(infos, NOON, NOON + timedelta(seconds=60))
    assert counts["started"] == 5
    assert counts["successful"] == 2
    assert counts["failed"] == 1
    assert counts["unknown"] == 1
    assert counts["longest successful"] == (1, "db")
    assert counts["shortest successful"] == (2, "db")
    assert counts["longest failed"] == (3, "db")
    assert counts["longest active"] == (4, "db")


def test_running_jobs_are_never_forgotten_for_ended_ones() -> None:
    infos = JobInfos(2)
    infos.started({(1, "db"): info_of(0, None, None)})
    for oid in (2, 3, 4):
        infos.started({(oid, "db"): info_of(oid, 1, False)})
    assert (1, "db") in infos
    assert len(infos) == 2
    assert list(infos) == [(1, "db"), (4, "db")]
