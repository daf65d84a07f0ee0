# SPDX-License-Identifier: ZPL-2.1
"""Jobs that are claimed ahead of need: what becomes of those that no thread has begun."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from tests.integration.dispatcher import jobs_for_tests as jobs
from tests.support.clocks import StandingClock
from tests.support.running import Site
from tests.support.single import TWO, Single, single
from zasync.dispatcher.pool import HORIZON, MOST_AHEAD, RECALL_AFTER, Pool
from zasync.foundation import clock
from zasync.interfaces import ACTIVE, COMPLETED, PENDING, AbortedError, TimeoutError
from zasync.job import Job, NeverRetry, RetryCommonFourTimes


@pytest.fixture
def standing() -> Iterator[StandingClock]:
    standing = StandingClock()
    before = clock.install(standing)
    yield standing
    clock.install(before)


@pytest.fixture
def one(site: Site, standing: StandingClock, monkeypatch: Any) -> Iterator[Single]:
    with single(site, monkeypatch, size=2) as made:
        yield made


def put(site: Site, count: int, policy: Any = RetryCommonFourTimes) -> list[Any]:
    made = [Job(jobs.note, number) for number in range(count)]
    for job in made:
        job.retry_policy_factory = policy
    site.commit(lambda: site.queue.put_many(made))
    return made


def statuses(site: Site, made: list[Any]) -> list[str]:
    site.manager.begin()
    return [job.status for job in made]


def test_jobs_are_claimed_ahead_and_begun_in_order_by_as_many_threads_as_there_are_places(
    site: Site, one: Single
) -> None:
    made = put(site, 6)
    one.poll(ahead=3)
    assert statuses(site, made) == [ACTIVE] * 5 + [PENDING]
    first, second = one.begin(), one.begin()
    assert one.begin() is None
    assert len(one.dispatcher.getActiveJobIds()) == 2
    assert one.dispatcher.getStatusInfo()["capacity"]["running"] == 2
    one.do(second)
    one.do(first)
    one.work()
    assert jobs.seen == [(1,), (0,), (2,), (3,), (4,)]


def test_a_death_interrupts_only_what_may_have_been_begun(
    site: Site, one: Single, monkeypatch: Any
) -> None:
    made = put(site, 6, NeverRetry)
    one.poll(ahead=3)
    one.begin(), one.begin()
    site.commit(lambda: site.queue.dispatchers[one.dispatcher.UUID].deactivate(crashed=True))
    assert statuses(site, made) == [ACTIVE] * 2 + [PENDING] * 4
    assert [job._crash_count for job in made] == [0] * 6

    with single(site, monkeypatch, TWO, size=9) as two:
        two.poll()
        two.work()
        two.poll()
    assert statuses(site, made) == [COMPLETED] * 6
    assert [job.failed and bool(job.result.check(AbortedError)) for job in made] == (
        [True] * 2 + [False] * 4
    )
    assert [job._crash_count for job in made] == [1] * 2 + [0] * 4


def test_what_has_ended_or_waits_for_something_leaves_its_place_to_the_next(
    site: Site, one: Single
) -> None:
    made = [Job(jobs.later), *(Job(jobs.note, number) for number in range(5))]
    site.commit(lambda: site.queue.put_many(made))
    one.poll(ahead=3)
    one.do(one.begin())  # waits for a Deferred, and takes a place
    one.do(one.begin())  # is completed; only the database knows
    third = one.begin()
    assert third is not None
    assert one.begin() is None
    site.manager.begin()
    may_have_begun = one.agent.may_have_begun()
    assert [may_have_begun(job) for job in made[:5]] == [True, True, True, True, False]
    jobs.deferreds[0].callback(None)
    one.do(third)
    one.work()


def test_jobs_in_stock_keep_the_order_when_they_are_given_back(
    site: Site, one: Single, standing: StandingClock
) -> None:
    made = put(site, 6)
    one.poll(ahead=3)
    tasks = one.begin(), one.begin()
    standing.move(seconds=RECALL_AFTER)
    one.poll()
    assert statuses(site, made) == [ACTIVE] * 2 + [PENDING] * 4
    assert list(site.queue) == made[2:]
    assert one.pool.in_stock() == 0
    for task in tasks:
        one.do(task)
    for _ in range(3):
        one.poll()
        one.work()
    assert jobs.seen == [(number,) for number in range(6)]
    assert not any(job._policy for job in made)


def test_a_clean_stop_gives_back_what_was_not_begun_and_interrupts_nothing(
    site: Site, one: Single
) -> None:
    made = put(site, 6)
    one.poll(ahead=3)
    one.dispatcher.deactivate(grace=0)
    assert statuses(site, made) == [PENDING] * 6
    assert list(site.queue) == made
    assert one.dispatcher.outlasted == []


def test_a_job_that_waited_in_stock_beyond_its_begin_by_is_not_begun(
    site: Site, one: Single, standing: StandingClock
) -> None:
    made = [Job(jobs.note, number) for number in range(4)]
    site.commit(lambda: site.queue.put_many(made, begin_by=timedelta(seconds=0.5)))
    one.poll(ahead=2)
    one.do(one.begin())
    standing.move(seconds=0.6)
    one.work()
    site.manager.begin()
    assert jobs.seen == [(0,)]
    assert [bool(job.result.check(TimeoutError)) for job in made[1:]] == [True] * 3


def test_what_others_take_out_of_the_stock_is_not_begun(site: Site, one: Single) -> None:
    made = put(site, 4)
    one.poll(ahead=2)
    site.commit(lambda: one.agent.remove(made[3]))
    one.work()
    one.poll()
    assert jobs.seen == [(0,), (1,), (2,)]
    assert one.pool.tracked == {}


def test_what_others_take_while_it_is_given_back_is_left_to_them(
    site: Site, one: Single, standing: StandingClock
) -> None:
    made = put(site, 3)
    one.poll(ahead=1)
    site.commit(lambda: one.agent.remove(made[2]))
    one.pool.recall()
    one.poll()
    assert len(site.queue) == 0
    one.work()


def test_more_threads_are_told_only_after_it_is_committed_that_more_jobs_may_be_begun(
    site: Site, one: Single
) -> None:
    put(site, 9)
    one.poll(ahead=4)
    site.commit(lambda: setattr(one.agent, "size", 4))
    one.poll(ahead=4)
    site.manager.begin()
    assert one.agent._width == 4
    assert one.pool.size == 4
    site.commit(lambda: setattr(one.agent, "size", 1))
    one.poll()
    one.work()
    one.poll()
    site.manager.begin()
    assert one.agent._width == 1


def test_a_claimed_job_that_is_found_again_comes_after_those_that_may_have_begun(
    site: Site, one: Single
) -> None:
    made = put(site, 3)
    one.poll()
    forgotten = one.pool._stock.popleft()
    del one.pool.tracked[forgotten.key]
    one.poll()
    site.manager.begin()
    assert [job for _place, job in one.agent.held()] == [made[1], made[0]]
    one.work()
    assert jobs.seen == [(1,), (0,)]


def test_a_run_that_the_database_does_not_know_of_keeps_its_place(
    site: Site, one: Single, monkeypatch: Any
) -> None:
    from zasync.dispatcher import worker

    made = put(site, 4)
    one.poll(ahead=2)

    load = worker._load

    def cannot_load(*args: Any) -> Any:
        monkeypatch.setattr(worker, "_load", load)
        raise RuntimeError("a fault of our own")

    monkeypatch.setattr(worker, "_load", cannot_load)
    one.do(one.begin())
    one.do(one.begin())
    assert one.begin() is not None
    assert one.begin() is None  # the first looks to others like one that runs
    assert statuses(site, made)[:2] == [ACTIVE, COMPLETED]
    one.poll()
    assert one.begin() is not None


def test_how_much_is_claimed_ahead_follows_the_pace(db: Any, standing: StandingClock) -> None:
    pool = Pool(db, "", "main", lambda: None)
    pool.resize(3)
    assert pool.ahead() == 0
    for _ in range(20):
        standing.move(seconds=0.02)
        pool._ends, pool._last_end = 4, standing.monotonic()  # 200 a second
        wanted = pool.ahead()
    assert wanted == pytest.approx(HORIZON * 200, abs=1)
    pool._ends = 10**6
    standing.move(seconds=0.02)
    pool._last_end = standing.monotonic()
    assert pool.ahead() == MOST_AHEAD
    standing.move(seconds=10)  # all of them take long now
    assert pool.ahead() == 0
