# SPDX-License-Identifier: ZPL-2.1
"""cancel, in each status of a job; again; progress in numbers."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from ZODB.POSException import ConflictError

from tests.support.bench import Bench
from zasync import local
from zasync.failure import Failure
from zasync.interfaces import (
    ACTIVE,
    CALLBACKS,
    COMPLETED,
    NEW,
    PENDING,
    AbortedError,
    BadStatusError,
    CancelledError,
    ReassignedError,
)
from zasync.job import Job, NeverRetry, cancelling, parallel, serial

from . import things
from .test_interruption import left_active
from .things import multiply


def held_active(bench: Bench, *args: Any) -> Any:
    """A job that something else, which does not answer, has begun to run."""
    job = bench.held(*args)
    job.start(5)
    bench.commit()
    return job


def tidy(bench: Bench) -> None:
    """What the agent's dispatcher does with jobs that it does not run."""
    bench.begin()
    for job in list(bench.agent):
        if job.status == COMPLETED:
            bench.agent.jobCompleted(job)
    bench.commit()


def make(bench: Bench, status: str) -> Any:
    if status == "unstored":
        return Job(multiply, 1)
    if status == "new":
        return bench.stored(multiply, 1)
    if status == "pending":
        return bench.queue.put(Job(multiply, 1))
    if status == "assigned":
        return bench.held(multiply, 1)
    if status == "left behind":
        return left_active(bench, multiply, 1)
    return held_active(bench, multiply, 1)


@pytest.mark.parametrize("status", ["new", "pending", "assigned", "active", "left behind"])
def test_a_job_that_has_not_ended_can_be_cancelled(bench: Bench, status: str) -> None:
    job = make(bench, status)
    bench.commit()

    assert job.cancel("nobody wants it") is True
    bench.commit()

    assert job.status == COMPLETED
    assert job.cancelled
    assert job.failed
    assert job.result.check(CancelledError, AbortedError)
    message = f"{things.__name__}.multiply was cancelled: nobody wants it"
    assert job.result.getErrorMessage() == message
    assert len(bench.queue) == 0


@pytest.mark.parametrize("status", ["pending", "assigned", "active", "left behind"])
def test_callbacks_of_a_cancelled_job_are_called_once(bench: Bench, status: str) -> None:
    job = make(bench, status)
    things.script["it"] = lambda failure: failure.getErrorMessage()
    callback = job.addCallback(Job(things.act, "it"))
    other = job.addCallbacks(success=things.boom, failure=things.same)
    bench.commit()

    job.cancel()
    bench.commit()
    assert job.status == CALLBACKS
    bench.work()
    tidy(bench)

    assert job.status == COMPLETED
    assert callback.result == f"{things.__name__}.multiply was cancelled"
    assert other.result is job.result or other.result.check(CancelledError)
    assert len(things.acts) == 1
    assert job.cancel() is False


def test_an_unstored_job_can_be_cancelled(bench: Bench) -> None:
    job = make(bench, "unstored")
    assert len(job.annotations) == 0
    assert job.cancel()
    assert (job.status, job.cancelled) == (COMPLETED, True)
    with pytest.raises(ValueError, match="only a new job can be put"):
        bench.queue.put(job)


def test_what_has_come_to_its_end_is_left_alone(bench: Bench) -> None:
    job = bench.held(multiply, 4)
    job()
    assert job.cancel() is False
    assert (job.result, job.cancelled) == (8, False)

    failed = bench.held(things.boom)
    failed()
    assert failed.cancel() is False
    assert not failed.cancelled


def test_the_second_cancel_has_nothing_to_do(bench: Bench) -> None:
    job = bench.queue.put(Job(multiply, 4))
    assert job.cancel() is True
    assert job.cancel() is False
    bench.commit()
    assert job.cancel() is False


def test_a_run_that_is_late_ends_only_the_attempt_that_it_was(bench: Bench) -> None:
    job = held_active(bench, multiply, 1)
    bench.commit()
    late = TimeoutError("too long")

    assert cancelling.expire(job, job._token + 1, late) is False
    assert job.status == ACTIVE
    assert cancelling.expire(job, job._token, late) is True
    bench.commit()

    assert job.result.check(TimeoutError)
    assert cancelling.expire(job, 1, late) is False


def test_nothing_happens_until_the_caller_commits(bench: Bench) -> None:
    job = bench.queue.put(Job(multiply, 4))
    bench.commit()
    job.cancel()
    bench.manager.abort()
    assert (job.status, list(bench.queue)) == (PENDING, [job])
    bench.work()
    assert job.result == 8


