# SPDX-License-Identifier: ZPL-2.1
"""Which cases there are, and in what order they are measured."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks import measures, plan, tables, work
from benchmarks.cases import Case, Selection
from benchmarks.places import DURABILITY
from benchmarks.subjects import PEERS, SUBJECTS

PLANS = pytest.mark.parametrize("cases", [plan.short, plan.full], ids=["short", "full"])


@PLANS
def test_each_case_has_a_key_of_its_own(cases: Callable[[], list[Case]]) -> None:
    keys = [case.key for case in cases()]

    assert len(keys) == len(set(keys))


@PLANS
def test_each_case_can_be_measured_and_named(cases: Callable[[], list[Case]]) -> None:
    for case in cases():
        assert case.measure in measures._MEASURES
        assert case.subject == "ZODB" or case.subject in SUBJECTS
        assert case.storage == "none" or case.storage in DURABILITY
        assert case.storage in tables.NAMES
        assert case.work in tables.WORKS
        assert case.work == "fan_out" or hasattr(work, case.work)


@PLANS
def test_what_a_case_takes_is_guessed(cases: Callable[[], list[Case]]) -> None:
    assert all(1 <= plan.guessed(case, 0.5) < 30 for case in cases())


def test_the_full_run_has_all_peers_where_they_can_be() -> None:
    drained = {(case.subject, case.storage) for case in plan.full() if case.measure == "drain"}

    assert {(peer.name, storage) for peer in PEERS for storage in peer.storages} <= drained


def test_the_full_run_has_what_the_short_one_has() -> None:
    assert {case.key for case in plan.short()} <= {case.key for case in plan.full()}


def test_ours_and_theirs_take_turns() -> None:
    drains = [case for case in plan.short() if case.measure == "drain" and case.processes == 1]
    first = [case.subject == "zasync" for case in drains][:12]

    assert first == [True, False] * 6


def test_each_round_begins_elsewhere_and_leaves_out_what_has_had_its_own() -> None:
    cases = [Case("drain"), Case("put"), Case("cost", rounds=1), Case("raw")]

    first, second = plan.rounds(cases, 2)

    assert first == cases
    assert second == [Case("raw"), Case("drain"), Case("put")]


def test_a_selection_keeps_what_fits_all_of_it() -> None:
    selection = Selection(measures=("drain",), storages=("redis", "filestorage"), peers=("celery",))

    chosen = {(case.subject, case.storage) for case in selection.of(plan.full())}

    assert chosen == {
        ("zasync", "filestorage"),
        ("celery", "redis"),
    }


def test_no_peers_leaves_zasync_and_the_yardstick() -> None:
    chosen = {case.subject for case in Selection(peers=()).of(plan.short())}

    assert chosen == {"zasync", "ZODB"}
