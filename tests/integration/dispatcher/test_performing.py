# SPDX-License-Identifier: ZPL-2.1
"""Jobs of each kind, performed by a real dispatcher over a real FileStorage."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import pytest
import transaction
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure as TwistedFailure

from tests.integration.dispatcher import jobs_for_tests as jobs
from tests.support.running import Site, running, until
from zasync.failure import Failure
from zasync.interfaces import ACTIVE, COMPLETED, PENDING, AbortedError
from zasync.job import Job, NeverRetry, RetryCommonForever, parallel, serial


def test_a_job_is_performed_and_ends_among_the_completed(site: Site) -> None:
    with running(site.db, poll_interval=0.05) as runner:
        job = site.put(Job(jobs.note, 42))
        site.completed(job)
        agent = site.queue.dispatchers[runner.uuid]["main"]
        site.until(lambda: len(agent.completed) == 1, "the tidying")
        assert job.result == 42
        assert agent.completed.first() is job
        assert len(agent) == 0
        assert job.agent is agent
        assert job.queue is site.queue


def test_a_put_wakes_an_idle_dispatcher_long_before_its_poll_interval(site: Site) -> None:
    with running(site.db, poll_interval=3600):
        job = site.put(Job(jobs.note, 1))
        site.completed(job, seconds=10)


def test_an_aborted_put_starts_nothing(site: Site) -> None:
    with running(site.db, poll_interval=0.05) as runner:
        site.queue.put(Job(jobs.note, "aborted"))
        site.manager.abort()
        polls = runner.dispatcher.polls.total
        until(lambda: runner.dispatcher.polls.total > polls + 2, "two more polls")
        assert jobs.seen == []


def test_what_a_job_changes_and_its_completion_are_one_transaction(site: Site) -> None:
    with running(site.db):
        job = site.put(jobs.count_up)
        site.completed(job)
    assert site.root["count"] == job.result == 1
    assert site.root._p_serial == job._p_serial


def test_many_jobs_are_performed_once_each_and_not_more_at_a_time_than_the_size(
    site: Site,
) -> None:
    with running(site.db, size=4):
        put = site.commit(lambda: [site.queue.put(hot()) for _ in range(60)])
        site.completed(*put, seconds=30)
    assert site.root["count"] == 60
    assert sorted(job.result for job in put) == list(range(1, 61))


def hot() -> Job:
    """A job that conflicts with its like, and may do so as often as it must."""
    job = Job(jobs.count_up)
    job.retry_policy_factory = RetryCommonForever
    return job


def test_no_more_jobs_run_at_once_than_the_agent_has_places(site: Site) -> None:
    with running(site.db, size=2, poll_interval=0.05) as runner:
        names = ["a", "b", "c"]
        put = site.commit(lambda: [site.queue.put(Job(jobs.wait_at, name)) for name in names])
        until(jobs.gate("a reached").is_set, "the first job")
        until(jobs.gate("b reached").is_set, "the second job")
        polls = runner.dispatcher.polls.total
        until(lambda: runner.dispatcher.polls.total > polls + 2, "two more polls")
        assert site.sees(lambda: put[2].status) == PENDING
        assert len(runner.dispatcher.getActiveJobIds()) == 2
        for name in names:
            jobs.gate(name).set()
        site.completed(*put)


def test_system_exit_in_a_job_fails_it_and_costs_no_place(site: Site) -> None:
    with running(site.db, size=1):
        leaving = site.put(jobs.leave)
        after = [site.put(Job(jobs.note, number)) for number in range(3)]
        site.completed(leaving, *after)
    assert leaving.result.check(SystemExit)
    assert [job.result for job in after] == [0, 1, 2]


def test_a_job_finds_its_thread_clean_whatever_the_one_before_left(site: Site) -> None:
    with running(site.db, size=1):
        dirty = site.put(jobs.make_a_mess)
        probe = site.put(jobs.look_around)
        site.completed(dirty, probe)
    no_site, mess = probe.result
    assert no_site
    assert mess, "what the job changed in its own transaction is committed with it"


def test_zasync_local_tells_a_job_where_it_is(site: Site) -> None:
    with running(site.db) as runner:
        job = site.put(jobs.surroundings)
        coroutine = site.put(jobs.async_surroundings)
        site.completed(job, coroutine)
    expected = ("", str(runner.uuid), True, "main")
    assert job.result == (job._p_oid, *expected)
    assert coroutine.result == (coroutine._p_oid, *expected)


def test_a_failing_job_keeps_its_failure_and_its_place_is_free(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with running(site.db, size=1), caplog.at_level(logging.ERROR, "zasync.events"):
        failing = site.put(Job(int, "no number"))
        handled = site.commit(lambda: failing.addCallbacks(failure=jobs.note))
        site.until(lambda: handled.status == COMPLETED, "the callback")
        after = site.put(Job(jobs.note, "after"))
        site.completed(failing, after)
    assert failing.result.check(ValueError)
    assert "no number" in caplog.text


def test_a_deferred_is_waited_for_without_a_thread(site: Site) -> None:
    with running(site.db, size=2):
        waiting = site.put(jobs.later)
        until(lambda: jobs.deferreds, "the Deferred")
        other = site.put(Job(jobs.note, "meanwhile"))
        site.completed(other)
        assert site.sees(lambda: waiting.status) == ACTIVE
        jobs.deferreds[0].callback("fired")
        site.completed(waiting)
    assert waiting.result == "fired"


def test_a_deferred_that_fails_gives_a_failure(site: Site) -> None:
    with running(site.db):
        waiting = site.put(jobs.later)
        until(lambda: jobs.deferreds, "the Deferred")
        jobs.deferreds[0].errback(TwistedFailure(KeyError("late")))
        site.completed(waiting)
    assert isinstance(waiting.result, Failure)
    assert waiting.result.check(KeyError)


def test_a_suspended_job_counts_against_the_size(site: Site) -> None:
    with running(site.db, size=1, poll_interval=0.05) as runner:
        waiting = site.put(jobs.later)
        until(lambda: jobs.deferreds, "the Deferred")
        behind = site.put(Job(jobs.note, "behind"))
        polls = runner.dispatcher.polls.total
        until(lambda: runner.dispatcher.polls.total > polls + 2, "two more polls")
        assert site.sees(lambda: behind.status) == PENDING
        jobs.deferreds[0].callback(None)
        site.completed(waiting, behind)


def test_async_jobs_run_at_once_without_threads(site: Site) -> None:
    with running(site.db, size=50) as runner:
        put = site.commit(lambda: [site.queue.put(Job(jobs.double, n)) for n in range(50)])
        site.completed(*put)
        pool = runner.dispatcher.queues[""]["main"]
        assert len(pool.threads) <= 50
    assert [job.result for job in put] == [2 * n for n in range(50)]


def test_an_async_job_that_raises_fails(site: Site) -> None:
    with running(site.db):
        job = site.put(jobs.async_fail)
        site.completed(job)
    assert job.result.check(KeyError)


def test_a_function_may_read_and_answer_a_coroutine(site: Site) -> None:
    with running(site.db):
        job = site.put(jobs.read_then_await)
        site.completed(job)
    assert job.result == 2
    assert site.root["count"] == 1


def test_an_async_job_cannot_get_a_stored_object(site: Site) -> None:
    with running(site.db):
        job = site.put(Job(jobs.double, site.root))
        site.completed(job)
    assert job.result.check(TypeError)
    assert "outside of any transaction" in job.result.getErrorMessage()


def test_async_jobs_are_cancelled_and_handed_back_when_the_dispatcher_stops(site: Site) -> None:
    with running(site.db, grace=0.1) as runner:
        job = site.put(Job(jobs.wait_for_ever, "a"))
        until(jobs.gate("a reached").is_set, "the coroutine")
    record = site.sees(lambda: site.queue.dispatchers[runner.uuid])
    assert record.activated is None
    assert job.status == ACTIVE
    assert [waiting.callable_name for waiting in site.queue] == ["zasync.job.Job.handleInterrupt"]


def test_a_group_is_performed_by_one_thread_and_waits_without_it(site: Site) -> None:
    with running(site.db, size=1):
        members = [Job(jobs.note, number) for number in range(3)]
        inner = serial(Job(jobs.note, "x"), Job(jobs.note, "y"))
        group = site.put(parallel(*members, inner))
        site.completed(group)
        agent = group.agent
        site.until(lambda: len(agent) == 0, "the tidying")
    assert group.result == (0, 1, 2, ("x", "y"))


def test_live_annotations_are_seen_while_the_job_runs_and_do_not_make_it_conflict(
    site: Site,
) -> None:
    with running(site.db):
        job = site.put(Job(jobs.progress, "a"))
        until(jobs.gate("a reached").is_set, "the job")
        assert site.sees(lambda: job.annotations["progress"]) == 50
        jobs.gate("a").set()
        site.completed(job)
        site.until(lambda: job._extras is not None, "the extras to be attached")
    assert dict(job.annotations) == {"progress": 50}
    assert job.result is None


def test_a_callback_added_while_the_job_runs_is_run_once(site: Site) -> None:
    with running(site.db):
        job = site.put(Job(jobs.wait_at, "a"))
        until(jobs.gate("a reached").is_set, "the job")
        callback = site.commit(lambda: job.addCallback(Job(jobs.note)))
        jobs.gate("a").set()
        site.completed(job, callback)
    assert jobs.seen == [("a",)]


def test_a_job_that_commits_itself_is_warned_of(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with running(site.db), caplog.at_level(logging.WARNING, "zasync.events"):
        job = site.put(Job(jobs.commit_halfway, "a"))
        until(jobs.gate("a reached").is_set, "the middle of the job")
        assert site.sees(lambda: site.root["count"]) == 1
        jobs.gate("a").set()
        site.completed(job)
    assert site.root["count"] == 2
    assert "committed a transaction itself" in caplog.text


def test_a_job_whose_code_is_gone_waits_and_is_run_when_it_is_back(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with running(site.db, poll_interval=0.05) as runner:
        with monkeypatch.context() as deploy:
            job = Job(jobs.note, "gone")
            deploy.delattr(jobs, "note")
            gone = site.put(job)
            other = site.put(Job(jobs.double, 4))
            site.completed(other)
            polls = runner.dispatcher.polls.total
            until(lambda: runner.dispatcher.polls.total > polls + 2, "two more polls")
            assert site.sees(lambda: gone.status) == PENDING
            assert site.queue[0] is gone
            assert caplog.text.count("waits for a worker that has its code") == 1
        site.completed(gone, seconds=20)
    assert gone.result == "gone"


def test_a_job_that_is_taken_out_of_its_agent_commits_nothing(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with running(site.db) as runner:
        job = site.put(Job(jobs.wait_and_count, "a"))
        until(jobs.gate("a reached").is_set, "the job")
        site.commit(lambda: site.queue.dispatchers[runner.uuid]["main"].remove(job))
        jobs.gate("a").set()
        until(lambda: not runner.dispatcher.getActiveJobIds(), "the end of the run")
    assert "count" not in site.sees(lambda: site.root)
    assert "taken away" in caplog.text


def test_never_retry_is_not_run_again_after_an_interruption(site: Site) -> None:
    with running(site.db, grace=0.05) as runner:
        job = site.put(Job(jobs.wait_and_count, "a"), retry_policy_factory=NeverRetry)
        until(jobs.gate("a reached").is_set, "the job")
        runner.stop()
    jobs.gate("a").set()
    with running(site.db):
        site.completed(job)
    assert job.result.check(AbortedError)
    assert "count" not in site.root


def test_an_interrupted_job_is_run_again_and_its_effect_is_there_once(site: Site) -> None:
    with running(site.db, grace=0.05) as runner:
        job = site.put(Job(jobs.wait_and_count, "a"))
        until(jobs.gate("a reached").is_set, "the job")
        runner.stop()
    with running(site.db):
        jobs.gate("a").set()
        site.completed(job)
    assert job.result == 1
    assert site.root["count"] == 1


def test_deferreds_and_failures_of_a_callback_do_not_lose_the_parent(site: Site) -> None:
    with running(site.db):
        job = Job(jobs.note, 1)
        callback = job.addCallback(jobs_later_with_result)
        site.put(job)
        until(lambda: jobs.deferreds, "the callback's Deferred")
        jobs.deferreds[0].callback("late")
        site.completed(job, callback)
        agent = job.agent
        site.until(lambda: len(agent) == 0, "the tidying")
    assert callback.result == "late"


def jobs_later_with_result(result: Any) -> Deferred[Any]:
    return jobs.later()


def test_the_threads_transaction_manager_is_that_of_the_job(site: Site) -> None:
    with running(site.db):
        job = site.put(uses_own_manager)
        site.completed(job)
    assert job.result is True


def uses_own_manager() -> bool:
    import zasync

    manager = zasync.local.getJob()._p_jar.transaction_manager
    return bool(manager.get() is transaction.get())


# What an application sets up around its jobs


@pytest.fixture
def steps() -> list[str]:
    return []


def around(steps: list[str], *, broken: str = "") -> Any:
    @contextlib.contextmanager
    def around_job(job: Any) -> Any:
        if broken == "begin":
            raise RuntimeError("it cannot be set up")
        steps.append(f"begin {jobs.seen.count(())}")
        try:
            yield
        finally:
            steps.append(f"end {job.status}")
            if broken == "end":
                raise RuntimeError("it cannot be ended")

    return around_job


def test_what_is_around_a_job_begins_with_each_attempt_and_ends_after_its_commit(
    site: Site, steps: list[str]
) -> None:
    with running(site.db, poll_interval=0.05, around_job=around(steps)):
        job = Job(jobs.conflict_first)
        callback = job.addCallback(jobs.note)
        site.put(job)
        site.completed(job, callback)
        until(lambda: len(steps) == 6, "the last end")
    assert steps == [
        "begin 0",
        f"end {ACTIVE}",
        "begin 1",
        "end callback-status",
        "begin 2",
        f"end {COMPLETED}",
    ]


def test_surroundings_that_cannot_be_set_up_are_the_jobs_error(
    site: Site, steps: list[str]
) -> None:
    with running(site.db, poll_interval=0.05, around_job=around(steps, broken="begin")):
        job = site.put(Job(jobs.note, 1))
        site.completed(job)
    assert job.result.check(RuntimeError)
    assert jobs.seen == []


def test_surroundings_that_cannot_be_ended_are_told_and_work_goes_on(
    site: Site, steps: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with running(site.db, poll_interval=0.05, around_job=around(steps, broken="end")):
        job, other = site.put(Job(jobs.note, 1)), site.put(Job(jobs.note, 2))
        site.completed(job, other)
    assert (job.result, other.result) == (1, 2)
    assert "tearDown of" in caplog.text