def test_the_end_is_told_in_the_log_once_and_nobody_must_act(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "zasync")
    job = bench.queue.put(Job(multiply, 4))
    bench.commit()
    job.cancel("too\nlate")
    bench.manager.abort()
    assert not caplog.messages or "cancelled" not in caplog.messages[-1]
    job.cancel("too\nlate")
    bench.commit()

    told = [record for record in caplog.records if "was cancelled" in record.getMessage()]
    assert {record.levelno for record in told} == {logging.INFO}
    assert [record.name for record in told] == ["zasync.trace", "zasync.events"]
    assert told[-1].getMessage().endswith(r"multiply was cancelled: too\nlate")


def test_a_reason_is_text_of_bounded_length(bench: Bench) -> None:
    job = bench.queue.put(Job(multiply, 4))
    with pytest.raises(TypeError, match="the reason of a cancellation is text, not 7"):
        job.cancel(7)
    job.cancel("!" * 1000)
    assert job.result.getErrorMessage().count("!") == 200


def test_annotations_alone_leave_no_work(bench: Bench) -> None:
    job = bench.held(multiply, 1)
    job.start(5)
    job.annotations["a"] = 1
    bench.commit()
    job.cancel()
    assert (job.status, len(bench.queue)) == (COMPLETED, 0)
    bench.commit()


def test_a_callback_that_is_added_at_that_moment_is_not_lost(bench: Bench) -> None:
    job = bench.stored(multiply, 1)
    job.annotations["a"] = 1
    bench.commit()
    another = bench.open_another()
    seen = another.connection.get(job._p_oid)
    seen.addCallback(things.same)
    job.cancel()
    another.commit()
    with pytest.raises(ConflictError):
        bench.commit()
    another.close()


# Of a run that is under way


def cancel_elsewhere(bench: Bench, job: Any) -> None:
    with bench.elsewhere() as there:
        assert there(job).cancel()


def test_a_cancelled_run_commits_nothing_and_knows_it(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "zasync.events")
    told = []

    def run() -> None:
        bench.root["written"] = True
        told.append(local.is_cancelled())
        local.check_cancelled()
        cancel_elsewhere(bench, job)
        told.append(local.is_cancelled())
        with pytest.raises(CancelledError, match="is no longer this run's"):
            local.check_cancelled()

    things.script["it"] = run
    job = bench.held(things.act, "it")
    with pytest.raises(ReassignedError):
        job()

    assert told == [False, True]
    bench.begin()
    assert job.cancelled
    assert "written" not in bench.root
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]
    assert "what this run of it did is discarded" in caplog.text


def test_a_run_that_checks_ends_there(bench: Bench) -> None:
    def run() -> None:
        cancel_elsewhere(bench, job)
        local.check_cancelled()
        raise AssertionError("not reached")

    things.script["it"] = run
    job = bench.held(things.act, "it")
    callback = job.addCallback(things.same)
    bench.commit()
    with pytest.raises(ReassignedError):
        job()
    bench.begin()
    assert job.cancelled
    bench.work()
    assert callback.result.check(CancelledError)


def test_a_run_that_was_taken_away_is_not_cancelled_but_in_vain(bench: Bench) -> None:
    def run() -> None:
        with bench.elsewhere() as there:
            there(job)._token = 77
        assert not local.is_cancelled()
        with pytest.raises(ReassignedError):
            local.check_cancelled()

    things.script["it"] = run
    job = bench.held(things.act, "it")
    with pytest.raises(ReassignedError):
        job()


@pytest.mark.parametrize("first", ["cancel", "completion"])
def test_of_a_cancel_and_a_completion_one_conflicts(bench: Bench, first: str) -> None:
    """Neither is taken for the other, and callbacks are called once."""
    another = bench.open_another()
    seen: list[Any] = []

    def run() -> str:
        if first == "cancel":
            cancel_elsewhere(bench, job)
        return "done"

    things.script["it"] = run
    things.script["note"] = lambda result: seen.append(result)
    job = bench.held(things.act, "it")
    job.addCallback(Job(things.act, "note"))
    bench.commit()
    another.begin()
    late = another.connection.get(job._p_oid)
    if first == "completion":
        assert late.cancel()
        job()
        with pytest.raises(ConflictError):
            another.commit()
        assert (job.result, seen) == ("done", ["done"])
    else:
        with pytest.raises(ReassignedError):
            job()
        bench.begin()
        assert job.cancelled
        bench.work()
        assert [each.type for each in seen] == [CancelledError]
    another.close()


def test_of_a_claim_and_a_cancel_one_conflicts(bench: Bench) -> None:
    job = bench.queue.put(Job(multiply, 1))
    bench.record.ping()
    bench.commit()
    another = bench.open_another()
    assert bench.agent.claimJob() is job
    assert another.connection.get(job._p_oid).cancel()
    another.commit()
    with pytest.raises(ConflictError):
        bench.commit()
    another.close()
    bench.manager.abort()
    assert bench.work() == 0


