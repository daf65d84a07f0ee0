# SPDX-License-Identifier: ZPL-2.1
"""The one clock: wall time, monotonic time, waiting, random numbers and identifiers.

Nothing else in zasync asks for the time or for chance, so that a test or a simulation that
installs a clock of its own rules them all.  `zasync.testing` has a clock that stands still.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Signal(Protocol):
    """What a waiter can be woken by: `threading.Event` fits."""

    def is_set(self) -> bool: ...

    def wait(self, timeout: float | None = None) -> bool: ...


class Clock:
    """Real time.  Subclass it to make a virtual one, and `install` that."""

    def __init__(self) -> None:
        self.random = random.Random()

    def now(self) -> datetime:
        """The wall time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some moment, never going back."""
        return time.monotonic()

    def wait(self, signal: Signal, seconds: float | None) -> bool:
        """Wait for `signal` for at most `seconds` of this clock; answers whether it was set."""
        return signal.wait(seconds)

    def wait_idly(self, signal: Signal, seconds: float) -> bool:
        """Like `wait`, for a thread that only watches: nobody has to wait for it."""
        return signal.wait(seconds)

    def uuid4(self) -> uuid.UUID:
        """A random UUID."""
        return uuid.UUID(int=self.random.getrandbits(128), version=4)

    def token(self) -> int:
        """A random positive 62-bit integer that names one attempt or incarnation."""
        return self.random.getrandbits(62) | 1


_current = Clock()
_never = threading.Event()


def current() -> Clock:
    """The clock in force."""
    return _current


def install(clock: Clock) -> Clock:
    """Put `clock` in force for the whole process; answers the one that was."""
    global _current
    previous, _current = _current, clock
    return previous


def now() -> datetime:
    """The wall time of the clock in force."""
    return _current.now()


def monotonic() -> float:
    """The monotonic time, in seconds, of the clock in force."""
    return _current.monotonic()


def wait(signal: Signal | None, seconds: float | None) -> bool:
    """Wait for `signal` (None: nothing can cut it short) for at most `seconds`."""
    return _current.wait(_never if signal is None else signal, seconds)


def wait_idly(signal: Signal, seconds: float) -> bool:
    """Wait for `signal` for at most `seconds`, in a thread that nobody has to wait for."""
    return _current.wait_idly(signal, seconds)


def to_micros(moment: datetime) -> int:
    """Whole microseconds since 1970 of an aware datetime: how times are stored."""
    return (moment - EPOCH) // MICROSECOND


def from_micros(micros: int) -> datetime:
    """The aware UTC datetime of `to_micros`."""
    return EPOCH + timedelta(microseconds=micros)


def now_micros() -> int:
    """The wall time of the clock in force in microseconds since 1970."""
    if type(_current) is Clock:
        return time.time_ns() // 1000  # the same, faster
    return to_micros(_current.now())


def aware(moment: datetime, name: str) -> datetime:
    """`moment` in UTC.  ValueError, naming `name`, if it has no time zone."""
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise ValueError(
            f"{name} must be timezone-aware, not the naive {moment!r};"
            " use for example datetime.now(timezone.utc)"
        )
    return moment.astimezone(UTC)
