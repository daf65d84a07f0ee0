# SPDX-License-Identifier: ZPL-2.1
"""Results of a run that nobody has made, and a tally for jobs that run in the test's process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from benchmarks import plan, tally
from benchmarks.cases import Case
from benchmarks.results import Results

FIGURES = (
    *("rate", "cpu_ms", "server_cpu_ms", "rss_mb", "pss_mb", "conflicts", "commits", "reruns"),
    *("drain_rate", "drain_cpu_ms", "put_rate", "put_cpu_ms"),
    *("median_ms", "p99_ms", "jobs", "records", "bytes", "cpu_percent", "seconds", "threads"),
)


def results_of(cases: Iterable[Case], *, rounds: int = 2) -> Results:
    """Results in which each figure of each case is 2.0 in the first round, and then 4.0 ..."""
    results = Results("python -m benchmarks run", rounds=rounds, begun="2026-01-01")
    for case in cases:
        for number in range(1, rounds + 1):
            results.add(case, number, dict.fromkeys(FIGURES, 2.0 * number))
    return results


@pytest.fixture
def results() -> Results:
    """Of all cases of the short run."""
    return results_of(plan.short())


@pytest.fixture
def own_tally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tally.Tally]:
    """The tally that jobs of this process count in."""
    made = tally.Tally.create(tmp_path / "tally")
    monkeypatch.setenv(tally.ENVIRONMENT, str(tmp_path / "tally"))
    monkeypatch.setattr(tally, "_mine", None)
    yield made
    monkeypatch.setattr(tally, "_mine", None)