def test_a_job_cannot_cancel_itself_but_raise(bench: Bench) -> None:
    def run() -> None:
        with pytest.raises(ValueError, match="cannot cancel itself while it runs"):
            local.getJob().cancel()
        raise CancelledError("I have seen enough")

    things.script["it"] = run
    job = bench.held(things.act, "it")
    job()
    assert job.cancelled
    assert job.result.getErrorMessage() == "I have seen enough"


def test_the_quota_is_free_with_the_commit(bench: Bench) -> None:
    bench.queue.quotas.create("one")
    one, two = Job(multiply, 1), Job(multiply, 2)
    for job in (one, two):
        job.quota_names = ["one"]
        bench.queue.put(job)
    assert bench.agent.claimJob() is one
    one.start(5)
    bench.commit()
    assert bench.agent.claimJob() is None
    one.cancel()
    bench.commit()
    assert bench.agent.claimJob() is two


# Of jobs that wait for others


def test_the_inner_job_is_cancelled_with_the_outer_one(bench: Bench) -> None:
    inner = bench.queue.put(Job(multiply, 1))
    outer = bench.stored(multiply, 1)
    outer.parent = bench.queue
    outer.start(5)
    outer.wait_for(inner)
    bench.commit()

    assert outer.cancel("stop")
    bench.commit()
    bench.work()

    assert (outer.status, inner.status) == (COMPLETED, COMPLETED)
    assert inner.cancelled
    assert "only" in inner.result.getErrorMessage()


@pytest.mark.parametrize("others", ["a callback of its own", "another job", "it has ended"])
def test_an_inner_job_that_others_want_goes_on(bench: Bench, others: str) -> None:
    inner = bench.queue.put(Job(multiply, 4))
    outer = bench.stored(multiply, 1)
    outer.parent = bench.queue
    outer.start(5)
    if others == "another job":
        another = bench.stored(multiply, 1)
        another.parent = bench.queue
        another.start(6)
        another.wait_for(inner)
    elif others == "a callback of its own":
        inner.addCallbacks(success=things.same)
    else:
        bench.queue.remove(inner)
        inner.finish(8)
    outer.wait_for(inner) if others != "it has ended" else setattr(outer, "_result", inner)
    bench.commit()

    outer.cancel()
    bench.commit()
    bench.work()

    assert outer.cancelled
    assert inner.result == 8


@pytest.mark.parametrize("kind", [parallel, serial])
def test_members_of_a_cancelled_group_are_cancelled(bench: Bench, kind: Any) -> None:
    members = [Job(multiply, number) for number in range(3)]
    group = bench.queue.put(kind(*members))
    bench.commit()
    assert bench.agent.claimJob() is group
    group.start(5)
    group.wait_for(group.perform_members(*members))
    bench.commit()

    group.cancel()
    bench.commit()
    bench.work()

    assert group.status == COMPLETED
    started = members if kind is parallel else members[:1]
    assert [member.cancelled for member in started] == [True] * len(started)
    assert all(member.status == NEW for member in members[len(started) :])
    assert len(bench.queue) == 0


def test_a_member_that_cancels_its_group_goes_on_itself(bench: Bench) -> None:
    def run() -> str:
        assert group.cancel()
        return "done"

    things.script["it"] = run
    members = [Job(things.act, "it"), Job(multiply, 1)]
    group = bench.queue.put(parallel(*members))
    bench.commit()
    bench.work()

    assert group.cancelled
    assert members[0].result == "done"
    assert members[1].cancelled


def test_a_group_that_is_concluding_is_cancelled_with_its_conclusion(bench: Bench) -> None:
    group = bench.queue.put(parallel(Job(multiply, 1), postprocess=things.boom))
    bench.commit()
    for _ in range(2):  # the group, and its member
        bench.record.ping()
        bench.agent.claimJob()()
    [conclusion] = bench.queue
    group.cancel()
    bench.commit()
    bench.work()
    assert (conclusion.cancelled, group.cancelled) == (True, True)


# Of callbacks


def test_a_callback_that_has_not_begun_can_be_cancelled(bench: Bench) -> None:
    job = bench.queue.put(Job(multiply, 1))
    callback = job.addCallback(things.boom)
    further = callback.addCallback(things.same)
    bench.commit()
    callback.cancel()
    bench.commit()
    assert callback.status == CALLBACKS
    bench.work()
    tidy(bench)
    assert (job.status, callback.status) == (COMPLETED, COMPLETED)
    assert further.result.check(CancelledError)
    assert job.result == 2


