# SPDX-License-Identifier: ZPL-2.1
"""fail, handleInterrupt and resumeCallbacks: each ends or resumes a job, and does no harm twice."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import ConflictError

from tests.support.bench import Bench
from tests.support.clocks import StandingClock
from zasync.failure import Failure
from zasync.interfaces import (
    ACTIVE,
    CALLBACKS,
    COMPLETED,
    NEW,
    PENDING,
    AbortedError,
    BadStatusError,
    TimeoutError,
)
from zasync.job import Job, NeverRetry, bookkeeping, interruption
from zasync.testing.faults import Killed

from . import things
from .test_callbacks import called, names
from .test_calling import Answering, Script, answers  # noqa: F401
from .test_job import PlainPolicy
from .things import Counter, multiply


def left_active(bench: Bench, *args: Any, queued: bool = True, **options: Any) -> Any:
    """A job whose process died while it ran, as `restart` finds it: handed back to the queue."""
    job = bench.held(*args) if queued else bench.stored(*args)
    for name, value in options.items():
        setattr(job, name, value)
    job.start(5)
    bench.commit()
    if queued:
        bench.agent.let_go(job)
        job.parent, job._token = bench.queue, None
        bench.commit()
    return job


# fail


@pytest.mark.parametrize("status", ["new", "pending", "assigned"])
def test_a_job_that_has_not_begun_can_be_failed(bench: Bench, status: str) -> None:
    if status == "new":
        job = bench.stored(multiply, 1)
    elif status == "pending":
        job = bench.queue.put(Job(multiply, 1))
    else:
        job = bench.held(multiply, 1)
    callback = job.addCallback(things.same)
    bench.commit()

    result = job.fail()

    assert result is job.result
    assert result.check(TimeoutError)
    assert (job.status, callback.status) == (COMPLETED, COMPLETED)
    assert callback.result.check(TimeoutError)
    assert len(bench.queue) == 0
    assert list(bench.agent) == []
    assert bench.seen(job, lambda job: job.status) == COMPLETED


@pytest.mark.parametrize(
    "error",
    [KeyError("why"), KeyError, Failure(KeyError("why"))],
    ids=["error", "class", "failure"],
)
def test_the_error_can_be_given(bench: Bench, error: Any) -> None:
    assert bench.stored(multiply, 1).fail(error).check(KeyError)


def test_an_assigned_job_that_fails_is_among_the_completed(bench: Bench) -> None:
    job = bench.held(multiply, 1)

    job.fail()

    assert list(bench.agent.completed) == [job]
    assert bench.agent.completed.failed == 1


def test_a_failed_job_tells_those_who_wait_for_it(bench: Bench) -> None:
    inner = bench.stored(multiply, 1)
    things.script["outer"] = lambda: inner
    outer = bench.stored(things.act, "outer")
    outer()

    inner.fail(KeyError("inner"))

    assert outer.result.check(KeyError)
    assert outer.status == COMPLETED


def test_a_job_that_has_begun_cannot_be_failed(bench: Bench) -> None:
    job = left_active(bench, multiply, 1)
    done = bench.stored(multiply, 1)
    done()

    for each in [job, done]:
        with pytest.raises(BadStatusError, match=r"failed before it began.*its status is"):
            each.fail()


def test_a_job_outside_of_the_database_cannot_be_failed() -> None:
    with pytest.raises(ValueError, match="is not in a database"):
        Job(multiply).fail()


def test_a_callback_that_failed_is_not_called(bench: Bench) -> None:
    job = bench.stored(multiply, 1)
    callback = job.addCallback(called("never"))
    bench.commit()

    callback.fail(KeyError())
    job()

    assert names() == []
    assert job.status == COMPLETED


def test_callbacks_of_a_failed_job_that_are_put_off_find_the_queue(
    bench: Bench,
    answers: Any,  # noqa: F811
    standing: StandingClock,
) -> None:
    answers["jobError"] = timedelta(minutes=5)
    job = bench.queue.put(Job(multiply, 1))
    off = job.addCallback(
        called("off", Script(KeyError(), "later")), retry_policy_factory=Answering
    )
    bench.commit()
    job.fail()

    standing.move(minutes=5)
    bench.work()

    assert (off.result, job.status) == ("later", COMPLETED)


def test_a_job_that_fails_another_one_may_do_it_twice(bench: Bench) -> None:
    job = bench.stored(multiply, 1)
    job.addCallback(called("callback", Script(Killed(), "second")))
    bench.commit()
    failing = bench.queue.put(Job(job.fail, KeyError("expired")))
    bench.commit()
    assert bench.agent is not None
    bench.storage.fail("after finish", Killed(), skip=3)  # the callback is marked as started

    with pytest.raises(Killed):
        bench.work()
    bench.restart()
    while bench.work():
        pass

    bench.begin()
    job, failing = (bench.connection.get(each._p_oid) for each in (job, failing))
    assert (job.status, failing.status) == (COMPLETED, COMPLETED)
    assert job.result.check(KeyError)
    assert failing.result is None, "failing another job is no failure of its own"


def test_within_a_job_another_job_cannot_be_failed_twice(bench: Bench) -> None:
    other = bench.stored(multiply, 1)
    other()
    things.script["work"] = lambda: other.fail()

    assert bench.stored(things.act, "work")().check(BadStatusError)
    assert bench.stored(things.act, "work", "x" * 2000)().check(TypeError)


def test_an_error_of_the_commit_goes_to_who_called(bench: Bench) -> None:
    job = bench.stored(multiply, 1)
    bench.storage.fail("vote", ConflictError())

    with pytest.raises(ConflictError):
        job.fail()

    bench.manager.abort()
    assert job.status == NEW


# handleInterrupt


def test_true_puts_it_back_first_in_line(bench: Bench) -> None:
    job = left_active(bench, multiply, 4)
    other = bench.queue.put(Job(multiply, 1))
    bench.commit()

    job.handleInterrupt()

    assert list(bench.queue) == [job, other]
    assert (job.status, job.parent) == (PENDING, bench.queue)
    assert job.getRetryPolicy().data.get("interruptions") == 1
    bench.work()
    assert job.result == 8


def test_false_fails_it(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    job = left_active(bench, multiply, 4, retry_policy_factory=NeverRetry)
    callback = job.addCallback(things.same)
    bench.commit()

    job.handleInterrupt()

    assert job.result.check(AbortedError)
    assert "was interrupted" in job.result.getErrorMessage()
    assert (job.status, callback.status) == (COMPLETED, COMPLETED)
    assert [r for r in caplog.records if r.levelno == logging.ERROR]


def test_the_tenth_interruption_is_too_much(bench: Bench) -> None:
    job = left_active(bench, multiply, 4)
    job.getRetryPolicy().data = {"interruptions": 9}
    bench.commit()

    job.handleInterrupt()

    assert job.result.check(AbortedError)


@pytest.mark.parametrize(
    "answer", [timedelta(hours=1), datetime(2026, 3, 1, 13, tzinfo=UTC)], ids=["span", "moment"]
)
def test_a_moment_or_a_delay_reschedules_it(
    bench: Bench,
    answers: Any,  # noqa: F811
    standing: StandingClock,
    answer: Any,
) -> None:
    answers["interrupted"] = answer
    job = left_active(bench, multiply, 4, retry_policy_factory=Answering)

    job.handleInterrupt()

    assert job.status == PENDING
    assert job.begin_after == standing.now() + timedelta(hours=1)
    assert bench.work() == 0
    standing.move(hours=1)
    assert bench.work() == 1


def test_an_empty_delay_means_first_in_line(
    bench: Bench,
    answers: Any,  # noqa: F811
) -> None:
    answers["interrupted"] = timedelta()
    job = left_active(bench, multiply, 4, retry_policy_factory=Answering)
    bench.queue.put(Job(multiply, 1))
    bench.commit()

    job.handleInterrupt()

    assert bench.queue[0] is job


def test_no_attempt_begins_after_the_deadline(bench: Bench, standing: StandingClock) -> None:
    job = left_active(bench, multiply, 4)
    job._deadline = 5
    bench.commit()

    job.handleInterrupt()

    assert job.result.check(AbortedError)


def test_a_plain_policy_remembers_the_interruption(bench: Bench) -> None:
    job = left_active(bench, multiply, 4, retry_policy_factory=PlainPolicy)
    job.getRetryPolicy()
    bench.commit()

    job.handleInterrupt()

    assert bench.seen(job, lambda job: job.getRetryPolicy().notes) == {"interrupted": 1}


def test_without_a_queue_it_is_new_again(bench: Bench) -> None:
    job = left_active(bench, multiply, 4, queued=False)

    job.handleInterrupt()

    assert (job.status, job.parent) == (NEW, None)
    assert job() == 8


def test_it_is_taken_out_of_an_agent_that_still_holds_it(bench: Bench) -> None:
    job = bench.held(multiply, 4)
    job.start(5)
    bench.commit()

    job.handleInterrupt()

    assert list(bench.agent) == []
    assert list(bench.queue) == [job]


def test_twice_is_as_once(bench: Bench) -> None:
    job = left_active(bench, multiply, 4)

    job.handleInterrupt()
    job.handleInterrupt()
    assert list(bench.queue) == [job]
    assert job.getRetryPolicy().data["interruptions"] == 1
    bench.work()
    job.handleInterrupt()

    assert (job.status, job.result) == (COMPLETED, 8)


def test_a_job_that_runs_again_is_not_interrupted_by_a_repeated_repair(bench: Bench) -> None:
    job = left_active(bench, multiply, 4)
    repair = bench.queue.put(Job(job.handleInterrupt))
    bench.commit()
    bench.queue.remove(repair)
    bench.commit()
    job.handleInterrupt()
    assert bench.agent.claimJob() is job
    job.start(7)
    bench.commit()

    repair()

    assert (job.status, job._token, job.parent) == (ACTIVE, 7, bench.agent)
    assert job in bench.agent
    assert repair.status == COMPLETED


def test_a_doubtful_commit_of_the_repair_loses_no_callback(bench: Bench) -> None:
    job = left_active(bench, multiply, 4, retry_policy_factory=NeverRetry)
    job.addCallback(called("callback"))
    bench.commit()
    bench.storage.fail("after finish", ClientDisconnected())

    job.handleInterrupt()

    assert names() == ["callback"]
    assert job.status == COMPLETED


def test_a_job_that_waits_for_another_goes_on_waiting(bench: Bench) -> None:
    inner = bench.stored(multiply, 21)
    things.script["outer"] = lambda: inner
    job = bench.stored(things.act, "outer")
    job()

    job.handleInterrupt()

    assert (job.status, job.result) == (ACTIVE, inner)
    inner()
    assert job.result == 42


def test_a_job_whose_inner_one_has_ended_takes_its_result(bench: Bench) -> None:
    inner = bench.stored(multiply, 21)
    things.script["outer"] = lambda: inner
    job = bench.stored(things.act, "outer")
    job.addCallback(called("callback"))
    bench.commit()
    job()
    inner._extras.callbacks = ()  # as if they had not been called yet
    bench.commit()
    inner()
    assert job.status == ACTIVE

    job.handleInterrupt()

    assert (job.result, job.status, names()) == (42, COMPLETED, ["outer", "callback"])


def test_an_interrupted_callback_waits_for_whoever_goes_on(bench: Bench) -> None:
    job = bench.stored(multiply, 1)
    callback = job.addCallback(called("callback"))
    bench.commit()
    job._status = CALLBACKS
    callback.start(5)
    bench.commit()

    callback.handleInterrupt()
    assert callback.status == NEW
    job.resumeCallbacks()

    assert names() == ["callback"]
    assert job.status == COMPLETED


def test_an_interrupted_callback_that_is_put_off_is_called_later(
    bench: Bench,
    answers: Any,  # noqa: F811
    standing: StandingClock,
) -> None:
    answers["interrupted"] = timedelta(minutes=5)
    job = bench.held(multiply, 1)
    callback = job.addCallback(called("callback"), retry_policy_factory=Answering)
    bench.commit()
    bench.storage.fail("after finish", Killed(), skip=2)
    with pytest.raises(Killed):
        job()
    bench.restart()
    bench.work()
    bench.begin()
    job = bench.connection.get(job._p_oid)
    assert names() == []
    assert job.status == CALLBACKS

    standing.move(minutes=5)
    bench.work()

    assert names() == ["callback"]
    assert bench.connection.get(callback._p_oid).status == COMPLETED
    assert job.status == COMPLETED


def test_an_interrupted_callback_that_is_given_up_lets_the_others_go_on(bench: Bench) -> None:
    job = bench.stored(multiply, 1)
    bad = job.addCallback(called("bad"), retry_policy_factory=NeverRetry)
    bad.addCallbacks(failure=called("handler"))
    job.addCallback(called("next"))
    bench.commit()
    bench.storage.fail("after finish", Killed(), skip=2)
    with pytest.raises(Killed):
        job()
    bench.storage.revive()
    bench.open()

    job = bench.connection.get(job._p_oid)
    job.resumeCallbacks()

    assert names() == ["handler", "next"]
    assert bench.connection.get(bad._p_oid).result.check(AbortedError)
    assert job.status == COMPLETED


# resumeCallbacks


def half_done(bench: Bench) -> Any:
    """A job whose process died while its second of three callbacks ran."""
    job = bench.stored(multiply, 1)
    job.addCallback(called("done"))
    job.addCallback(called("active", Script(Killed(), "again")))
    job.addCallback(called("waiting"))
    bench.commit()

    def die(*args: Any) -> None:
        bench.storage.kill()

    things.script["active"] = Script(die, "again")
    with pytest.raises(Killed):
        job()
    bench.storage.revive()
    bench.open()
    return bench.connection.get(job._p_oid)


def test_done_ones_are_left_waiting_ones_run_active_ones_ask(bench: Bench) -> None:
    job = half_done(bench)
    assert [callback.status for callback in job.callbacks] == [COMPLETED, ACTIVE, NEW]

    job.resumeCallbacks()

    assert names() == ["done", "active", "active", "waiting"]
    assert job.status == COMPLETED
    assert job.callbacks[1].getRetryPolicy().data["interruptions"] == 1


def test_resuming_twice_is_as_once(bench: Bench) -> None:
    job = half_done(bench)

    job.resumeCallbacks()
    job.resumeCallbacks()

    assert len(names()) == 4


def test_handle_interrupt_in_callbacks_resumes_them(bench: Bench) -> None:
    job = half_done(bench)

    job.handleInterrupt()

    assert job.status == COMPLETED
    assert len(names()) == 4


@pytest.mark.parametrize("status", ["new", "active"])
def test_only_callbacks_can_be_resumed(bench: Bench, status: str) -> None:
    job = bench.stored(multiply, 1) if status == "new" else left_active(bench, multiply, 1)

    with pytest.raises(BadStatusError, match=f"must be {CALLBACKS}"):
        job.resumeCallbacks()


def test_a_callback_that_a_repair_has_suspended_is_not_interrupted_by_its_own_conflict(
    bench: Bench,
) -> None:
    deferred: Any = Deferred()
    job = bench.stored(multiply, 1)
    slow = job.addCallback(called("slow", lambda result: deferred))
    bench.commit()
    job._status = CALLBACKS
    repair = bench.queue.put(Job(job.resumeCallbacks))
    bench.commit()
    assert bench.agent is not None
    bench.storage.fail("vote", ConflictError(), skip=4)  # the end of the repair itself

    bench.work()
    deferred.callback("fired")

    bench.begin()
    assert names() == ["slow"]
    assert (slow.result, job.status, repair.status) == ("fired", COMPLETED, COMPLETED)


def test_a_callback_that_a_repair_has_suspended_is_resumed_after_a_death(bench: Bench) -> None:
    """The repair itself has ended, so nobody but the next one can see to it."""
    job = bench.stored(multiply, 1)
    slow = job.addCallback(called("slow", Script(lambda result: Deferred(), "again")))
    bench.commit()
    job._status = CALLBACKS
    job._parent = bench.queue
    repair = bench.queue.put(Job(job.resumeCallbacks))
    bench.commit()
    assert bench.agent is not None
    bench.work()
    assert (repair.status, slow.status, job.agent) == (COMPLETED, ACTIVE, bench.agent)

    bench.restart()
    bench.work()

    bench.begin()
    job, slow = (bench.connection.get(each._p_oid) for each in (job, slow))
    assert names() == ["slow", "slow"]
    assert (slow.result, job.status) == ("again", COMPLETED)


@pytest.mark.parametrize("gone", [False, True])
def test_a_callback_whose_starter_is_no_more_is_resumed(bench: Bench, gone: bool) -> None:
    job = half_done(bench)
    starter = bench.stored(multiply, 1)
    starter()
    job.callbacks[1]._starter = (4242 if gone else starter.oid, 1)
    bench.queue.put(Job(job.resumeCallbacks))
    bench.commit()

    bench.work()

    assert names() == ["done", "active", "active", "waiting"]
    assert job.status == COMPLETED


def test_a_callback_that_another_job_runs_is_left_to_that(bench: Bench) -> None:
    job = half_done(bench)
    other = bench.stored(multiply, 1)
    job.callbacks[1]._starter = (other.oid, 1)
    bench.commit()
    bench.queue.put(Job(job.resumeCallbacks))
    bench.commit()

    bench.work()

    assert names() == ["done", "active", "waiting"]
    assert [callback.status for callback in job.callbacks] == [COMPLETED, ACTIVE, COMPLETED]


def test_continuing_a_job_without_a_result_does_nothing(bench: Bench) -> None:
    job = bench.stored(multiply, 1)
    job.addCallback(called("callback"))
    bench.commit()

    job.continue_callbacks()

    assert names() == []
    assert Counter().value == 0


def test_a_repair_that_fails_is_tried_again_until_it_can_be_done(
    bench: Bench,
    standing_clock: StandingClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = left_active(bench, multiply, 4)
    bookkeeping.put_resumption(bench.queue, job.handleInterrupt)
    bench.commit()
    with monkeypatch.context() as broken:
        broken.setattr(interruption, "_interrupt", odd)
        bench.work()
    assert job.status == ACTIVE
    assert "it is tried again in a minute" in caplog.text
    standing_clock.move(seconds=61)
    bench.work()
    assert (job.status, job.result) == (COMPLETED, 8)


def test_a_callback_that_fails_another_job_is_no_repair(bench: Bench) -> None:
    job = bench.held(multiply, 4)
    other = bench.stored(multiply, 1)
    other()
    callback = job.addCallback(Job(fail_it, other=other))
    bench.commit()
    job()
    assert callback.status == COMPLETED
    assert callback.result.check(BadStatusError)


def odd(*args: Any) -> Any:
    raise ValueError("odd")


def fail_it(result: Any, other: Any) -> None:
    other.fail()
