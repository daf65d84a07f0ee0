# SPDX-License-Identifier: ZPL-2.1
"""`zasync parked`: shows, puts back and discards, in a FileStorage."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from zasync.cli.commands import zasync
from zasync.cli.opening import connected, install_queues, opened
from zasync.failure import Failure
from zasync.foundation import clock
from zasync.interfaces import KEY, PoisonError
from zasync.job import Job


class PassingJob(Job):
    """A job whose class the command does not find."""


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "Data.fs")


def park(uri: str, *jobs: Any) -> list[int]:
    """Have `jobs` be parked, the first one first; answers their oids."""
    crash = {
        "at": clock.now(),
        "host": "oak",
        "pid": 4711,
        "dispatcher": "d",
        "queue": "",
        "agent": "main",
        "progress": "the [last] line",
        "held": 3,
        "others": (5, 6),
    }
    with opened(uri) as db, connected(db) as connection:
        connection.transaction_manager.begin()
        root = connection.root()
        install_queues(root)
        queue = root[KEY][""]
        for job in jobs:
            connection.add(job)
            job._status, job._parent, job._crashes = "active-status", queue, (crash,)
            job.finish(Failure(PoisonError("died")))
            queue.parked.add(job)
        connection.transaction_manager.commit()
        return [job.oid for job in jobs]


def waiting(uri: str) -> Iterator[Any]:
    with opened(uri) as db, connected(db) as connection:
        connection.transaction_manager.begin()
        yield from [(job.callable_name, job.args) for job in connection.root()[KEY][""]]


def call(*args: object) -> Result:
    return CliRunner().invoke(zasync, [str(arg) for arg in args], catch_exceptions=False)


def done(*args: object) -> str:
    result = call(*args)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_parked_are_shown_newest_first_with_each_death(uri: str) -> None:
    one, two = park(uri, Job(len, "one"), Job(len, "two"))

    shown = done("parked", "--db", uri)

    assert shown.index("len('two')") < shown.index("len('one')")
    assert "pid 4711 on oak, at 'the [last] line', with 2 other jobs" in shown
    found = json.loads(done("parked", "--db", uri, "--queue", "", "--json"))["parked"]
    assert [each["oid"] for each in found] == [two, one]
    assert found[0]["crashes"][0]["others"] == [5, 6]
    assert "2 jobs of queue '' are parked" in done("status", "--db", uri)


def test_without_any_it_says_so(uri: str) -> None:
    park(uri)
    assert "No job is parked" in done("parked", "--db", uri)
    assert "parked" not in done("status", "--db", uri)


def test_one_is_put_back_and_one_discarded(uri: str) -> None:
    one, two, three = park(uri, Job(len, "one"), Job(len, "two"), Job(len, "three"))

    assert f"put job {two} back" in done("parked", "--db", uri, "--put-back", two)
    assert f"discarded job {one}" in done("parked", "--db", uri, "--discard", one)

    assert list(waiting(uri)) == [("builtins.len", ["two"])]
    found = json.loads(done("parked", "--db", uri, "--json"))["parked"]
    assert [each["oid"] for each in found] == [three]


def test_all_are_put_back(uri: str) -> None:
    park(uri, *(Job(len, str(number)) for number in range(250)))
    assert "put back 250 jobs" in done("parked", "--db", uri, "--put-back", "all")
    assert len(list(waiting(uri))) == 250


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--discard", 4242], "no job 4242 is parked"),
        (["--put-back", "some"], "or 'all'"),
        (["--put-back", 1, "--discard", 1], "not both"),
        (["--queue", "none"], "has no queue 'none'"),
    ],
)
def test_what_cannot_be_done_is_one_line(uri: str, options: list[Any], says: str) -> None:
    park(uri, Job(len, "one"))
    result = call("parked", "--db", uri, *options)
    assert result.exit_code != 0
    assert says in result.output


def test_a_job_whose_class_is_missing_is_shown_and_left(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (oid,) = park(uri, PassingJob(len, "one"))
    monkeypatch.delattr(sys.modules[__name__], "PassingJob")

    assert "PassingJob is not in this process" in done("parked", "--db", uri)
    result = call("parked", "--db", uri, "--discard", oid)

    assert result.exit_code != 0
    assert "cannot be read here" in result.output
    assert "put back 0 jobs" in done("parked", "--db", uri, "--put-back", "all")