def test_half_of_a_pair_cannot_be_cancelled_until_it_is_chosen(bench: Bench) -> None:
    job = bench.queue.put(Job(multiply, 1))
    pair = job.addCallbacks(success=things.same, failure=things.boom)
    with pytest.raises(ValueError, match="one half of a pair of callbacks that is not chosen"):
        pair.success.cancel()
    bench.commit()
    bench.work()
    assert pair.success.cancel() is False


def test_a_callback_that_waits_lets_its_parent_go_on(bench: Bench) -> None:
    deferred: Deferred[Any] = Deferred()
    things.script["later"] = lambda result: deferred
    job = bench.queue.put(Job(multiply, 1))
    waiting = job.addCallback(Job(things.act, "later"))
    after = job.addCallback(things.same)
    bench.commit()
    bench.work()
    assert (job.status, waiting.status, after.result) == (CALLBACKS, ACTIVE, 2)

    waiting.cancel()
    bench.commit()
    bench.work()

    assert (job.status, waiting.status) == (COMPLETED, COMPLETED)
    deferred.callback(1)
    bench.begin()
    assert waiting.cancelled


@pytest.mark.parametrize("case", ["with a callback", "a callback that waits"])
def test_without_a_queue_nobody_would_see_to_what_follows(bench: Bench, case: str) -> None:
    if case == "with a callback":
        job = bench.stored(multiply, 1)
        job.addCallback(things.same)
    else:
        things.script["later"] = lambda result: Deferred()
        parent = bench.stored(multiply, 1)
        job = parent.addCallback(Job(things.act, "later"))
        bench.commit()
        parent()
    bench.commit()
    with pytest.raises(ValueError, match=r"it lies in no queue.*fail\(CancelledError\(\)\)"):
        job.cancel()
    if case == "with a callback":
        assert job.fail(CancelledError()).check(CancelledError)
        assert job.callbacks[0].result.check(CancelledError)


# again


def test_a_failed_job_can_be_asked_for_again(bench: Bench) -> None:
    bench.queue.quotas.create("one")
    job = Job(multiply, 3, b=4)
    job.quota_names, job.crash_limit = ["one"], 7
    bench.queue.put(job, retry_policy_factory=NeverRetry, failure_log_level=10)
    job.addCallback(things.same)
    job.cancel()
    bench.commit()

    again = bench.queue.put(job.again())
    bench.commit()
    bench.work()

    assert again.result == 12
    assert (again.quota_names, again.crash_limit) == (("one",), 7)
    assert again.retry_policy_factory is NeverRetry
    assert (again.failure_log_level, again.callbacks) == (10, ())
    assert job.cancelled


def test_a_group_that_is_asked_for_again_performs_all_of_its_jobs_again(bench: Bench) -> None:
    members = [Job(multiply, 2), Job(things.boom)]
    group = bench.queue.put(parallel(*members))
    bench.commit()
    bench.work()
    assert isinstance(group.result[1], Failure)

    again = bench.queue.put(group.again())
    bench.commit()
    bench.work()

    assert again.result[0] == 4
    assert again.args[0] is not members[0]
    assert next(member.result for member in group.args) == 4
    with pytest.raises(BadStatusError):
        group.args.append(Job(multiply))


# Progress in numbers


def test_progress_is_told_in_numbers_too(bench: Bench) -> None:
    seen = []

    def run() -> None:
        for options in ({"done": 1, "total": 4}, {}, {"done": 2.5, "total": 4}):
            local.set_progress("step", **options)
            seen.append(bench.seen(job, lambda job: (job.progress, job.progress_numbers)))

    things.script["it"] = run
    job = bench.held(things.act, "it")
    job()
    assert seen == [("step", (1, 4)), ("step", None), ("step", (2.5, 4))]
    assert job.progress_numbers == (2.5, 4)
    assert bench.stored(multiply).progress_numbers is None


@pytest.mark.parametrize(
    ("done", "total", "message"),
    [
        (1, None, "by both done and total"),
        (None, 1, "by both done and total"),
        ("1", 2, "are numbers, not '1'"),
        (1, True, "are numbers, not True"),
        (3, 2, "must lie between 0 and total"),
        (-1, 2, "must lie between 0 and total"),
        (0, 0, "must lie between 0 and total"),
        (math.nan, 2, "must lie between 0 and total"),
        (1, math.inf, "must lie between 0 and total"),
    ],
)
def test_numbers_that_are_no_part_of_a_whole_are_refused(
    bench: Bench, done: Any, total: Any, message: str
) -> None:
    things.script["it"] = lambda: local.set_progress("x", done=done, total=total)
    job = bench.stored(things.act, "it")
    job()
    assert job.result.check(ValueError)
    assert message in job.result.getErrorMessage()


def test_outside_of_a_job_nothing_can_be_cancelled() -> None:
    for ask in (local.is_cancelled, local.check_cancelled):
        with pytest.raises(RuntimeError, match="no job is running"):
            ask()
