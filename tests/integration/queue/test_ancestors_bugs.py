# SPDX-License-Identifier: ZPL-2.1
"""Bugs that the ancestor had in this part, one test each, under the names of our notes on them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from ZODB.POSException import ConflictError

from tests.support.bench import UUID as BENCH
from tests.support.bench import Bench
from tests.support.benches import bench, standing
from tests.support.clocks import StandingClock
from tests.unit.job import things
from zasync.dispatcher import Dispatcher, pop
from zasync.dispatcher.polling import Poller
from zasync.foundation import clock
from zasync.interfaces import ACTIVE, COMPLETED, AbortedError, ReassignedError
from zasync.job import Job, NeverRetry
from zasync.testing.faults import Point

__all__ = ["bench", "standing"]


@pytest.fixture
def poller(bench: Bench) -> Iterator[Callable[[UUID], Poller]]:
    """Makes the poller of a dispatcher on the bench's database."""
    made: list[Poller] = []

    def make(uuid: UUID) -> Poller:
        dispatcher = Dispatcher(bench.db, reactor=object(), uuid=uuid)
        dispatcher.activated = clock.now()
        made.append(Poller(dispatcher, 100 + len(made)))
        return made[-1]

    yield make
    for each in made:
        each.close()
        pop(each.dispatcher.UUID)


def test_z1_an_interrupted_job_that_fails_fails_once_and_outside_of_its_old_agent(
    bench: Bench,
) -> None:
    job = bench.held(things.multiply, 1)
    job.retry_policy_factory = NeverRetry
    job.start(5)
    bench.commit()
    bench.restart()

    bench.work()

    bench.begin()
    job = bench.connection.get(job._p_oid)
    assert job.result.check(AbortedError)
    assert not job.result.check(ReassignedError)
    assert list(bench.agent) == []
    ended = list(bench.agent.completed)
    assert job in ended
    assert [each.failed for each in ended] == [each is job for each in ended]


def test_z7_a_dispatcher_that_lives_though_deactivated_works_again(
    bench: Bench, poller: Any, caplog: pytest.LogCaptureFixture
) -> None:
    one = poller(UUID(int=7))
    one.poll()
    bench.begin()
    bench.queue.dispatchers[UUID(int=7)].deactivate()
    bench.commit()

    one.poll()

    bench.begin()
    assert bench.queue.dispatchers[UUID(int=7)].activated
    assert [entry.levelno for entry in caplog.records][-1] == logging.CRITICAL


def test_z11_a_deactivated_dispatcher_claims_nothing_and_keeps_no_place_taken(
    bench: Bench,
) -> None:
    jobs = [bench.held(things.multiply, number) for number in range(3)]
    for job in jobs:
        job.start(5)
    bench.agent.size = 3
    bench.record.deactivate(crashed=True)
    bench.commit()
    assert bench.agent.claimJob() is None

    bench.record.activate()
    bench.commit()

    assert len(bench.agent) == 0
    assert bench.work() == 6, "three repairs, three jobs"


def test_z12_a_dispatcher_that_is_late_says_that_it_lives_before_it_claims(
    bench: Bench, poller: Any, standing: StandingClock
) -> None:
    one = poller(BENCH)
    assert bench.record.activated
    bench.record.incarnation = one.incarnation
    job = bench.queue.put(Job(things.multiply, 1))
    bench.commit()
    standing.move(minutes=10)
    bench.begin()
    assert bench.record.dead

    one.poll()

    bench.begin()
    assert bench.record.last_ping.value == standing.now()
    assert not bench.record.dead
    assert job.parent is not bench.queue


def test_z13_a_run_whose_job_was_taken_away_does_not_try_again(bench: Bench) -> None:
    calls = []

    def work() -> None:
        calls.append(1)
        with bench.elsewhere() as there:
            there(bench.record).deactivate(crashed=True)
        raise ConflictError  # which its policy would have tried again

    things.script["work"] = work
    job = bench.held(things.act, "work")

    with pytest.raises(ReassignedError):
        job()

    assert calls == [1]
    bench.begin()
    assert (job.status, job._token) == (ACTIVE, None)


def test_r3_a_commit_whose_outcome_is_unknown_leaves_neither_callbacks_nor_place_behind(
    bench: Bench,
) -> None:
    from ZEO.Exceptions import ClientDisconnected

    job = bench.held(things.multiply, 4)
    callback = job.addCallback(things.same)
    bench.commit()
    fault = bench.storage.fail(Point.AFTER_FINISH, ClientDisconnected(), skip=1)

    job()

    assert not fault.times
    assert (job.status, callback.status, callback.result) == (COMPLETED, COMPLETED, 8)
    assert len(bench.agent) == 0


@pytest.mark.parametrize("how", ["put back", "handed back"])
def test_r6_a_job_that_is_put_back_and_then_removed_frees_its_quota(bench: Bench, how: str) -> None:
    assert bench.agent is not None
    bench.queue.quotas.create("one", size=1)
    for _ in range(2):
        job = bench.queue.put(Job(things.multiply, 1))
        job.quota_names = ("one",)
    bench.commit()
    job = bench.agent.claimJob()
    if how == "put back":
        bench.queue.putBack(job)
    else:
        bench.record.deactivate()
        bench.record.activate()
    bench.queue.remove(job)
    bench.commit()

    assert bench.work() == 1


def test_r6_a_parked_job_frees_its_quota(bench: Bench, standing: StandingClock) -> None:
    assert bench.agent is not None
    bench.queue.quotas.create("one", size=1)
    bench.queue.crash_limit = 1
    for number in range(2):
        job = bench.queue.put(Job(things.multiply, number))
        job.quota_names = ("one",)
    bench.commit()
    job = bench.agent.claimJob()
    job.start(5)
    bench.commit()
    standing.move(seconds=100)
    bench.restart()

    assert bench.work() == 2, "the repair, and the other job"

    bench.begin()
    assert len(bench.queue.parked) == 1


def test_r9_a_claim_that_does_not_see_its_own_death_conflicts(bench: Bench) -> None:
    bench.queue.put(Job(things.multiply, 1))
    assert bench.agent is not None
    bench.begin()
    assert bench.agent.claimJob() is not None
    with bench.elsewhere() as there:
        there(bench.record).deactivate(crashed=True, limit=0)

    with pytest.raises(ConflictError):
        bench.commit()

    bench.begin()
    assert len(bench.queue) == 1
