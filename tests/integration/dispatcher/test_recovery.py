# SPDX-License-Identifier: ZPL-2.1
"""What a dead dispatcher held is handed back in batches, by whoever lives, whatever comes between.

Polls are done by hand, and time stands still between them.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest

from tests.integration.dispatcher import jobs_for_tests as jobs
from tests.support.clocks import StandingClock
from tests.support.running import Site
from zasync.agent import Agent
from zasync.dispatcher import Dispatcher, pop
from zasync.dispatcher.polling import SWEEP_AGAIN, Poller
from zasync.foundation import clock
from zasync.interfaces import ACTIVE, COMPLETED
from zasync.job import Job
from zasync.queue.registration import BATCH
from zasync.testing.fail_points import armed
from zasync.testing.faults import Killed

DEAD, ONE, TWO = (UUID(int=number) for number in (1, 2, 3))
JOBS = 2 * BATCH + 50


class PassingJob(Job):
    """A job whose class one of the processes does not have."""


@pytest.fixture
def standing() -> Iterator[StandingClock]:
    standing = StandingClock()
    before = clock.install(standing)
    yield standing
    clock.install(before)


@pytest.fixture
def poller(site: Site, standing: StandingClock) -> Iterator[Callable[[UUID], Poller]]:
    """Makes the poller of a dispatcher without agents, which only looks after others."""
    made: list[Poller] = []

    def make(uuid: UUID) -> Poller:
        made.append(Poller(Dispatcher(site.db, reactor=object(), uuid=uuid), len(made) + 100))
        return made[-1]

    yield make
    for each in made:
        each.close()
    for uuid in {each.dispatcher.UUID for each in made}:
        pop(uuid)


def dead_dispatcher(site: Site, number: int = JOBS, kind: Any = Job) -> list[Any]:
    """A record that nobody pings, whose agent holds so many running jobs; answers those."""

    def make() -> list[Any]:
        record = site.queue.dispatchers.register(DEAD)
        record["main"] = Agent(size=number)
        record.activate()
        record.incarnation = 7
        for each in range(number):
            site.queue.put(kind(jobs.note, each))
        claimed = list(record["main"].claim_jobs(number))
        for token, job in enumerate(claimed, 1):
            job.start(token)
        return claimed

    made: list[Any] = site.commit(make)
    return made


def record(site: Site) -> Any:
    return site.sees(lambda: site.queue.dispatchers[DEAD])


def held(site: Site) -> int:
    return len(record(site)["main"])


def repaired(site: Site) -> list[Any]:
    """The numbers of the jobs whose interruption waits to be handled, in the order of the queue."""
    site.manager.begin()
    return [repair._payload.target.args[0] for repair in site.queue]


def find_dead(poller: Poller, standing: StandingClock) -> float:
    poller.poll()
    standing.move(seconds=61)
    return poller.poll()


def test_a_dead_dispatcher_is_emptied_in_batches_that_follow_at_once(
    site: Site, poller: Any, standing: StandingClock
) -> None:
    dead_dispatcher(site)
    one = poller(ONE)

    pauses, left = [find_dead(one, standing)], [held(site)]
    for _ in range(3):
        pauses.append(one.poll())
        left.append(held(site))

    assert left == [JOBS - BATCH, JOBS - 2 * BATCH, 0, 0]
    assert pauses == [0, 0, 0, one.dispatcher.poll_interval]
    assert repaired(site) == list(range(JOBS))
    assert not record(site).left_behind


def test_a_batch_loads_no_other_jobs(site: Site, poller: Any, standing: StandingClock) -> None:
    dead_dispatcher(site, 1000)
    one = poller(ONE)
    one.poll()
    one.connection.cacheMinimize()
    standing.move(seconds=61)

    one.poll()

    loaded = [item for _, item in one.connection._cache.lru_items() if type(item) is Job]
    assert len(loaded) <= 2 * BATCH, "the jobs, and those that repair them"


def test_another_goes_on_where_one_was_killed_between_two_batches(
    site: Site, poller: Any, standing: StandingClock
) -> None:
    dead_dispatcher(site)
    one, two = poller(ONE), poller(TWO)
    two.poll()
    find_dead(one, standing)

    def die() -> None:
        raise Killed

    with armed("poll.committing", die), pytest.raises(Killed):
        one.poll()
    assert held(site) == JOBS - BATCH, "what was not committed was not done"
    while two.poll() == 0:
        pass

    assert repaired(site) == list(range(JOBS))


def test_two_that_sweep_at_once_hand_each_job_back_once(
    site: Site, poller: Any, standing: StandingClock
) -> None:
    dead_dispatcher(site)
    one, two = poller(ONE), poller(TWO)
    for each in (one, two):
        each.poll()
    standing.move(seconds=61)
    for each in (one, two):  # who says that it lives is not taken for dead by the other
        with site.manager:
            site.queue.dispatchers[each.dispatcher.UUID].ping()
    both = []

    def meanwhile() -> None:
        if not both:
            both.append(two)
            two.poll()

    with armed("poll.committing", meanwhile):
        one.poll()
    assert held(site) == JOBS - BATCH, "one of the two transactions was refused"
    for _ in range(5):
        one.poll()
        two.poll()

    assert repaired(site) == list(range(JOBS))


def test_a_job_that_its_zombie_completes_before_it_is_handed_back_is_completed(
    site: Site, poller: Any, standing: StandingClock
) -> None:
    claimed = dead_dispatcher(site)
    one = poller(ONE)
    find_dead(one, standing)

    site.commit(lambda: claimed[0].finish("in time"))
    while one.poll() == 0:
        pass

    site.manager.begin()
    assert (claimed[0].status, claimed[0].result) == (COMPLETED, "in time")
    assert list(record(site)["main"].completed) == [claimed[0]]
    assert repaired(site) == list(range(1, JOBS))


def test_a_zombie_that_wakes_up_between_two_batches_keeps_what_it_still_runs(
    site: Site, poller: Any, standing: StandingClock
) -> None:
    claimed = dead_dispatcher(site)
    one = poller(ONE)
    find_dead(one, standing)

    site.commit(lambda: site.queue.dispatchers.ping(DEAD))
    assert one.poll() > 0

    assert held(site) == JOBS - BATCH
    assert record(site).activated
    assert (claimed[0].status, claimed[0]._token) == (ACTIVE, 1)
    assert claimed[-1]._token is None


def test_a_restarted_dispatcher_takes_its_former_jobs_back_in_batches_and_then_joins(
    site: Site, poller: Any, standing: StandingClock
) -> None:
    dead_dispatcher(site)
    agent = record(site)["main"]
    site.commit(lambda: setattr(agent, "size", 0))  # so that it claims nothing
    again = poller(DEAD)
    again.poll()
    assert held(site) == JOBS, "its former self may live"
    standing.move(seconds=61)

    assert again.poll() == 0
    assert (held(site), record(site).activated) == (JOBS - BATCH, None)
    while again.poll() == 0:
        pass

    assert record(site).incarnation == again.incarnation
    assert repaired(site) == list(range(JOBS))
    cause = site.queue[0]._payload.target._interruption
    assert (cause["dispatcher"], cause["held"]) == (str(DEAD), JOBS)


def test_what_cannot_be_read_here_is_not_tried_in_each_poll(
    site: Site,
    poller: Any,
    standing: StandingClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    dead_dispatcher(site, 2, PassingJob)
    one = poller(ONE)
    with monkeypatch.context() as elsewhere:
        elsewhere.delattr(sys.modules[__name__], "PassingJob")
        pauses = [find_dead(one, standing), one.poll()]
        assert min(pauses) > 0
        assert caplog.text.count("PassingJob is not in this process") == 2
        standing.move(seconds=SWEEP_AGAIN)
        one.poll()
        assert caplog.text.count("PassingJob is not in this process") == 4
    assert record(site).left_behind
    two = poller(TWO)
    two.poll()
    assert held(site) == 0
    assert repaired(site) == [0, 1]


def test_a_job_of_a_dispatcher_that_stops_cleanly_was_not_killed(
    site: Site, poller: Any, standing: StandingClock
) -> None:
    claimed = dead_dispatcher(site, 1)
    again = poller(DEAD)
    again.incarnation = 7

    again.manager.begin()
    again.deactivate()
    again.manager.commit()

    site.manager.begin()
    assert claimed[0].interrupted_cleanly


def test_a_thousand_short_lived_dispatchers_leave_few_records(
    site: Site, poller: Any, standing: StandingClock
) -> None:
    """One comes and goes each hour, most of them without saying so; A15."""
    one = poller(ONE)
    one.poll()
    most = 0

    def live(number: int) -> None:
        brief = site.queue.dispatchers.register(UUID(int=1000 + number))
        brief["main"] = Agent()
        brief.activate()
        if number % 10 == 0:
            brief.deactivate()

    for number in range(1000):
        site.commit(functools.partial(live, number))
        one.poll()
        standing.move(hours=1)
        one.poll()
        most = max(most, site.sees(lambda: len(site.queue.dispatchers)))

    hours = 8 * 24
    assert most <= hours + 10
    assert sum(1 for each in site.queue.dispatchers.values() if each.activated) == 1
