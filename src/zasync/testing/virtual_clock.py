# SPDX-License-Identifier: ZPL-2.1
"""A clock that stands still until it is told to move, for `zasync.foundation.clock`.

Only zasync's own time is ruled by it: its jobs' datetimes, polls, pings and pauses.
"""

from __future__ import annotations

import itertools
import random
import threading
from datetime import UTC, datetime
from typing import Any

from zasync.foundation import clock
from zasync.foundation.clock import EPOCH, MICROSECOND, Clock, Signal

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
"""The moment at which `setUpDatetime` begins."""

TICK = 0.01  # real seconds between two looks at what has no way to tell us
YIELD = 0.005  # real seconds that other threads get before the mover moves on

_seeds = itertools.count()


class VirtualClock(Clock):
    """Wall time and monotonic time that move together, and only when told to.

    It begins at `start` (None: at the present) and gives the same random numbers and UUIDs for
    the same `seed` (None: one that no other clock of this test has).  A thread that waits in it
    sleeps until another has moved time; the thread that last moved time moves it by waiting,
    since nobody else would.
    """

    def __init__(self, start: datetime | None = None, seed: int | None = None) -> None:
        before = clock.current()
        self.random = random.Random(next(_seeds) if seed is None else seed)
        self.replaced: Clock = before.replaced if isinstance(before, VirtualClock) else before
        self._elapsed = micros(before.monotonic())
        self._offset = clock.to_micros(start or before.now()) - self._elapsed
        self._mover = threading.get_ident()
        self._sleepers: dict[int, int] = {}  # thread -> when it wants to be woken
        self._retired = False
        self._moved = threading.Condition()

    def now(self) -> datetime:
        return EPOCH + (self._elapsed + self._offset) * MICROSECOND

    def monotonic(self) -> float:
        return self._elapsed / 1_000_000

    @property
    def elapsed(self) -> int:
        """The monotonic time in microseconds."""
        return self._elapsed

    # Moving

    def advance(self, seconds: float) -> None:
        """Move time on by `seconds`."""
        self.advance_to(self._elapsed + micros(seconds))

    def advance_to(self, elapsed: int) -> None:
        """Move time on until `elapsed` has that value; never back."""
        with self._moved:
            self._mover = threading.get_ident()
            self._elapsed = max(self._elapsed, elapsed)
            for thread, due in list(self._sleepers.items()):
                if due <= self._elapsed:
                    del self._sleepers[thread]
            self._moved.notify_all()

    def set_now(self, moment: datetime) -> None:
        """Make it `moment`.  Back in time goes the wall clock alone, as in life."""
        ahead = clock.to_micros(clock.aware(moment, "moment")) - self._elapsed - self._offset
        if ahead > 0:
            self.advance_to(self._elapsed + ahead)
        else:
            self._offset += ahead

    # Waiting

    def wait(self, signal: Signal, seconds: float | None) -> bool:
        if seconds is None:
            return signal.wait(None)
        if threading.get_ident() == self._mover:
            return self._move_by_waiting(signal, seconds)
        me = threading.get_ident()
        with self._moved:
            due = self._sleepers[me] = self._elapsed + micros(seconds)
            while not (signal.is_set() or self._retired or self._elapsed >= due):
                self._moved.wait(TICK)
            self._sleepers.pop(me, None)
        return signal.is_set()

    def wait_idly(self, signal: Signal, seconds: float) -> bool:
        """Wait for time to move without being one for whom it is moved."""
        due = self._elapsed + micros(seconds)
        with self._moved:
            while not (signal.is_set() or self._retired or self._elapsed >= due):
                self._moved.wait(TICK)
        if self._retired:  # time goes by itself now, as far as we know
            return signal.wait(seconds)
        return signal.is_set()

    def _move_by_waiting(self, signal: Signal, seconds: float) -> bool:
        if not signal.wait(min(seconds, YIELD)):
            self.advance(seconds)
        return signal.is_set()

    @property
    def asleep(self) -> int:
        """How many threads wait for time to move."""
        return len(self._sleepers)

    def next_waking(self) -> int | None:
        """When (monotonic, in microseconds) the first of them wants to be woken, or None."""
        with self._moved:
            return min(self._sleepers.values(), default=None)

    def retire(self) -> None:
        """Nobody will move time any more: let go of those who wait."""
        with self._moved:
            self._retired = True
            self._moved.notify_all()


def micros(seconds: float) -> int:
    """Whole microseconds; so sums of times are exact."""
    return max(0, round(seconds * 1_000_000))


def current() -> VirtualClock:
    """The virtual clock in force, put in force at the present moment if there is none."""
    found = clock.current()
    return found if isinstance(found, VirtualClock) else put_in_force(VirtualClock())


def put_in_force(virtual: VirtualClock) -> VirtualClock:
    """Have `virtual` rule the time of zasync."""
    previous = clock.install(virtual)
    if isinstance(previous, VirtualClock):
        previous.retire()
    return virtual


def end() -> None:
    """Put the clock back in force that a virtual one has replaced."""
    found = clock.current()
    if isinstance(found, VirtualClock):
        clock.install(found.replaced)
        found.retire()


def set_now(dt: datetime | None = None) -> None:
    """Make it `dt` (aware; None: the real present), from where time goes on only when told to."""
    virtual = current()
    virtual.set_now(virtual.replaced.now() if dt is None else dt)


def setUpDatetime(test: Any = None) -> None:
    """Make time stand still at `START`, the same random numbers to come each time.

    `test` is not looked at: this fits where a test framework wants a function of the test.
    """
    global _seeds
    _seeds = itertools.count()
    put_in_force(VirtualClock(START))


def tearDownDatetime(test: Any = None) -> None:
    """Have time go by itself again."""
    end()
