# SPDX-License-Identifier: ZPL-2.1
"""Jobs that are cancelled while a real dispatcher works, over a real FileStorage."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import transaction

from tests.integration.dispatcher import jobs_for_tests as jobs
from tests.support.running import Runner, Site, running, until
from zasync.interfaces import ACTIVE, COMPLETED, NEW, CancelledError
from zasync.job import Job, parallel


def cancelled(site: Site, job: Any) -> bool:
    return bool(site.commit(lambda: job.cancel("no more")))


def main_agent(site: Site, runner: Runner) -> Any:
    return site.queue.dispatchers[runner.uuid]["main"]


def is_empty(site: Site, runner: Runner) -> None:
    """Wait until the agent holds nothing, and the process knows of nothing."""
    agent = main_agent(site, runner)
    site.until(lambda: len(agent) == 0, "an empty agent")
    until(lambda: not runner.dispatcher.getActiveJobIds(), "no active jobs")


def test_a_job_that_waits_is_never_run(site: Site) -> None:
    with running(site.db, size=1, poll_interval=0.05) as runner:
        first = site.put(Job(jobs.wait_at, "first"))
        assert jobs.gate("first reached").wait(15)
        second = site.put(Job(jobs.note, "second"))
        assert cancelled(site, second)
        jobs.gate("first").set()
        site.completed(first, second)
        is_empty(site, runner)
    assert second.cancelled
    assert jobs.seen == []


def test_a_job_in_a_thread_commits_nothing_and_is_tidied(site: Site) -> None:
    with running(site.db, size=1, poll_interval=0.05) as runner:
        job = site.put(Job(jobs.wait_and_count, "a"))
        callback = site.commit(lambda: job.addCallback(Job(jobs.note)))
        assert jobs.gate("a reached").wait(15)
        next_one = site.put(Job(jobs.note, "next"))

        assert cancelled(site, job)
        assert site.sees(lambda: job.cancelled)
        assert len(main_agent(site, runner)) == 1, "its thread is at it still"
        jobs.gate("a").set()
        site.completed(job, callback, next_one)
        is_empty(site, runner)
        completed = main_agent(site, runner).completed
        assert [each for each in completed if each is job] == [job]
        assert runner.dispatcher.getJobInfo(job.oid)["reassigned"]
    assert "count" not in site.root
    assert sorted(type(each[0]).__name__ for each in jobs.seen) == ["Failure", "str"]


def test_code_that_asks_comes_back_at_once(site: Site) -> None:
    with running(site.db, size=1, poll_interval=0.05) as runner:
        job = site.put(Job(jobs.work_until_cancelled, "a"))
        assert jobs.gate("a reached").wait(15)
        assert cancelled(site, job)
        is_empty(site, runner)
        assert jobs.seen == [("cancelled",)]
    assert job.cancelled


@pytest.mark.parametrize("kind", ["coroutine", "deferred", "stubborn coroutine"])
def test_a_job_without_a_thread_gives_its_place_back(site: Site, kind: str) -> None:
    work = {
        "coroutine": Job(jobs.wait_for_ever, "a"),
        "deferred": Job(jobs.later),
        "stubborn coroutine": Job(jobs.wait_in_spite_of_all, "a"),
    }[kind]
    with running(site.db, size=1, poll_interval=0.05) as runner:
        job = site.put(work)
        callback = site.commit(lambda: job.addCallback(Job(jobs.note)))
        if kind == "deferred":
            until(lambda: jobs.deferreds, "the Deferred")
        else:
            assert jobs.gate("a reached").wait(15)
        site.until(lambda: job._suspension is not None, "the suspension")
        next_one = site.put(Job(jobs.note, "next"))
        assert cancelled(site, job)
        site.completed(job, callback, next_one)
        is_empty(site, runner)
        if kind == "coroutine":
            until(lambda: runner.dispatcher.coroutines.active == 0, "the coroutine's end")
        if kind == "deferred":
            jobs.deferreds[0].callback("too late")
        if kind == "stubborn coroutine":
            jobs.gate("a").set()
        site.completed(site.put(Job(jobs.note, "last")))
    assert job.cancelled
    assert len([each for each in jobs.seen if hasattr(each[0], "check")]) == 1


def test_a_coroutine_can_ask(site: Site) -> None:
    with running(site.db, size=1, poll_interval=3600) as runner:
        job = site.put(Job(jobs.ask_in_coroutine, "a"))
        assert jobs.gate("a reached").wait(15)
        db, oid = site.db, job._p_oid
        manager = transaction.TransactionManager()
        connection = db.open(transaction_manager=manager)
        assert connection.get(oid).cancel()
        manager.commit()
        connection.close()
        jobs.gate("a").set()
        until(lambda: jobs.seen, "the answer")
        assert jobs.seen in ([(True,)], [("cancelled",)])
        is_empty(site, runner)


def test_a_callback_that_is_running_is_cancelled_and_the_others_are_called(site: Site) -> None:
    with running(site.db, poll_interval=0.05) as runner:
        work = Job(jobs.note, 3)
        running_one = work.addCallback(Job(jobs.wait_for_ever_in, "b"))
        after = work.addCallback(jobs.note)
        job = site.put(work)
        assert jobs.gate("b reached").wait(15)
        site.until(lambda: running_one.status == ACTIVE, "the callback's start")
        assert cancelled(site, running_one)
        site.completed(job, running_one, after)
        is_empty(site, runner)
    assert running_one.cancelled
    assert job.result == after.result == 3


def test_a_job_that_waits_for_an_inner_one_takes_that_with_it(site: Site) -> None:
    with running(site.db, size=2, poll_interval=0.05) as runner:
        members = [Job(jobs.wait_and_count, name) for name in "abc"]
        group = site.put(parallel(*members))
        site.until(lambda: sum(m.status == ACTIVE for m in members) == 2, "two members")
        assert cancelled(site, group)
        for name in "abc":
            jobs.gate(name).set()
        site.completed(group, *members)
        is_empty(site, runner)
    assert all(each.cancelled for each in [group, *members])
    assert "count" not in site.root


def test_a_quota_is_free_before_the_thread_is(site: Site) -> None:
    site.commit(lambda: site.queue.quotas.create("one"))

    def limited(*args: Any) -> Any:
        job = Job(*args)
        job.quota_names = ["one"]
        return job

    with running(site.db, size=2, poll_interval=0.05):
        first = site.put(limited(jobs.wait_and_count, "a"))
        assert jobs.gate("a reached").wait(15)
        second = site.put(limited(jobs.note, "b"))
        assert cancelled(site, first)
        site.completed(second)
        assert not jobs.gate("a").is_set()
        jobs.gate("a").set()
    assert "count" not in site.root


def test_a_job_whose_dispatcher_died_is_not_run_again(site: Site) -> None:
    with running(site.db, size=1, poll_interval=0.05) as first:
        job = site.put(Job(jobs.wait_and_count, "a"))
        callback = site.commit(lambda: job.addCallback(jobs.note))
        assert jobs.gate("a reached").wait(15)
        first.vanish()
        assert cancelled(site, job)
        site.let_others_die_soon()
        with running(site.db, size=1, poll_interval=0.05) as second:
            site.completed(job, callback)
            is_empty(site, second)
        jobs.gate("a").set()
    assert job.cancelled
    assert len(jobs.seen) == 1
    assert "count" not in site.root


def test_a_job_that_its_dead_dispatcher_left_to_others_is_not_run_again(site: Site) -> None:
    with running(site.db, size=1, poll_interval=0.05) as first:
        job = site.put(Job(jobs.wait_and_count, "a"))
        assert jobs.gate("a reached").wait(15)
        first.vanish()

        def find_dead() -> None:
            site.queue.dispatchers[first.uuid].deactivate(crashed=True)

        site.commit(find_dead)
        assert len(site.queue) == 1
        assert cancelled(site, job)
        with running(site.db, size=1, poll_interval=0.05) as second:
            site.until(lambda: not site.queue, "the repair")
            is_empty(site, second)
        jobs.gate("a").set()
    assert (job.status, job.cancelled) == (COMPLETED, True)
    assert "count" not in site.root


def test_of_two_that_cancel_at_once_one_does(site: Site) -> None:
    with running(site.db, poll_interval=0.05) as runner:
        job = site.put(Job(jobs.wait_at, "a"))
        callback = site.commit(lambda: job.addCallback(jobs.note))
        assert jobs.gate("a reached").wait(15)
        answers: list[bool] = []
        both = threading.Barrier(2)

        def cancel() -> None:
            mine = Site(site.db)
            try:
                mine.manager.begin()
                seen = mine.connection.get(job._p_oid)
                assert seen.status == ACTIVE
                both.wait(15)
                answers.append(mine.commit(seen.cancel))
            finally:
                mine.close()

        threads = [threading.Thread(target=cancel) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(15)
        jobs.gate("a").set()
        site.completed(job, callback)
        is_empty(site, runner)
    assert sorted(answers) == [False, True]
    assert len(jobs.seen) == 1


@pytest.mark.slow
def test_cancels_that_race_with_completions_leave_one_end_and_one_call_of_each_callback(
    site: Site,
) -> None:
    """A job's effect is there if, and only if, it was not cancelled."""
    count = 60
    site.commit(lambda: site.root.__setitem__("marks", jobs.marks()))
    ended = []
    with running(site.db, size=3, poll_interval=0.05) as runner:
        for number in range(count):
            work = Job(jobs.leave_a_mark, number)
            site.manager.begin()
            work.addCallback(Job(jobs.tell, number))
            job = site.put(work)
            if number % 3:
                site.until(lambda job=job: job.status != "pending-status", "its claim")
            ended.append((job, cancelled(site, job)))
        site.completed(*[job for job, _ in ended], seconds=60)
        is_empty(site, runner)
        completed = [job.oid for job in main_agent(site, runner).completed]
    site.manager.begin()
    for number, (job, was_cancelled) in enumerate(ended):
        assert job.cancelled is was_cancelled
        assert site.root["marks"].get(number, 0) == (0 if was_cancelled else 1)
        assert completed.count(job.oid) == 1
    assert sorted(number for number, *_ in jobs.seen) == list(range(count))


