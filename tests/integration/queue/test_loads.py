# SPDX-License-Identifier: ZPL-2.1
"""What a claim reads and writes: its cost must not grow with the backlog."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.support.clocks import StandingClock
from tests.support.queues import View, always_lane, numbered, numbers
from zasync.queue.waiting import LANES


def loaded(jobs: list[Any], there: View) -> list[int]:
    """The numbers of those `jobs` whose records `there` has read."""
    return [job.args[0] for job in jobs if there.see(job)._p_changed is not None]


def put(view: View, count: int, *quota_names: str) -> list[Any]:
    view.commit()
    jobs = [view.queue.put(numbered(number, *quota_names)) for number in range(count)]
    view.commit()
    return jobs


def test_a_claim_loads_the_job_that_it_takes_and_no_other(view: View, open_view: Any) -> None:
    jobs = put(view, 200)
    there = open_view()
    there.queue.claim()
    assert loaded(jobs, there) == [0]


def test_a_full_quota_keeps_all_jobs_that_want_it_from_being_loaded(
    view: View, open_view: Any
) -> None:
    view.queue.quotas.create("catalog", size=0)
    waiting = put(view, 200, "catalog")
    last = view.put(1000)
    there = open_view()
    assert numbers([there.queue.claim()]) == [1000]
    assert loaded(waiting, there) == [0]  # which told that the quota is full
    assert loaded(last, there) == [1000]


def test_jobs_for_later_are_not_loaded(
    view: View, open_view: Any, standing_clock: StandingClock
) -> None:
    later = view.put(*range(200), begin_after=standing_clock.now() + timedelta(minutes=1))
    there = open_view()
    assert there.queue.claim() is None
    assert loaded(later, there) == []


def test_looking_at_length_index_and_counters_loads_no_jobs(view: View, open_view: Any) -> None:
    jobs = put(view, 200)
    queue = (there := open_view()).queue
    assert len(queue) == 200
    assert queue
    assert queue[199] is there.see(jobs[199])
    list(queue)
    queue.next_due()
    queue.counters()
    assert loaded(jobs, there) == []


@pytest.mark.parametrize("act", ["claim", "put"])
def test_the_number_of_reads_does_not_grow_with_the_backlog(
    view: View, open_view: Any, act: str
) -> None:
    def reads(count: int) -> int:
        there = open_view()
        there.connection.getTransferCounts(True)
        if act == "claim":
            there.queue.claim()
        else:
            there.queue.put(numbered(1))
            there.commit()
        loads: int = there.connection.getTransferCounts(True)[0]
        there.abort()
        return loads

    put(view, 100)
    few = reads(100)
    put(view, 3000)
    assert reads(3100) <= few + 3 * LANES  # the trees are a little deeper


def records_written(view: View, act: Callable[[], object]) -> int:
    view.commit()
    view.connection.getTransferCounts(True)
    act()
    view.commit()
    stores: int = view.connection.getTransferCounts(True)[1]
    return stores


def test_a_put_writes_the_job_its_lane_and_the_counter(view: View) -> None:
    view.put(*range(3))
    assert records_written(view, lambda: view.queue.put(numbered(1))) == 3


def test_a_claim_of_many_jobs_writes_little_more_than_the_jobs(
    view: View, standing_clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing_clock.random, "shuffle", always_lane(0))
    agent = view.dispatcher(size=20)["main"]
    put(view, 20)
    # the jobs, their lane, the counter of what was taken out, the agent's list, the ping
    assert records_written(view, lambda: list(agent.claim_jobs(20))) == 24


def test_a_claim_that_finds_nothing_writes_nothing(view: View) -> None:
    view.queue.quotas.create("catalog", size=0)
    put(view, 3, "catalog")
    agent = view.dispatcher()["main"]
    assert records_written(view, agent.claimJob) == 0
