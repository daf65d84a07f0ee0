# SPDX-License-Identifier: ZPL-2.1
"""Until when a dispatcher may begin jobs after a ping."""

from __future__ import annotations

import pytest

from tests.support.clocks import StandingClock
from zasync.dispatcher.pulse import Ping, Pulse
from zasync.foundation import attempts, clock

pytestmark = pytest.mark.usefixtures("standing_clock")

DEFAULT = Ping(True, 15.0, 60.0)


def test_jobs_may_be_begun_until_a_ping_before_others_take_over(
    standing_clock: StandingClock,
) -> None:
    pulse = Pulse()
    assert pulse.is_known(), "without a queue there is nobody to take over"
    assert pulse.age() is None
    pulse.committed(clock.monotonic(), {"": DEFAULT})
    standing_clock.move(seconds=44)
    assert pulse.is_known()
    assert pulse.is_late()
    assert pulse.age() == 44
    standing_clock.move(seconds=1)
    assert not pulse.is_known()


def test_it_counts_from_the_beginning_of_the_transaction(standing_clock: StandingClock) -> None:
    began = clock.monotonic()
    standing_clock.move(seconds=45)
    pulse = Pulse()
    pulse.committed(began, {"": DEFAULT})
    assert not pulse.is_known()


def test_a_commit_without_a_new_ping_counts_for_nothing(standing_clock: StandingClock) -> None:
    pulse = Pulse()
    pulse.committed(clock.monotonic(), {"": DEFAULT})
    standing_clock.move(seconds=10)
    pulse.committed(clock.monotonic(), {"": Ping(False, 15.0, 60.0)})
    assert pulse.age() == 10


def test_the_oldest_ping_of_the_queues_that_are_worked_counts(
    standing_clock: StandingClock,
) -> None:
    pulse = Pulse()
    pulse.committed(clock.monotonic(), {"one": DEFAULT, "two": Ping(True, 5.0, 20.0)})
    assert pulse.interval == 5.0
    standing_clock.move(seconds=15)
    assert not pulse.is_known()
    pulse.committed(clock.monotonic(), {"one": Ping(False, 15.0, 60.0)})
    assert pulse.is_known()
    assert pulse.interval == 15.0


def test_an_interval_near_that_of_death_leaves_a_quarter() -> None:
    assert Ping(True, 30.0, 60.0).holds_for == 45.0
    assert Ping(True, 90.0, 60.0).holds_for == 45.0


def test_who_waits_for_a_ping_is_told_to_stop(standing_clock: StandingClock) -> None:
    class Told:
        def is_set(self) -> bool:
            return True

        def wait(self, timeout: float | None = None) -> bool:
            return True

    pulse = Pulse()
    pulse.committed(clock.monotonic() - 100, {"": DEFAULT})
    token = attempts.stop_signal.set(Told())
    try:
        with pytest.raises(attempts.Stopped):
            pulse.wait()
    finally:
        attempts.stop_signal.reset(token)
