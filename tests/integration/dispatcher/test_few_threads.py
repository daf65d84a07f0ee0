# SPDX-License-Identifier: ZPL-2.1
"""How many threads a pool has: few for coroutines, one for each job that keeps its thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integration.dispatcher import jobs_for_tests as jobs
from tests.support.clocks import StandingClock
from tests.support.running import Site, running, until
from tests.support.single import single
from zasync.dispatcher.pool import ENOUGH, RECALL_AFTER, Pool, Stop, Tracked
from zasync.foundation import attempts, clock
from zasync.job import Job, Landing

MANY = 200
BLOCKING = ENOUGH + 5

meetings: dict[str, asyncio.Event] = {}
arrived: list[str] = []
barriers: dict[str, threading.Barrier] = {}


@pytest.fixture(autouse=True)
def nobody_there() -> Iterator[None]:
    meetings.clear()
    arrived.clear()
    barriers.clear()
    barriers["threads"] = threading.Barrier(BLOCKING)
    yield
    for barrier in barriers.values():
        barrier.abort()


async def meet(name: str, count: int) -> None:
    """Wait until so many coroutines are here at once."""
    arrived.append(name)
    event = meetings.setdefault(name, asyncio.Event())
    if arrived.count(name) == count:
        event.set()
    await event.wait()


def meet_in_threads(_result: Any = None) -> int:
    """Wait until `BLOCKING` threads are here at once."""
    return barriers["threads"].wait(20)


async def land() -> Landing:
    return Landing(meet_in_threads)


@pytest.fixture
def pool(db: Any) -> Iterator[Pool]:
    pool = Pool(db, "", "main", lambda: None)
    pool.resize(MANY)
    yield pool
    pool.stop_signal.set()
    pool.resize(0)
    until(lambda: not pool.threads, "the end of the threads")


def put_all(site: Site, *made: Job) -> list[Any]:
    site.commit(lambda: site.queue.put_many(list(made)))
    return list(made)


def test_a_thousand_things_that_take_a_moment_are_done_by_a_few_threads(pool: Pool) -> None:
    done: list[int] = []
    gate = threading.Event()

    def wait_a_moment(number: int) -> Callable[[Any], None]:
        return lambda connection: done.append(number) if gate.wait(20) else None

    for number in range(1000):
        pool.submit(wait_a_moment(number))
    assert len(pool.threads) == ENOUGH

    gate.set()
    until(lambda: len(done) == 1000, "all of them")
    assert len(pool.threads) == ENOUGH
    until(lambda: not pool._held_back, "a thread that finds nothing left to do")


def test_each_thread_that_is_occupied_leaves_its_place_to_another(pool: Pool) -> None:
    gate, met = threading.Event(), []

    def block(connection: Any) -> None:
        pool.occupied()
        met.append(meet_in_threads())

    for _ in range(ENOUGH - 1):  # all but one of those for moments
        pool.submit(lambda connection: gate.wait(20) and None)
    for _ in range(BLOCKING):
        pool.submit(block)

    until(lambda: len(met) == BLOCKING, "the meeting")
    assert len(pool.threads) <= ENOUGH + BLOCKING
    gate.set()


def test_a_thread_that_pauses_for_long_is_occupied(pool: Pool) -> None:
    for _ in range(BLOCKING):
        pool.submit(lambda connection: attempts.pause(3600))
    done = threading.Event()
    pool.submit(lambda connection: done.set())

    assert done.wait(20)

    assert not Stop(pool).is_set()
    pool.stop_signal.set()
    assert Stop(pool).wait(attempts.CONFLICT_PAUSE)
    assert threading.get_ident() not in pool._occupied
    assert Stop(pool).wait()
    assert threading.get_ident() in pool._occupied


def test_a_pool_that_grows_counts_those_who_were_busy_before(db: Any) -> None:
    small = Pool(db, "", "small", lambda: None)
    small.resize(ENOUGH)
    gate, done = threading.Event(), threading.Event()

    begun: list[int] = []

    def block(connection: Any) -> None:
        small.occupied()
        begun.append(1)
        gate.wait(20)

    for _ in range(ENOUGH):
        small.submit(block)
    until(lambda: len(begun) == ENOUGH, "the threads")
    assert not small._occupied, "nobody needs to know"
    small.resize(ENOUGH + 1)
    small.submit(lambda connection: done.set())

    assert done.wait(20)
    gate.set()
    small.resize(0)
    until(lambda: not small.threads, "the end of the threads")


def test_jobs_are_begun_in_order_and_no_more_than_there_are_places(db: Any) -> None:
    pool = Pool(db, "", "main", lambda: None)
    too_many: list[Any] = []
    out_of_order: list[Any] = []
    done: list[int] = []

    def perform(tracked: Tracked, connection: Any) -> None:
        with pool._lock:
            out_of_order.extend(each for each in pool._stock if each.place < tracked.place)
            if pool._begun > pool.size:
                too_many.append(tracked)
        if tracked.place % 3:
            pool.occupied()
        done.append(tracked.place)
        with pool._lock:
            pool._free_place(tracked)

    pool.perform = perform
    pool.resize(BLOCKING)
    claimed = [Tracked((number, ""), number, number, Job) for number in range(300)]
    for begin in range(0, 300, 50):
        pool.hand_over(claimed[begin : begin + 50])
    until(lambda: len(done) == 300, "all jobs")

    assert not out_of_order
    assert not too_many
    pool.resize(0)
    until(lambda: not pool.threads, "the end of the threads")


def test_many_coroutines_run_at_once_and_end_at_once_with_few_threads(site: Site) -> None:
    with running(site.db, size=MANY) as runner:
        made = put_all(site, *(Job(meet, "all", MANY) for _ in range(MANY)))
        site.completed(*made, seconds=60)
        assert len(runner.dispatcher.pool("", "main").threads) <= ENOUGH
    assert arrived == ["all"] * MANY


def test_blocking_jobs_among_coroutines_get_all_their_places(site: Site) -> None:
    with running(site.db, size=MANY + BLOCKING) as runner:
        made = [Job(meet, "all", MANY) for _ in range(MANY)]
        for number in range(BLOCKING):
            made.insert(number * 10, Job(meet_in_threads))
        put_all(site, *made)
        site.completed(*made, seconds=60)
        assert len(runner.dispatcher.pool("", "main").threads) <= ENOUGH + BLOCKING
    assert sorted(job.result for job in made if job.callable is meet_in_threads) == list(
        range(BLOCKING)
    )


def test_what_coroutines_land_and_their_callbacks_get_threads_of_their_own(site: Site) -> None:
    with running(site.db, size=BLOCKING):
        made = put_all(site, *(Job(land) for _ in range(BLOCKING)))
        site.completed(*made, seconds=60)
        assert sorted(job.result for job in made) == list(range(BLOCKING))

        made = [Job(jobs.double, number) for number in range(BLOCKING)]
        callbacks = [job.addCallback(Job(meet_in_threads)) for job in made]
        put_all(site, *made)
        site.completed(*made, *callbacks, seconds=60)
        assert sorted(job.result for job in callbacks) == list(range(BLOCKING))


def test_a_group_occupies_its_thread(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with single(site, monkeypatch, size=BLOCKING, batch=10) as one:
        one.learn(("global", jobs.__name__, "note"))
        put_all(site, *(Job(jobs.note, number) for number in range(3)))
        one.poll()
        one.do(one.begin())
        assert jobs.seen == [(0,), (1,), (2,)]
        assert threading.get_ident() in one.pool._occupied
        assert one.begin() is None
        assert threading.get_ident() not in one.pool._occupied


def test_jobs_with_a_place_are_not_given_back_while_the_threads_get_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing = StandingClock()
    before = clock.install(standing)
    try:
        with single(site, monkeypatch, size=9) as one:
            put_all(site, *(Job(jobs.note, number) for number in range(9)))
            one.poll()
            for _ in range(3):
                standing.move(seconds=RECALL_AFTER * 0.9)
                one.do(one.begin())
                one.pool.recall(RECALL_AFTER)
            assert one.pool.in_stock() == 6

            standing.move(seconds=RECALL_AFTER)
            one.pool.recall(RECALL_AFTER)
            assert one.pool.in_stock() == 0
            assert jobs.seen == [(0,), (1,), (2,)]
    finally:
        clock.install(before)
