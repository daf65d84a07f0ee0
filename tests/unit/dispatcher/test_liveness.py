# SPDX-License-Identifier: ZPL-2.1
"""Who lives is judged by change during one's own monotonic time, whatever the wall clocks say."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest

from tests.support.clocks import StandingClock
from zasync.dispatcher.liveness import Observer
from zasync.foundation import clock
from zasync.queue import Queue

DEATH = timedelta(seconds=60)


@pytest.fixture
def record(standing_clock: StandingClock) -> Any:
    queue = Queue()
    record = queue.dispatchers.register(uuid.UUID(int=1))
    record.activate()
    return record


@pytest.mark.parametrize("hours", [1, -1, 24 * 365])
def test_a_wall_clock_that_jumps_kills_nobody(
    record: Any, standing_clock: StandingClock, hours: int
) -> None:
    observer = Observer()
    assert not observer.is_dead(record)
    standing_clock.moment += timedelta(hours=hours)  # the monotonic clock knows nothing of it
    assert not observer.is_dead(record)


@pytest.mark.parametrize("minutes", [10, -10])
def test_a_dispatcher_whose_clock_is_wrong_lives_as_long_as_its_ping_changes(
    record: Any, standing_clock: StandingClock, minutes: int
) -> None:
    observer = Observer()
    for _ in range(10):
        record.last_ping.value = clock.now() + timedelta(minutes=minutes)
        assert not observer.is_dead(record)
        standing_clock.move(seconds=45)


def test_a_dispatcher_whose_ping_stands_still_for_its_death_interval_is_dead(
    record: Any, standing_clock: StandingClock
) -> None:
    observer = Observer()
    assert not observer.is_dead(record)  # seen for the first time: the interval begins now
    standing_clock.move(seconds=DEATH.total_seconds())
    assert not observer.is_dead(record)
    standing_clock.move(seconds=0.1)
    assert observer.is_dead(record)


def test_one_who_comes_later_gives_everybody_the_whole_interval(
    record: Any, standing_clock: StandingClock
) -> None:
    standing_clock.move(hours=5)
    assert not Observer().is_dead(record)