def test_a_job_that_was_to_run_later_is_cancelled_before_it_is_put_back(site: Site) -> None:
    """The run has ended, and told so; the poll that would put the job back finds it cancelled."""
    with running(site.db, size=1, poll_interval=3600) as runner:
        job = site.put(Job(jobs.wait_and_fail, "a"), retry_policy_factory=jobs.again_in_an_hour)
        assert jobs.gate("a reached").wait(15)
        with runner.dispatcher._poll_lock:  # no poll now
            jobs.gate("a").set()
            site.until(lambda: job._again is not None, "the decision")
            assert cancelled(site, job)
        runner.dispatcher.wake()
        is_empty(site, runner)
        assert len(site.queue) == 0
    assert (job.status, job.cancelled) == (COMPLETED, True)


def test_in_two_databases_the_end_is_written_by_one_who_looks(tmp_path: Any) -> None:
    import ZODB
    from ZODB.FileStorage import FileStorage

    databases: dict[str, Any] = {}
    db = ZODB.DB(FileStorage(str(tmp_path / "queue.fs")), databases=databases, database_name="")
    data = ZODB.DB(FileStorage(str(tmp_path / "data.fs")), databases=databases, database_name="d")
    jobs.reset()
    site = Site(db)
    try:
        with running(db, size=2, poll_interval=0.05) as runner:
            job = site.put(Job(jobs.wait_and_count_in, "a", "d"))
            callback = site.commit(lambda: job.addCallback(jobs.note))
            assert jobs.gate("a reached").wait(15)
            assert cancelled(site, job)
            site.completed(job, callback)
            jobs.gate("a").set()
            is_empty(site, runner)
            job.result.trap(CancelledError)
            assert len(jobs.seen) == 1
            completed = [each.oid for each in main_agent(site, runner).completed]
            assert completed.count(job.oid) == 1
        assert "count" not in site.connection.get_connection("d").root()
    finally:
        site.close()
        db.close()
        data.close()


def test_a_new_agent_takes_what_is_asked_for_again(site: Site) -> None:
    job = site.put(Job(jobs.note, 5))
    assert cancelled(site, job)
    again = site.commit(job.again)
    assert again.status == NEW
    again = site.put(again)
    with running(site.db, poll_interval=0.05):
        site.completed(again)
    assert (again.result, job.cancelled) == (5, True)


def test_the_interval_of_polls_bounds_how_long_others_take_to_see_it(site: Site) -> None:
    """A cancel in a process without a dispatcher rings no bell; the next poll sees it."""
    with running(site.db, size=1, poll_interval=0.2) as runner:
        job = site.put(Job(jobs.wait_for_ever, "a"))
        assert jobs.gate("a reached").wait(15)
        site.until(lambda: job._suspension is not None, "the suspension")
        runner.dispatcher.hints.stop()
        assert cancelled(site, job)
        until(lambda: runner.dispatcher.coroutines.active == 0, "the coroutine's end")
        is_empty(site, runner)
