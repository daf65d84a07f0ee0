# SPDX-License-Identifier: ZPL-2.1
"""What is made of the figures of several rounds."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Summary:
    """The median of the rounds, and how far they lie apart."""

    median: float
    least: float
    most: float
    rounds: int

    def inverse(self) -> Summary:
        """The same for one through the value."""
        return Summary(1 / self.median, 1 / self.most, 1 / self.least, self.rounds)

    def times(self, factor: float) -> Summary:
        low, high = sorted((self.least * factor, self.most * factor))
        return Summary(self.median * factor, low, high, self.rounds)


def summary(values: Sequence[float]) -> Summary | None:
    """None if there are no values."""
    if not values:
        return None
    return Summary(statistics.median(values), min(values), max(values), len(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
