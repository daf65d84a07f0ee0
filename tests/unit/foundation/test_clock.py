# SPDX-License-Identifier: ZPL-2.1
"""The one clock, real and installed."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from uuid import UUID

import pytest

from tests.support.clocks import StandingClock
from zasync.foundation import clock


def test_the_real_clock_tells_aware_utc_and_never_goes_back() -> None:
    real = clock.Clock()
    assert abs(real.now() - datetime.now(UTC)) < timedelta(minutes=1)
    assert real.now().tzinfo is UTC
    assert real.monotonic() <= real.monotonic()


def test_the_real_clock_waits_for_a_signal_or_for_the_time() -> None:
    signal = threading.Event()
    assert not clock.Clock().wait(signal, 0)
    signal.set()
    assert clock.Clock().wait(signal, None)


def test_identifiers_come_from_the_clocks_own_chance(standing_clock: StandingClock) -> None:
    other = StandingClock()
    uuid = standing_clock.uuid4()
    assert isinstance(uuid, UUID)
    assert uuid.version == 4
    assert uuid == other.uuid4()
    assert standing_clock.token() == other.token()


def test_tokens_are_positive_odd_and_differ(standing_clock: StandingClock) -> None:
    tokens = [standing_clock.token() for _ in range(100)]
    assert len(set(tokens)) == 100
    assert all(0 < token < 2**62 and token % 2 for token in tokens)


def test_the_installed_clock_is_the_one_that_is_asked(standing_clock: StandingClock) -> None:
    assert clock.current() is standing_clock
    assert clock.now() == standing_clock.moment
    assert clock.monotonic() == standing_clock.seconds
    assert clock.now_micros() == clock.to_micros(standing_clock.moment)
    later = StandingClock(datetime(2030, 1, 1, tzinfo=UTC))
    assert clock.install(later) is standing_clock
    assert clock.now() == datetime(2030, 1, 1, tzinfo=UTC)
    assert clock.install(standing_clock) is later


def test_waiting_without_a_signal_is_cut_short_by_nothing(standing_clock: StandingClock) -> None:
    before = clock.now()
    assert not clock.wait(None, 5)
    assert clock.now() - before == timedelta(seconds=5)


def test_waiting_for_a_signal_asks_the_installed_clock(standing_clock: StandingClock) -> None:
    signal = threading.Event()
    signal.set()
    assert clock.wait(signal, 5)
    assert standing_clock.waits == [5]


@pytest.mark.parametrize(
    ("moment", "micros"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
        (datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC), 1_000_005),
        (datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), -1),
        (datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), 0),
    ],
)
def test_moments_are_kept_in_whole_microseconds(moment: datetime, micros: int) -> None:
    assert clock.to_micros(moment) == micros
    assert clock.from_micros(micros) == moment
    assert clock.from_micros(micros).tzinfo is UTC


@pytest.mark.parametrize("year", [1, 1970, 2038, 9999])
def test_every_year_goes_both_ways_to_the_microsecond(year: int) -> None:
    moment = datetime(year, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    assert clock.from_micros(clock.to_micros(moment)) == moment


class Indifferent(tzinfo):
    """A time zone that does not know its offset: a datetime with it is naive all the same."""

    def utcoffset(self, moment: datetime | None) -> None:
        return None


@pytest.mark.parametrize("zone", [None, Indifferent()])
def test_a_naive_moment_is_refused_by_the_name_it_was_given_as(zone: tzinfo | None) -> None:
    with pytest.raises(ValueError, match="begin_after must be timezone-aware"):
        clock.aware(datetime(2026, 1, 1, tzinfo=zone), "begin_after")


def test_an_aware_moment_is_turned_to_utc() -> None:
    moment = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert clock.aware(moment, "it") == moment
    assert clock.aware(moment, "it").tzinfo is UTC
