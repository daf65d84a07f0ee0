# SPDX-License-Identifier: ZPL-2.1
"""Several puts at once, and what is left to other dispatchers."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest

from tests.support.clocks import StandingClock
from tests.support.queues import FIRST, SECOND, View, numbered, numbers
from zasync.agent import Agent
from zasync.interfaces import NEW, NotStorableError
from zasync.job import Job
from zasync.queue.memory import ClaimMemory
from zasync.queue.waiting import LANES, RUN_LENGTH


def test_jobs_that_are_put_at_once_are_as_if_put_one_by_one(view: View) -> None:
    made = view.queue.put_many((numbered(number) for number in range(5)), begin_by=timedelta(1))
    view.commit()
    assert numbers(view.queue) == list(range(5))
    assert list(view.queue) == made
    assert all(job.begin_by == timedelta(1) for job in made)
    assert view.queue.put_many([]) == []


@pytest.mark.parametrize("bad", [lambda: Job(int, threading.Lock()), lambda: "no job at all"])
def test_none_is_put_if_one_is_refused(view: View, bad: Any) -> None:
    first = numbered(1)
    with pytest.raises((NotStorableError, TypeError)):
        view.queue.put_many([first, bad()])
    assert first.status == NEW
    assert len(view.queue) == 0


def test_a_job_can_be_put_only_once(view: View) -> None:
    job = numbered(1)
    with pytest.raises(ValueError, match="twice"):
        view.queue.put_many([job, job])
    assert len(view.queue) == 0


def test_a_bulk_uses_all_lanes_alike(view: View) -> None:
    view.queue.put_many(numbered(number) for number in range(LANES * RUN_LENGTH))
    line = view.queue._waiting._lines[()]
    assert [added() for _ready, _later, added in line.lanes] == [RUN_LENGTH] * LANES


@pytest.fixture
def shared(view: View, standing_clock: StandingClock, monkeypatch: Any) -> View:
    """Two dispatchers, and a job in a lane of each."""
    for uuid in (FIRST, SECOND):
        record = view.queue.dispatchers.register(uuid)
        record["main"] = Agent()
        record.activate()
    lanes = iter([0, 1])
    monkeypatch.setattr(standing_clock.random, "randrange", lambda stop: next(lanes))
    view.put(0)
    view.put(1)
    return view


def claim(view: View, memory: ClaimMemory) -> list[int]:
    return numbers(view.queue.dispatchers[FIRST]["main"].claim_jobs(9, memory))


def test_jobs_in_the_lanes_of_others_are_left_to_them_for_a_moment(
    shared: View, standing_clock: StandingClock
) -> None:
    memory = ClaimMemory(leaves_to_others=True)
    assert claim(shared, memory) == [0]
    assert not memory.left_to_others  # they are too young even to be seen
    due = shared.queue.next_of_others(FIRST)
    assert due is not None
    standing_clock.move(microseconds=(due - standing_clock.now()) // timedelta(microseconds=1))
    assert claim(shared, memory) == [1]
    assert shared.queue.next_of_others(FIRST) is None


def test_who_has_found_jobs_in_its_own_lanes_comes_again_for_those_of_others(
    shared: View, standing_clock: StandingClock
) -> None:
    memory = ClaimMemory(leaves_to_others=True)
    standing_clock.move(seconds=0.5)
    assert claim(shared, memory) == [0]
    assert memory.left_to_others
    assert claim(shared, memory) == [1]


def test_a_dispatcher_alone_takes_all_and_waits_for_nobody(view: View) -> None:
    record = view.dispatcher()
    view.put(0, 1, 2)
    assert view.queue.next_of_others(record.UUID) is None
    assert view.queue.fair_share(record.UUID) == 3


def test_a_fair_share_is_that_of_equals(shared: View) -> None:
    assert shared.queue.fair_share(FIRST) == 1
