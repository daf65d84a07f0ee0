# SPDX-License-Identifier: ZPL-2.1
"""Whether others still know that this dispatcher lives, judged by its own monotonic clock.

Whoever has not committed a ping for nearly the death interval may be taken for dead at any moment,
and its jobs be run elsewhere.  Fencing keeps what such a run does out of the database; so that it
does nothing outside of it either, no job is begun then.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Mapping

from zasync.foundation import attempts, clock

LOOK_AGAIN = 0.5  # seconds between two looks of a thread that waits for the next ping


@dataclasses.dataclass(frozen=True)
class Ping:
    """What a poll said, and committed, in one queue; durations in seconds."""

    is_new: bool  # else the one before is recent enough
    interval: float
    death_interval: float

    @property
    def holds_for(self) -> float:
        """How long jobs may be begun after it: a ping, or a quarter, before others take over."""
        return self.death_interval - min(self.interval, self.death_interval / 4)


class Pulse:
    """The committed pings of one dispatcher.  Written by the polling thread, read by all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pings: dict[str, tuple[float, Ping]] = {}  # queue -> when (monotonic), what

    def committed(self, began: float, pings: Mapping[str, Ping]) -> None:
        """A transaction that began at `began` (monotonic) has committed a ping for each queue.

        Queues that are not among them are no longer worked.
        """
        with self._lock:
            self._pings = {
                name: (
                    began if ping.is_new or name not in self._pings else self._pings[name][0],
                    ping,
                )
                for name, ping in pings.items()
            }

    def is_known(self) -> bool:
        """Whether jobs may be begun: the others surely count us among the living."""
        now = clock.monotonic()
        return all(now < at + ping.holds_for for at, ping in self._all())

    def wait(self) -> None:
        """Wait until jobs may be begun.  `attempts.Stopped` if this thread is told to stop."""
        while not self.is_known():
            attempts.pause(LOOK_AGAIN)

    @property
    def interval(self) -> float:
        """Seconds after which the next ping is due, at the most."""
        return min((ping.interval for _at, ping in self._all()), default=math.inf)

    def age(self) -> float | None:
        """Seconds since the ping that is the oldest of the queues' last ones; None before."""
        now = clock.monotonic()
        return max((now - at for at, _ping in self._all()), default=None)

    def is_late(self) -> bool:
        """Whether two pings that were due have not been committed."""
        now = clock.monotonic()
        return any(now - at > 2 * ping.interval for at, ping in self._all())

    def _all(self) -> list[tuple[float, Ping]]:
        with self._lock:
            return list(self._pings.values())
