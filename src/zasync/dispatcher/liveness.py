# SPDX-License-Identifier: ZPL-2.1
"""Which dispatchers live, judged by one that watches: by change, never by comparing clocks.

A sibling is dead when its ping has not changed during the death interval of *our* monotonic
clock.  So neither skew between machines nor a clock that jumps can kill anybody.
"""

from __future__ import annotations

from typing import Any

from zasync.foundation import clock
from zasync.foundation.process import ProcessIdentity, certainly_gone, certainly_running


class Observer:
    """Remembers since when each sibling's ping has been what it is."""

    def __init__(self) -> None:
        self._seen: dict[tuple[Any, int], tuple[Any, float]] = {}
        self._first_ping: dict[tuple[Any, int], Any] = {}  # of those that have our UUID

    def is_dead(self, record: Any) -> bool:
        """Whether the activated `record` has shown no sign of life for its death interval."""
        key = (record.parent.name, record.UUID.int)
        sign = (record.incarnation, record.activated, record.last_ping.value)
        now = clock.monotonic()
        seen = self._seen.get(key)
        if seen is None or seen[0] != sign:
            self._seen[key] = (sign, now)
            return False
        return bool(now - seen[1] > record.ping_death_interval.total_seconds())

    def is_former_self(self, record: Any) -> bool:
        """Whether what activated `record`, which has our UUID, surely runs no more."""
        if record.process is not None and certainly_gone(
            ProcessIdentity.from_state(record.process)
        ):
            return True
        return self.is_dead(record)

    def is_twin(self, record: Any) -> bool:
        """Whether what activated `record`, which has our UUID, surely runs at this moment.

        Either its process is seen to, or its ping has changed since we saw it first.  Until one
        of the two is so, it may have been us.
        """
        if record.process is not None and certainly_running(
            ProcessIdentity.from_state(record.process)
        ):
            return True
        key = (record.parent.name, record.UUID.int)
        first = self._first_ping.setdefault(key, record.last_ping.value)
        return bool(first != record.last_ping.value)
