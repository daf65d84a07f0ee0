# SPDX-License-Identifier: ZPL-2.1
"""A clock that stands still until a test moves it, and whose waits are over at once."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from zasync.foundation import clock


class StandingClock(clock.Clock):
    """Wall and monotonic time move only by `move` and `wait`; `waits` lists what was waited."""

    def __init__(self, start: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)) -> None:
        super().__init__()
        self.random = random.Random(2026)
        self.moment = start
        self.seconds = 1000.0
        self.waits: list[float | None] = []

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.seconds

    def wait(self, signal: clock.Signal, seconds: float | None) -> bool:
        """Let the time pass, unless the signal is set; answers whether it is."""
        self.waits.append(seconds)
        if not signal.is_set() and seconds is not None:
            self.move(seconds=seconds)
        return signal.is_set()

    def move(self, **span: float) -> datetime:
        """Move the times by a span, given like that of a timedelta; answers the wall time.

        Only the wall time can be moved back.
        """
        by = timedelta(**span)
        self.moment += by
        self.seconds += max(0.0, by.total_seconds())
        return self.moment
