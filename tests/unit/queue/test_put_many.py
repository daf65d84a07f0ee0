# SPDX-License-Identifier: ZPL-2.1
"""Several puts at once, and what is left to other dispatchers."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.support.clocks import StandingClock
from tests.support.queues import (
    FIRST,
    SECOND,
    View,
    always_lane,
    lane_after_lane,
    numbered,
    numbers,
)
from zasync.agent import Agent
from zasync.interfaces import NEW, NotStorableError
from zasync.job import Job
from zasync.queue.memory import OTHERS_KNOWN_FOR, ClaimMemory
from zasync.queue.waiting import LANES, RUN_LENGTH, OfOthers


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
        record["main"] = Agent(size=20)
        record.activate()
    for number in (0, 1):
        monkeypatch.setattr(standing_clock.random, "shuffle", always_lane(number))
        view.put(number)
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


def test_who_has_nothing_begins_elsewhere_in_a_lane_of_others(
    shared: View, standing_clock: StandingClock, monkeypatch: Any
) -> None:
    monkeypatch.setattr(standing_clock.random, "shuffle", always_lane(1))
    memory = ClaimMemory(leaves_to_others=True)
    assert claim(shared, memory) == [0]
    for number in range(2, 8):
        standing_clock.move(seconds=0.1)
        shared.put(number)
    standing_clock.move(seconds=0.5)
    shared.put(8)  # the first has waited for more than a second longer
    standing_clock.move(seconds=0.1)
    assert claim(shared, memory) == [5, 6, 7, 1, 2, 3, 4, 8]


def test_the_part_that_is_left_of_others_is_as_large_for_each(
    view: View, standing_clock: StandingClock, monkeypatch: Any
) -> None:
    uuids = [UUID(int=number) for number in (1, 2, 3, 4)]
    for uuid in uuids:
        view.queue.dispatchers.register(uuid)["main"] = Agent(size=4)
        view.queue.dispatchers[uuid].activate()
    monkeypatch.setattr(standing_clock.random, "shuffle", always_lane(3))
    view.put(*range(16))
    standing_clock.move(seconds=0.1)
    claims = []
    for uuid in uuids:
        memory = ClaimMemory(leaves_to_others=True)
        agent = view.queue.dispatchers[uuid]["main"]
        claims.append(numbers(agent.claim_jobs(4, memory)))
        view.abort()
    assert claims == [[4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15], [0, 1, 2, 3]]


def test_no_more_jobs_of_others_are_claimed_than_can_be_begun(
    shared: View, standing_clock: StandingClock, monkeypatch: Any
) -> None:
    memory = ClaimMemory(leaves_to_others=True)
    agent = shared.queue.dispatchers[FIRST]["main"]
    agent.size = 3
    assert numbers(agent.claim_jobs(100, memory, ahead=90)) == [0]
    monkeypatch.setattr(standing_clock.random, "shuffle", always_lane(1))
    shared.put(*range(2, 8))
    standing_clock.move(seconds=0.1)
    assert numbers(agent.claim_jobs(100, memory, ahead=90)) == [5, 6]
    assert numbers(agent.claim_jobs(100, memory, ahead=90)) == []
    assert not memory.left_to_others  # to look again has no use before one of them has ended


def test_jobs_that_others_do_not_come_to_are_claimed_ahead_with_ones_own(
    shared: View, standing_clock: StandingClock, monkeypatch: Any
) -> None:
    memory = ClaimMemory(leaves_to_others=True)
    agent = shared.queue.dispatchers[FIRST]["main"]
    agent.size = 1
    standing_clock.move(seconds=2)
    monkeypatch.setattr(standing_clock.random, "shuffle", always_lane(0))
    shared.put(2)
    shared.put(3)
    assert numbers(agent.claim_jobs(3, memory, ahead=90)) == [0, 1, 2]


def test_jobs_with_quotas_in_the_lanes_of_others_are_left_once_these_are_full(
    shared: View, standing_clock: StandingClock, monkeypatch: Any
) -> None:
    monkeypatch.setattr(standing_clock.random, "shuffle", always_lane(1))
    shared.queue.quotas.create("catalog", size=2)
    memory = ClaimMemory(leaves_to_others=True)
    for number in range(2, 6):
        shared.queue.put(numbered(number, "catalog"))
    standing_clock.move(seconds=0.1)
    assert claim(shared, memory) == [0]
    assert claim(shared, memory) == [1, 4, 5]


def test_lanes_of_others_are_looked_at_anew_after_a_second(
    shared: View, standing_clock: StandingClock, monkeypatch: Any
) -> None:
    memory = ClaimMemory(leaves_to_others=True)
    agent = shared.queue.dispatchers[FIRST]["main"]
    standing_clock.move(seconds=2)
    monkeypatch.setattr(standing_clock.random, "shuffle", always_lane(0))
    for number in (2, 3, 4):
        shared.put(number)
    standing_clock.move(seconds=0.1)
    assert numbers(agent.claim_jobs(1, memory)) == [0]
    looks = count_looks(monkeypatch)
    assert numbers(agent.claim_jobs(1, memory)) == [1]  # that it is there was known
    assert numbers(agent.claim_jobs(1, memory)) == [2]
    del looks[:]
    shared.queue.remove(next(job for job in shared.queue if job.args[0] == 3))
    standing_clock.move(seconds=OTHERS_KNOWN_FOR)
    assert numbers(agent.claim_jobs(1, memory)) == [4]
    assert looks


def count_looks(monkeypatch: Any) -> list[OfOthers]:
    looks: list[OfOthers] = []
    first = OfOthers._first
    monkeypatch.setattr(OfOthers, "_first", lambda each: looks.append(each) or first(each))
    return looks


def test_lanes_of_others_are_not_looked_at_while_ones_own_have_jobs_as_old(
    view: View, standing_clock: StandingClock, monkeypatch: Any
) -> None:
    for uuid in (FIRST, SECOND):
        view.dispatcher(uuid, size=4)
    monkeypatch.setattr(standing_clock.random, "shuffle", lane_after_lane)
    for number in range(64):
        view.put(number)
    standing_clock.move(seconds=0.1)
    memory = ClaimMemory(leaves_to_others=True)
    looks = count_looks(monkeypatch)
    assert claim(view, memory) == [0, 2, 4, 6]
    assert len(looks) == LANES  # the trees of jobs to be done at once or later, of half of them
    agent = view.queue.dispatchers[FIRST]["main"]
    for _ in range(3):
        agent.tidy(agent.held()[0][0], False)
        assert len(list(agent.claim_jobs(1, memory))) == 1
    assert len(looks) == LANES


def test_a_dispatcher_alone_takes_all_and_waits_for_nobody(view: View) -> None:
    record = view.dispatcher()
    view.put(0, 1, 2)
    assert view.queue.next_of_others(record.UUID) is None
    assert view.queue.fair_share(record.UUID) == 3


def test_a_fair_share_is_that_of_equals(shared: View) -> None:
    assert shared.queue.fair_share(FIRST) == 1
