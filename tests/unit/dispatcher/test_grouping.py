# SPDX-License-Identifier: ZPL-2.1
"""What a pool remembers of the durations of its jobs: bounded, however many callables there are."""

from __future__ import annotations

import pytest

from zasync.dispatcher import grouping
from zasync.dispatcher.grouping import Grouping

FEW = 3
MANY = range(10)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Grouping:
    monkeypatch.setattr(grouping, "MOST_KNOWN", FEW)
    return Grouping()


def test_the_durations_of_the_last_callables_are_remembered_and_of_few(known: Grouping) -> None:
    for code in MANY:
        known.took(code, 0.001)

    remembered = [code for code in MANY if known.span(code) is not None]
    assert MANY[-1] in remembered
    assert len(remembered) <= FEW


def test_what_broke_up_a_group_is_remembered_and_of_few(known: Grouping) -> None:
    for code in MANY:
        known.ended(2, False, code)

    alone = []
    for code in MANY:
        known.took(code, 0.001)
        if known.span(code) is None:
            alone.append(code)
    assert MANY[-1] in alone
    assert len(alone) <= FEW


def test_a_long_run_counts_at_once_and_a_short_one_little_by_little() -> None:
    known = Grouping()
    known.took("job", 0.001)
    known.took("job", 1.0)
    assert known.span("job") == 1.0

    known.took("job", 0.001)
    after = known.span("job")
    assert after is not None
    assert 0.5 < after < 1.0


def test_what_broke_up_a_group_runs_alone_for_longer_each_time() -> None:
    known = Grouping()

    def runs_alone() -> int:
        known.ended(2, False, "job")
        runs = 0
        while known.span("job") is None:
            known.ran_alone("job", 0.001)
            runs += 1
        return runs

    times = [runs_alone() for _ in range(9)]
    assert times == sorted(times)
    assert times[0] < times[-1] == times[-2]


def test_a_group_that_is_committed_lets_the_next_ones_grow_again() -> None:
    known = Grouping()
    known.ended(8, False, None)
    small = known.most(100)
    assert small < 8

    known.ended(small, True, None)
    assert known.most(100) > small
