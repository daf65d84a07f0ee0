# SPDX-License-Identifier: ZPL-2.1
"""Which jobs of an agent are short enough to be committed together, and how many at once.

Learned from the runs in this process.  Called by the worker threads of one pool; a figure that is
lost between two of them does no harm.
"""

from __future__ import annotations

from typing import Any

MOST_KNOWN = 1000  # callables of which the duration is remembered
SMOOTHING = 0.2  # of how much a shorter run counts
SHORT = 0.002  # seconds; what is longer leaves room for threads that have nothing to do
VERY_SHORT = 0.0005  # seconds; several of those are no faster in several threads
FIRST_PENALTY, LONGEST_PENALTY = 4, 256  # runs alone after one that broke up its group


class Grouping:
    """What one pool knows of its jobs, by the names of their callables."""

    def __init__(self) -> None:
        self._spans: dict[Any, float] = {}
        self._alone: dict[Any, int] = {}  # so many more runs alone
        self._penalties: dict[Any, int] = {}
        self._most = MOST_KNOWN  # members; fewer after a group that had to be broken up

    def span(self, code: Any) -> float | None:
        """How many seconds a job with this callable may take; None: it is to be run alone."""
        return None if self._alone.get(code) else self._spans.get(code)

    def most(self, batch: int) -> int:
        """How many members a group may have."""
        return min(batch, self._most)

    def took(self, code: Any, seconds: float) -> None:
        """A job has run for so long."""
        if len(self._spans) >= MOST_KNOWN:
            self._spans.clear()
        known = self._spans.get(code, 0.0)
        self._spans[code] = max(seconds, known + SMOOTHING * (seconds - known))

    def ran_alone(self, code: Any, seconds: float) -> None:
        """A job has been run alone, and its callable has returned."""
        self.took(code, seconds)
        self._most = min(MOST_KNOWN, self._most + 1)
        left = self._alone.pop(code, 0)
        if left > 1:
            self._alone[code] = left - 1

    def ended(self, members: int, well: bool, culprit: Any) -> None:
        """A group of so many is committed, or else broken up because of `culprit`.

        None means that it is not known which: then groups become smaller.
        """
        if well:
            self._most = min(MOST_KNOWN, max(self._most, 2 * members))
        elif culprit is None:
            self._most = max(1, members // 2)
        else:
            self._keep_alone(culprit)

    def _keep_alone(self, code: Any) -> None:
        if len(self._penalties) >= MOST_KNOWN:
            self._penalties.clear()
            self._alone.clear()
        penalty = min(LONGEST_PENALTY, 2 * self._penalties.get(code, FIRST_PENALTY // 2))
        self._alone[code] = self._penalties[code] = penalty
