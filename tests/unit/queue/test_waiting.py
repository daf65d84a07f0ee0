# SPDX-License-Identifier: ZPL-2.1
"""How the jobs lie: lanes, runs, and what is kept out of the database."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from tests.support.clocks import StandingClock
from tests.support.queues import View, always_lane, lane_after_lane, numbered, numbers
from zasync.queue import Queue, Waiting
from zasync.queue.waiting import LANE_MASK, LANES, LANES_WITH_QUOTAS, RUN_LENGTH


def lane_of(job: Any) -> int:
    return int(job._place.key & LANE_MASK)


@pytest.fixture
def lanes_in_turn(standing_clock: StandingClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing_clock.random, "shuffle", lane_after_lane)


def test_the_puts_of_one_transaction_go_to_one_lane_until_a_run_is_full(
    view: View, lanes_in_turn: None
) -> None:
    jobs = [view.queue.put(numbered(number)) for number in range(2 * RUN_LENGTH)]
    assert [lane_of(job) for job in jobs] == [0] * RUN_LENGTH + [1] * RUN_LENGTH


def test_each_transaction_takes_a_lane_of_its_own(view: View, lanes_in_turn: None) -> None:
    lanes = Counter(lane_of(job) for number in range(2 * LANES) for job in view.put(number))
    assert lanes == {lane: 2 for lane in range(LANES)}


def test_a_transaction_that_is_tried_again_takes_another_lane(
    view: View, lanes_in_turn: None
) -> None:
    lanes = set()
    for number in range(3):
        lanes.add(lane_of(view.queue.put(numbered(number))))
        view.abort()
    assert lanes == {0, 1, 2}


def test_a_queue_that_is_not_stored_fills_runs_too(lanes_in_turn: None) -> None:
    queue = Queue()
    jobs = [queue.put(numbered(number)) for number in range(RUN_LENGTH + 1)]
    assert Counter(lane_of(job) for job in jobs) == {0: RUN_LENGTH, 1: 1}


def test_jobs_with_quotas_lie_in_fewer_lanes_than_jobs_without(
    view: View, lanes_in_turn: None
) -> None:
    view.queue.quotas.create("catalog", size=100)
    for number in range(2 * LANES):
        view.queue.put(numbered(number, "catalog"))
        view.commit()
    assert {lane_of(job) for job in view.queue} == set(range(LANES_WITH_QUOTAS))


def test_two_jobs_never_share_a_key(
    open_view: Any, standing_clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing_clock.random, "shuffle", always_lane(3))
    one, other = open_view(), open_view()
    later = standing_clock.now() + timedelta(hours=1)
    one.put(1)
    one.put(2, begin_after=later)
    one.queue.putBack(numbered(3))
    one.commit()
    other.begin()
    other.put(4)
    other.put(5, begin_after=later)
    other.queue.putBack(numbered(6))
    other.commit()
    assert numbers(other.queue) == [6, 3, 1, 4, 2, 5]
    assert len({job._place for job in other.queue}) == 6


def test_taking_out_what_is_not_there_is_a_key_error(view: View) -> None:
    (job,) = view.put(1)
    place = job._place
    view.queue.pull()
    with pytest.raises(KeyError):
        view.queue._waiting.discard(place)
    assert len(view.queue) == 0


def test_what_is_put_back_goes_to_a_free_key_before_that_of_another_connection(
    standing_clock: StandingClock,
) -> None:
    waiting = Waiting()
    first = waiting.add_first("first", ())
    waiting._v_first = 0
    second = waiting.add_first("second", ())
    moved = waiting.move("first", first, ("catalog",))
    other = waiting.add_first("other", ("catalog",))
    assert [entry.job for entry in waiting.entries()] == ["other", "second", "first"]
    assert second.key == moved.key - 1
    assert other.key == moved.key - 2


def test_a_move_to_a_key_that_is_taken_goes_before_what_lies_there(
    standing_clock: StandingClock,
) -> None:
    waiting = Waiting()
    first = waiting.add_first("first", ())
    waiting._v_first = 0
    waiting.add_first("second", ("catalog",))
    waiting.move("first", first, ("catalog",))
    assert [entry.job for entry in waiting.entries()] == ["first", "second"]


def test_the_head_is_not_read_past_a_line_whose_quota_is_full(standing_clock: Any) -> None:
    waiting = Waiting()
    for number in range(5):
        waiting.add(number, ("a", "b"), None)
        waiting.add(10 + number, (), None)
    assert [entry.job for entry in waiting.entries(skip={"b"})] == [10, 11, 12, 13, 14]


def test_what_is_remembered_of_moments_is_bounded_and_loses_no_job(
    standing_clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zasync.queue.waiting.MOMENTS_KEPT", 2)
    waiting = Waiting()
    moments = [5, 6, 7, 5, 6, 7, 5]
    for moment in moments:
        waiting.add(moment, (), moment)
    assert len(waiting._v_later) <= 2
    assert sorted(entry.job for entry in waiting.entries()) == sorted(moments)
