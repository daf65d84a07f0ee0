# SPDX-License-Identifier: ZPL-2.1
"""Medians, ratios and targets, and the file that they are made from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import plan
from benchmarks.cases import Case
from benchmarks.figures import Summary, percentile, summary
from benchmarks.results import Results
from benchmarks.targets import AT_LEAST, AT_MOST, Check, checks, speed, written
from tests.benchmark.conftest import results_of

OURS = Case("drain")
THEIRS = Case("drain", "huey", "redis")


def with_rates(**rates: dict[int, float]) -> Results:
    results = Results()
    for name, values in rates.items():
        for number, rate in values.items():
            results.add({"ours": OURS, "theirs": THEIRS}[name], number, {"rate": rate})
    return results


def test_a_summary_has_the_median_and_the_extremes() -> None:
    assert summary([5.0, 1.0, 2.0]) == Summary(2.0, 1.0, 5.0, 3)
    assert summary([]) is None


def test_the_inverse_of_a_summary_swaps_the_extremes() -> None:
    assert Summary(2.0, 1.0, 4.0, 3).inverse() == Summary(0.5, 0.25, 1.0, 3)


def test_a_percentile_is_one_of_the_values() -> None:
    values = list(range(1, 101))

    assert (percentile(values, 50), percentile(values, 99)) == (50, 99)
    assert percentile([7.0], 99) == 7.0


def test_a_ratio_compares_within_the_rounds() -> None:
    results = with_rates(ours={1: 10.0, 2: 40.0, 3: 30.0}, theirs={1: 5.0, 2: 10.0})

    assert results.ratio(OURS.key, THEIRS.key) == Summary(3.0, 2.0, 4.0, 2)


def test_without_a_common_round_a_ratio_is_that_of_the_medians() -> None:
    results = with_rates(ours={1: 12.0, 2: 8.0}, theirs={3: 5.0})

    assert results.ratio(OURS.key, THEIRS.key) == Summary(2.0, 2.0, 2.0, 1)
    assert results.ratio(OURS.key, "drain/nobody") is None


def test_results_are_the_same_after_they_were_saved(tmp_path: Path) -> None:
    results = results_of([OURS, THEIRS])
    results.lack(Case("put"), "missing: a disk")
    results.save(tmp_path / "new" / "short.json")

    assert Results.load(tmp_path / "new" / "short.json") == results


def test_results_of_another_format_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"format": 0}))

    with pytest.raises(ValueError, match=r"old\.json was written by another version"):
        Results.load(path)


def test_what_was_measured_after_all_is_no_longer_missing() -> None:
    results = Results()
    results.lack(OURS, "failed: at first")
    results.add(OURS, 1, {"rate": 1.0})

    assert not results.missing
    assert results.has(OURS, 1)
    assert not results.has(OURS, 2)


@pytest.mark.parametrize(
    ("sense", "found", "verdict"),
    [
        (AT_LEAST, 10.0, "met"),
        (AT_LEAST, 9.9, "not met"),
        (AT_MOST, 10.0, "met"),
        (AT_MOST, 10.1, "not met"),
        (AT_MOST, None, "not measured"),
    ],
)
def test_a_target_is_met_by_the_median(sense: str, found: float | None, verdict: str) -> None:
    median = None if found is None else Summary(found, 0.0, 99.0, 3)

    assert Check("it", sense, 10.0, "ms", median).verdict == verdict


def test_nothing_is_met_by_a_run_that_measured_nothing() -> None:
    assert {check.verdict for check in checks(Results())} == {"not measured"}


def test_the_full_run_measures_all_that_has_a_target() -> None:
    results = results_of(plan.full())

    assert [check.what for check in checks(results) if check.met is None] == []


def test_the_short_run_measures_most_of_it(results: Results) -> None:
    left_out = [check.what for check in checks(results) if check.met is None]

    assert left_out == [
        "cost per job, 100,000 scheduled for later to 100 waiting",
        "cost per job, 50,000 that the agent's filter refuses to 100 waiting",
        "cost per job, 50,000 behind 100 full quotas to 100 waiting",
    ]


def test_targets_are_computed_from_the_figures() -> None:
    raw, file = Case("raw", "ZODB"), Case("drain")
    results = Results()
    results.add(raw, 1, {"rate": 3000.0})
    results.add(file, 1, {"rate": 1500.0})
    first = checks(results)[0]

    assert (first.target, first.value, first.verdict) == ("≥ 0.43x", "0.50x", "met")


def test_an_absolute_rate_stands_beside_its_part_of_the_smallest_possible_queue() -> None:
    results = Results()
    results.add(Case("drain", mode="batch"), 1, {"rate": 6000.0})
    results.add(Case("floor", "ZODB"), 1, {"drain_rate": 10_000.0, "put_rate": 30_000.0})
    results.add(Case("put", amount=100), 1, {"rate": 12_000.0})

    by_name = {check.what: check for check in checks(results)}
    drain, put = "drain, group settle, FileStorage", "put, 100 per transaction, FileStorage"
    part = ": to the smallest possible queue"

    assert [(by_name[name].value, by_name[name].verdict) for name in (drain, drain + part)] == [
        ("6,000/s", "not met"),
        ("0.60x", "met"),
    ]
    assert [(by_name[name].value, by_name[name].verdict) for name in (put, put + part)] == [
        ("12,000/s", "not met"),
        ("0.40x", "not met"),
    ]


def test_the_parts_are_those_that_the_targets_meant_where_they_were_set() -> None:
    bounds = [
        round(check.bound, 3)
        for check in checks(Results())
        if check.what.endswith("to the smallest possible queue")
    ]

    assert bounds == [0.485, 0.386, 0.358, 0.436]


def test_only_rates_and_times_are_easier_on_a_faster_machine() -> None:
    marked = {check.unit for check in checks(Results()) if check.is_of_the_machine}

    assert marked == {"/s", "ms"}


def test_this_machine_is_set_in_relation_to_that_of_the_targets() -> None:
    results = Results()
    assert speed(results) == ""

    results.add(Case("raw", "ZODB"), 1, {"rate": 1785.0})
    assert speed(results) == "1,785 of 3,570 raw commits a second (0.50x)"

    results.add(Case("floor", "ZODB"), 1, {"drain_rate": 10_300.0})
    assert "10,300 of 20,600 jobs by the smallest possible queue a second (0.50x)" in speed(results)


def test_figures_are_written_as_a_person_reads_them() -> None:
    assert written(12345.6, "/s") == "12,346/s"
    assert written(12.34, "ms") == "12.3 ms"
    assert written(0.5, "x") == "0.50x"
