# SPDX-License-Identifier: ZPL-2.1
"""A clean stop counts nothing; deaths leave evidence; after so many of them a job is parked."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest

from tests.support.bench import UUID, Bench
from tests.support.clocks import StandingClock
from zasync.interfaces import COMPLETED, PENDING, AbortedError, ParkedError, PoisonError
from zasync.job import Job, NeverRetry, RetryCommonForever, crashes, parallel
from zasync.queue import Queue
from zasync.testing.faults import Killed

from . import things
from .test_callbacks import called, names
from .test_calling import Answering, answers  # noqa: F401
from .things import OwnJob, multiply


def die(bench: Bench, standing: StandingClock, *jobs: Any) -> None:
    """The process dies while `jobs` run; what it left is handed back, and decided upon."""
    run(bench, *jobs)
    standing.move(seconds=100)
    bench.record.deactivate(crashed=True)
    bench.record.activate()
    bench.commit()
    repair(bench)


def run(bench: Bench, *jobs: Any) -> None:
    """Have the agent claim and start all that is due, which are `jobs`."""
    bench.begin()
    claimed = list(bench.agent.claim_jobs(99))
    assert set(jobs) == set(claimed)
    for job in claimed:
        job.start(5)
    bench.commit()


def repair(bench: Bench) -> None:
    """Have our own jobs done, and no others."""
    bench.agent.filter = crashes.is_repair
    bench.commit()
    bench.work()
    bench.agent.filter = None
    bench.commit()


def stop(bench: Bench, *jobs: Any) -> None:
    """The dispatcher stops cleanly while `jobs` run."""
    run(bench, *jobs)
    bench.record.deactivate()
    bench.record.activate()
    bench.commit()
    repair(bench)


def put(bench: Bench, *args: Any, **options: Any) -> Any:
    bench.record  # noqa: B018 - has the dispatcher activated
    bench.begin()
    job = bench.queue.put(Job(*args))
    for name, value in options.items():
        setattr(job, name, value)
    bench.commit()
    return job


# A clean stop


def test_ten_rolling_restarts_do_not_fail_a_job(bench: Bench) -> None:
    job = put(bench, multiply, 4)

    for _ in range(12):
        stop(bench, job)
        assert job.interrupted_cleanly

    assert job.status == PENDING
    assert job.getRetryPolicy().data.get("interruptions", 0) == 0
    assert job.crashes == ()
    assert bench.work() == 1
    assert job.result == 8


def test_the_policy_is_asked_after_a_clean_stop_too(bench: Bench) -> None:
    job = put(bench, multiply, 4, retry_policy_factory=NeverRetry)

    stop(bench, job)

    assert job.result.check(AbortedError)
    assert not job.result.check(PoisonError)


def test_what_interrupted_a_run_is_forgotten_when_the_next_one_begins(bench: Bench) -> None:
    job = put(bench, multiply, 4)
    stop(bench, job)
    run(bench, job)

    job.handleInterrupt()

    assert not job.interrupted_cleanly
    assert job.getRetryPolicy().data["interruptions"] == 1


# Evidence


def test_a_death_leaves_evidence(bench: Bench, standing: StandingClock) -> None:
    bench.record.process = {"host": "oak", "pid": 4711}
    bench.commit()
    job, other = put(bench, multiply, 4), put(bench, multiply, 5)

    die(bench, standing, job, other)

    (crash,) = job.crashes
    assert crash == {
        "at": standing.now(),
        "host": "oak",
        "pid": 4711,
        "dispatcher": str(UUID),
        "queue": "",
        "agent": "main",
        "progress": None,
        "held": 2,
        "others": (other.oid,),
    }
    assert job.status == PENDING
    assert job.getRetryPolicy().data["interruptions"] == 1
    assert not job.interrupted_cleanly


def test_a_record_that_names_no_process_is_evidence_too(
    bench: Bench, standing: StandingClock
) -> None:
    job = put(bench, multiply, 4)
    die(bench, standing, job)
    assert (job.crashes[0]["host"], job.crashes[0]["pid"]) == (None, None)


def test_only_so_many_others_are_named(bench: Bench, standing: StandingClock) -> None:
    jobs = [put(bench, multiply, number) for number in range(30)]

    die(bench, standing, *jobs)

    for job in (jobs[0], jobs[-1]):
        (crash,) = job.crashes
        assert crash["held"] == 30
        assert len(crash["others"]) == crashes.OTHERS_NAMED
        assert job.oid not in crash["others"]


def test_only_the_last_few_deaths_are_kept(bench: Bench, standing: StandingClock) -> None:
    job = put(bench, multiply, 4, crash_limit=100, retry_policy_factory=RetryCommonForever)

    for _ in range(8):
        die(bench, standing, job)

    assert len(job.crashes) == crashes.CRASHES_KEPT
    assert job.crashes[-1]["at"] == standing.now()
    assert job.status == PENDING


def test_a_death_is_noted_once_however_often_it_is_handled(
    bench: Bench, standing: StandingClock
) -> None:
    job = put(bench, multiply, 4)
    run(bench, job)
    bench.record.deactivate(crashed=True)
    bench.commit()
    cause = job._interruption

    assert crashes.note(job, cause)
    assert not crashes.note(job, cause)

    assert len(job.crashes) == 1


def test_a_job_that_was_not_running_has_not_crashed(bench: Bench, standing: StandingClock) -> None:
    inner = bench.stored(multiply, 21)
    things.script["outer"] = lambda: inner
    job = put(bench, things.act, "outer")
    assert bench.agent.claimJob() is job
    bench.commit()
    job()
    bench.queue.remove(inner)
    bench.commit()
    assert job.awaited is inner
    bench.record.deactivate(crashed=True)
    bench.record.activate()
    bench.commit()

    repair(bench)

    assert job.crashes == ()
    inner()
    assert job.result == 42


# Parking


def test_after_three_deaths_a_job_is_parked(
    bench: Bench, standing: StandingClock, caplog: pytest.LogCaptureFixture
) -> None:
    bench.record.process = {"host": "oak", "pid": 4711}
    bench.commit()
    job = put(bench, multiply, 4)
    callback = job.addCallback(things.same)
    bench.commit()

    for _ in range(2):
        die(bench, standing, job)
        assert job.status == PENDING
    assert len(bench.queue.parked) == 0
    die(bench, standing, job)

    assert job.status == COMPLETED
    assert job.result.check(PoisonError)
    assert job.result.check(AbortedError)
    message = job.result.getErrorMessage()
    assert "its process died 3 times" in message
    assert message.count("pid 4711 on oak") == 3
    assert callback.result.check(PoisonError)
    assert list(bench.queue.parked) == [job]
    assert len(bench.queue) == 0
    (record,) = [entry for entry in caplog.records if "zasync parked" in entry.getMessage()]
    assert (record.name, record.levelno) == ("zasync.events", logging.CRITICAL)
    bench.begin()
    assert job in list(bench.agent.completed)


@pytest.mark.parametrize("where", ["job", "queue", "both"])
def test_the_limit_is_the_jobs_own_or_that_of_its_queue(
    bench: Bench, standing: StandingClock, where: str
) -> None:
    job = put(bench, multiply, 4)
    if where in ("queue", "both"):
        bench.queue.crash_limit = 1 if where == "queue" else 50
    if where in ("job", "both"):
        job.crash_limit = 1
    bench.commit()

    die(bench, standing, job)

    assert job.result.check(PoisonError)


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "3"])
def test_a_limit_that_is_no_number_of_deaths_is_refused(limit: Any) -> None:
    for thing in (Job(multiply), Queue()):
        with pytest.raises(ValueError, match="crash_limit is a number of deaths"):
            thing.crash_limit = limit


def test_a_job_has_no_limit_of_its_own_by_default() -> None:
    job = Job(multiply)
    job.crash_limit = 5
    job.crash_limit = None
    assert job.crash_limit is None
    assert Queue().crash_limit == 3
    assert crashes.limit_of(job) == 3


def test_a_policy_that_says_no_before_ends_the_job_as_ever(
    bench: Bench, standing: StandingClock
) -> None:
    job = put(bench, multiply, 4, retry_policy_factory=NeverRetry, crash_limit=1)

    die(bench, standing, job)

    assert job.result.check(AbortedError)
    assert not job.result.check(PoisonError)
    assert len(bench.queue.parked) == 0


def test_a_policy_without_limits_is_bounded_by_parking(
    bench: Bench, standing: StandingClock
) -> None:
    job = put(bench, multiply, 4, retry_policy_factory=RetryCommonForever)

    for _ in range(3):
        die(bench, standing, job)

    assert job.result.check(PoisonError)


def test_a_policy_that_puts_off_is_bounded_by_parking(
    bench: Bench,
    standing: StandingClock,
    answers: Any,  # noqa: F811
) -> None:
    answers["interrupted"] = timedelta(seconds=10)
    job = put(bench, multiply, 4, retry_policy_factory=Answering)

    for _ in range(3):
        die(bench, standing, job)
        standing.move(seconds=10)
        bench.record.ping()
        bench.commit()

    assert job.result.check(PoisonError)


# Callbacks, and our own jobs


def dying_in(bench: Bench, name: str) -> Any:
    """A job whose callback kills the process each time that it is called."""

    def kill(*args: Any) -> None:
        bench.storage.kill()

    job = put(bench, multiply, 4)
    job.addCallback(called(name, kill)).addCallback(called("handler"))
    job.addCallback(called("next"))
    bench.commit()
    return job


def work_and_die(bench: Bench, standing: StandingClock) -> int:
    """Work as processes that are started again whenever one dies; answers the deaths."""
    for deaths in range(30):
        try:
            while bench.work():
                pass
            return deaths
        except Killed:
            standing.move(seconds=100)
            bench.restart()
    raise AssertionError("it dies for ever")


def test_a_callback_whose_process_died_three_times_is_parked_and_its_parent_goes_on(
    bench: Bench, standing: StandingClock
) -> None:
    job = dying_in(bench, "poison")

    assert work_and_die(bench, standing) == 3

    bench.begin()
    job = bench.connection.get(job._p_oid)
    poison = job.callbacks[0]
    assert names() == ["poison"] * 3 + ["handler", "next"]
    assert poison.result.check(PoisonError)
    assert len(poison.crashes) == 3
    assert (job.status, job.result, job.crashes) == (COMPLETED, 8, ())
    assert list(bench.queue.parked) == [poison]
    assert len(bench.queue) == 0
    assert len(bench.agent) == 0


def test_a_callback_of_a_callback_is_parked_too(bench: Bench, standing: StandingClock) -> None:
    def kill(*args: Any) -> None:
        bench.storage.kill()

    job = put(bench, multiply, 4)
    job.addCallbacks(success=called("outer")).addCallback(called("poison", kill))
    bench.commit()

    assert work_and_die(bench, standing) == 3

    bench.begin()
    job = bench.connection.get(job._p_oid)
    (poison,) = bench.queue.parked
    assert names() == ["outer", "poison", "poison", "poison"]
    assert poison.result.check(PoisonError)
    assert job.status == COMPLETED


def test_the_job_that_fails_an_expired_one_is_never_parked(
    bench: Bench, standing: StandingClock
) -> None:
    job = dying_in(bench, "poison")
    job.begin_by = timedelta(seconds=1)
    bench.commit()
    standing.move(seconds=2)

    assert work_and_die(bench, standing) == 3

    bench.begin()
    job = bench.connection.get(job._p_oid)
    assert names() == ["poison"] * 3 + ["handler", "next"]
    assert list(bench.queue.parked) == [job.callbacks[0]]
    assert job.status == COMPLETED


def test_a_repair_is_never_parked(bench: Bench, standing: StandingClock) -> None:
    job = bench.stored(multiply, 4)
    job._status = "callback-status"
    bench.commit()
    fixing = put(bench, job.resumeCallbacks, retry_policy_factory=RetryCommonForever)

    for _ in range(5):
        run(bench, fixing)
        standing.move(seconds=100)
        bench.record.deactivate(crashed=True)
        bench.record.activate()
        bench.commit()
        claimed = bench.agent.claimJob()
        claimed()  # handles the interruption

    assert fixing.status == PENDING
    bench.work()
    assert (fixing.status, job.status) == (COMPLETED, COMPLETED)


def test_what_tells_a_job_the_result_that_it_waits_for_is_never_parked(bench: Bench) -> None:
    inner, member = bench.stored(multiply, 1), Job(multiply, 2)
    things.script["outer"] = lambda: inner
    put(bench, things.act, "outer")
    assert bench.agent.claimJob().callable is things.act
    bench.agent[0]()
    bench.queue.put(parallel(member)).perform_members(member)
    (telling,) = inner.callbacks

    assert crashes.is_repair(telling)
    assert crashes.is_repair(*telling.callbacks)
    assert crashes.is_repair(*member.callbacks)
    assert not crashes.is_repair(inner)
    assert not crashes.is_repair(bench.stored(bench.stored(multiply).__call__))


def test_a_clean_stop_during_a_callback_counts_nothing(bench: Bench) -> None:
    job = put(bench, multiply, 4)
    callback = job.addCallback(called("callback"))
    bench.commit()
    run(bench, job)
    job.finish(8)
    callback.start(7)
    bench.record.deactivate()
    bench.record.activate()
    bench.commit()

    bench.work()

    assert callback.crashes == ()
    assert callback.getRetryPolicy().data.get("interruptions", 0) == 0
    assert names() == ["callback"]


def test_a_callback_without_a_queue_is_ended_and_not_remembered(
    bench: Bench, standing: StandingClock
) -> None:
    job = bench.stored(multiply, 4)
    callback = job.addCallback(called("callback"))
    callback.crash_limit = 1
    job._status = "callback-status"
    callback.start(7)
    job._interruption = {"at": standing.now(), "dispatcher": "d", "others": (), "host": None}
    job._interruption |= {"pid": None, "queue": "", "agent": "main", "held": 1}
    bench.commit()

    job.resumeCallbacks()

    assert callback.result.check(PoisonError)
    assert job.status == COMPLETED


# The last chance


def test_two_jobs_on_their_last_chance_do_not_share_a_process(
    bench: Bench, standing: StandingClock
) -> None:
    """Else an innocent one, which was held at each death, would be parked with the poison."""
    from zasync.queue import ClaimMemory

    jobs = [put(bench, multiply, number) for number in range(3)]
    die(bench, standing, *jobs)
    die(bench, standing, *jobs)
    fresh = put(bench, multiply, 9)
    memory = ClaimMemory()

    claimed = list(bench.agent.claim_jobs(99, memory))
    assert claimed == [jobs[0], fresh]
    assert list(bench.agent.claim_jobs(99, memory)) == []
    memory.last_chance_held = False

    assert list(bench.agent.claim_jobs(99, memory)) == [jobs[1]]


# Putting back


def parked(bench: Bench, standing: StandingClock, job: Any) -> Any:
    job.crash_limit = 1
    bench.commit()
    die(bench, standing, job)
    assert job in bench.queue.parked
    return job


def test_what_is_put_back_is_a_new_job_with_the_same_call_and_options(
    bench: Bench, standing: StandingClock
) -> None:
    bench.queue.quotas.create("one")
    poison = put(bench, things.keyed, 1, "x" * 2000)
    poison.kwargs["key"] = 3
    poison.quota_names = ("one",)
    poison.begin_by = timedelta(hours=5)
    poison.failure_log_level = logging.INFO
    poison.retry_policy_factory = RetryCommonForever
    poison.addCallback(called("callback"))
    parked(bench, standing, poison)
    end = poison.result

    job = bench.queue.parked.put_back(poison)
    bench.commit()

    assert (poison.status, poison.result) == (COMPLETED, end)
    assert list(bench.queue.parked) == []
    assert list(bench.queue) == [job]
    assert job is not poison
    assert (job.args, job.kwargs) == ([1, "x" * 2000], {"key": 3})
    assert (job.quota_names, job.begin_by) == (("one",), timedelta(hours=5))
    assert (job.failure_log_level, job.crash_limit) == (logging.INFO, 1)
    assert job.retry_policy_factory is RetryCommonForever
    assert (len(job.callbacks), job.crashes, job.parent) == (0, (), bench.queue)
    job.args.append(2)
    assert poison.args == [1, "x" * 2000], "nothing is shared"
    bench.commit()
    bench.work()
    assert job.result == ((1, "x" * 2000, 2), {"key": 3})


@pytest.mark.parametrize("make", [lambda: OwnJob(1), lambda: Job.bind(things.same)])
def test_a_job_that_names_itself_names_the_new_one(
    bench: Bench, standing: StandingClock, make: Any
) -> None:
    bench.record  # noqa: B018
    poison = bench.queue.put(make())
    parked(bench, standing, poison)

    job = bench.queue.parked.put_back(poison)

    assert type(job) is type(poison)
    assert job.callable(*job.args) in (job, ("method", job.oid, 1))


def test_a_parked_callback_is_put_back_with_the_result_that_it_was_to_get(
    bench: Bench, standing: StandingClock
) -> None:
    dying_in(bench, "poison")
    work_and_die(bench, standing)
    bench.begin()
    (callback,) = bench.queue.parked
    things.script["poison"] = lambda *args: args

    job = bench.queue.parked.put_back(callback)
    bench.commit()
    bench.work()

    assert job.result == (8,)
    assert names()[-1] == "poison"
    assert callback.parent.status == COMPLETED


def test_states_of_a_life_are_not_copied() -> None:
    from zasync.job.renewal import OF_ONE_LIFE

    known = {name for name in vars(Job) if name.startswith("_") and not name.startswith("__")}
    options = {
        "_names",
        "_args",
        "_kwargs",
        "_payload",
        "_begin_by",
        "_quota_names",
        "_retry_policy_factory",
        "_failure_log_level",
        "_only_for",
        "_crash_limit",
        "_run_limit",
        "_timeout",
    }
    stored = {name for name in known if not callable(getattr(Job, name)) and name[1:3] != "v_"}
    stored -= {name for name in stored if name.startswith(("_p_", "_abc"))}
    assert stored == OF_ONE_LIFE | options, "say of a new attribute where it belongs"


def fail_for_a_person(*args: Any) -> None:
    raise ParkedError("somebody has to look at it")


def test_a_job_that_fails_with_a_parked_error_is_parked(bench: Bench) -> None:
    job = bench.queue.put(fail_for_a_person)
    callback = job.addCallback(fail_for_a_person)
    bench.commit()

    bench.work()

    bench.begin()
    assert list(bench.queue.parked) == [callback, job]
    assert job.result.check(ParkedError)


def test_one_without_a_queue_just_fails(bench: Bench) -> None:
    job = bench.connection.root()["alone"] = Job(fail_for_a_person)
    bench.commit()

    assert job().check(ParkedError)
    assert not bench.queue.parked
