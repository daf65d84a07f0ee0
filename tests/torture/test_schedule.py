# SPDX-License-Identifier: ZPL-2.1
"""What a torture run is going to do follows from its seed, and is as much as is asked of it."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from torture import clients, nemesis, report
from torture.checker import DOUBLED, Findings, Recovery
from torture.lines import Lines, read
from torture.servers import Sqlite


def test_the_same_seed_makes_the_same_schedule_and_another_one_another() -> None:
    one = nemesis.schedule(nemesis.DEFAULTS, 420, seed=1)
    assert one == nemesis.schedule(nemesis.DEFAULTS, 420, seed=1)
    assert one != nemesis.schedule(nemesis.DEFAULTS, 420, seed=2)


def test_more_is_planned_than_is_required_and_all_within_the_time() -> None:
    faults = nemesis.schedule(nemesis.DEFAULTS, 420, seed=1)
    planned = Counter(fault.kind for fault in faults)
    assert all(planned[kind] >= count for kind, count in nemesis.REQUIRED.items())
    assert all(0 <= fault.at <= 420 for fault in faults)


def test_what_a_run_of_two_thousand_jobs_must_do_is_what_is_asked() -> None:
    _, required = nemesis.counts(1.0, set())
    assert required[nemesis.KILL] == 60
    assert required[nemesis.SERVER] == 6
    assert required[nemesis.CUT] == 20
    assert required[nemesis.HOLE] == required[nemesis.ZOMBIE] == 10
    assert required[nemesis.JUMP] == 6


def test_a_storage_without_server_and_network_is_spared_their_faults(tmp_path: Path) -> None:
    planned, required = nemesis.counts(0.1, nemesis.impossible(Sqlite(tmp_path)))
    assert planned.keys() == required.keys()
    assert not planned.keys() & {nemesis.CUT, nemesis.HOLE, nemesis.SERVER, nemesis.FULL}
    assert required[nemesis.KILL] == 6


def test_orders_make_as_many_jobs_as_are_wanted_each_under_its_own_name() -> None:
    orders = clients.orders(2000, random.Random(1))
    effects = [effect for order in orders for effect in order.effects]
    assert len(effects) >= 2000
    assert len(set(effects)) == len(effects)
    assert orders == clients.orders(2000, random.Random(1))
    assert {order.kind for order in orders} == set(clients.SHARES)


def test_another_try_is_another_order_with_effects_of_its_own() -> None:
    order = clients.Order("fan", "fan-1", 7, ("fan-1/0", "fan-1/in"), ("fan-1/always",))
    again = order.renamed("~2")
    assert again.name == "fan-1~2"
    assert again.effects == ("fan-1~2/0", "fan-1~2/in")
    assert again.callbacks == ("fan-1~2/always",)
    assert again.seed == order.seed


def test_lines_of_several_writers_are_read_and_a_torn_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    one, two = Lines(path), Lines(path)
    one.write(what="first")
    two.write(what="second")
    with path.open("a") as torn:
        torn.write('{"what": "thi')
    assert [line["what"] for line in read(path)] == ["first", "second"]
    assert read(tmp_path / "none") == []
    one.close()
    two.close()


# What the exit code says


def result() -> report.Result:
    return report.Result(
        storage="zeo",
        seed=1,
        command="",
        seconds=1.0,
        told={"ok": 1},
        jobs=1,
        attempts=1,
        findings=Findings(),
        recoveries=[Recovery("a", 1.0, 1.9)],
        disturbed=[Recovery("b", 1.0, 100.0)],
        promised=2.0,
        happened={nemesis.KILL: 60},
        required={nemesis.KILL: 60},
    )


def test_a_good_result_passes_and_its_json_says_so() -> None:
    good = result()
    assert good.passed
    assert good.as_json()["passed"] is True
    assert good.as_json()["recovery"]["disturbed"]["max"] == 100.0


@pytest.mark.parametrize(
    "change",
    [
        {"happened": {nemesis.KILL: 59}},
        {"recoveries": [Recovery("a", 1.0, 2.1)]},
        {"ended_by_themselves": 1},
        {"bad_stops": 1},
        {"drained": False},
    ],
    ids=lambda change: next(iter(change)),
)
def test_anything_that_is_wrong_fails_it(change: dict[str, object]) -> None:
    bad = result()
    for name, value in change.items():
        setattr(bad, name, value)
    assert not bad.passed


def test_a_finding_fails_it() -> None:
    bad = result()
    bad.findings.add(DOUBLED, "ledger-1")
    assert not bad.passed
    assert bad.as_json()["found"][DOUBLED] == 1
