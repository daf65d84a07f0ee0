# SPDX-License-Identifier: ZPL-2.1
"""A run: the rounds of a plan, one case after the other, until all is measured or time is up."""

from __future__ import annotations

import collections
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import plan
from benchmarks.cases import Case
from benchmarks.machine import without_paths
from benchmarks.measures import Bench, Figures, measure
from benchmarks.places import Missing, Places
from benchmarks.results import Results
from benchmarks.watching import Broken

Say = Callable[[str], None]
TROUBLE = (Broken, TimeoutError, subprocess.TimeoutExpired, OSError)

TRIES = 2  # rounds in which a case may fail


def run(
    cases: Sequence[Case],
    results: Results,
    path: Path,
    *,
    rounds: int,
    seconds: float,
    minutes: float,
    say: Say = print,
) -> bool:
    """Measure what `results` lacks, and save them to `path` after each case.

    Answers whether all was measured; after `minutes` no further case is begun.
    """
    deadline = time.monotonic() + minutes * 60
    todo = lacking(cases, results, rounds)
    # What is not here is asked for once, and again when a run is taken up.
    given_up: collections.Counter[str] = collections.Counter()
    with Places() as places:
        for index, (number, case) in enumerate(todo, 1):
            if given_up[case.key] >= TRIES:
                continue
            if time.monotonic() > deadline:
                say(f"time is up: {len(todo) - index + 1} of {len(todo)} measures are left out")
                return False
            bench = Bench(places, seconds, results.rates())
            begin = time.monotonic()
            try:
                figures = measure(case, bench)
            except Missing as reason:
                given_up[case.key] = TRIES
                said = f"missing: {without_paths(str(reason))}"
                results.lack(case, said)
            except TROUBLE as error:
                given_up[case.key] += 1
                said = f"failed: {without_paths(f'{type(error).__name__}: {error}')}"
                results.lack(case, said)
            else:
                results.add(case, number, figures)
                said = told(figures)
            took = results.took[case.key] = time.monotonic() - begin
            results.save(path)
            say(f"[{index}/{len(todo)}] round {number} {case.key}: {said} ({took:.1f} s)")
    return True


def lacking(cases: Sequence[Case], results: Results, rounds: int) -> list[tuple[int, Case]]:
    """The measures that `results` does not have yet, with their rounds."""
    return [
        (number, case)
        for number, round_ in enumerate(plan.rounds(cases, rounds), 1)
        for case in round_
        if not results.has(case, number)
    ]


def estimate(todo: Sequence[tuple[int, Case]], results: Results, seconds: float) -> float:
    """About how many minutes the measures of `todo` take."""
    each = [results.took.get(case.key) or plan.guessed(case, seconds) for _, case in todo]
    return sum(each) / 60


def told(figures: Figures) -> str:
    """The figure that a person looks for first."""
    for name, unit in _FIRST:
        if name in figures:
            return f"{figures[name]:,.{0 if unit == '/s' else 2}f}{unit}"
    return ", ".join(f"{name} {value:,.2f}" for name, value in list(figures.items())[:4])


_FIRST = (("rate", "/s"), ("drain_rate", "/s"), ("median_ms", " ms"), ("seconds", " s"))
