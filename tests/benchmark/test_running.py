# SPDX-License-Identifier: ZPL-2.1
"""A tiny run with real processes, and what becomes of cases that cannot be measured."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import benchmarks.__main__ as program
from benchmarks import places, running
from benchmarks.cases import Case
from benchmarks.guarding import Guard
from benchmarks.measures import Bench, measure
from benchmarks.places import Missing, Places
from benchmarks.results import Results
from benchmarks.subjects import SUBJECTS
from benchmarks.watching import Broken

TINY = 0.05  # seconds


@pytest.mark.process
@pytest.mark.parametrize(
    "case",
    [
        Case("raw", "ZODB"),
        Case("put", amount=100),
        Case("drain", work="write_ten"),
        Case("drain", storage="zeo", processes=2),
    ],
    ids=lambda case: case.key,
)
def test_a_case_is_measured_by_real_processes(case: Case) -> None:
    with Places() as there:
        figures = measure(case, Bench(there, TINY, {case.key: 1000.0}))

    assert figures["rate"] > 0
    if case.measure == "drain":
        assert figures["commits"] > 0
        assert figures["rss_mb"] > 1


@pytest.mark.process
@pytest.mark.parametrize("storage", ["filestorage", "zeo"])
def test_the_smallest_possible_queue_puts_and_drains(storage: str) -> None:
    with Places() as there:
        figures = measure(Case("floor", "ZODB", storage), Bench(there, TINY))

    assert figures["put_rate"] > 0
    assert figures["drain_rate"] > 0
    assert figures["commits"] == 0.02


@pytest.mark.process
def test_a_latency_is_measured_in_one_process() -> None:
    with Places() as there:
        figures = measure(Case("latency", amount=0.01), Bench(there, TINY))

    assert 0 < figures["median_ms"] <= figures["p99_ms"]


@pytest.mark.process
def test_a_guard_ends_what_it_guards_when_nobody_else_does(tmp_path: Path) -> None:
    guarded = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True
    )
    guard = Guard(guarded.pid)

    assert guard._process.stdin is not None
    guard._process.stdin.close()  # as the end of this process would

    assert guarded.wait(60) == -signal.SIGKILL
    assert guard._process.wait(60) == 0


@pytest.mark.process
def test_a_guard_that_is_dismissed_does_nothing() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True
    ) as guarded:
        Guard(guarded.pid).dismiss()
        assert guarded.poll() is None
        guarded.communicate(b"\n", timeout=60)


def fake(answers: dict[str, Any]) -> Any:
    def measured(case: Case, bench: Bench) -> Any:
        answer = answers[case.measure]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return measured


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "short.json"


def go(cases: list[Case], results: Results, path: Path, **options: Any) -> tuple[bool, list[str]]:
    lines: list[str] = []
    options = {"rounds": 2, "seconds": 1.0, "minutes": 1.0} | options
    return running.run(cases, results, path, say=lines.append, **options), lines


def test_what_cannot_be_measured_is_named_and_the_rest_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {
        "put": Missing("Redis: not here"),
        "idle": Broken("a worker ended: no file /home/me/Data.fs"),
        "drain": {"rate": 7.0},
    }
    monkeypatch.setattr(running, "measure", fake(answers))
    results = Results()

    cases = [Case("put"), Case("idle"), Case("drain")]
    complete, lines = go(cases, results, path, rounds=3)

    assert complete
    assert len(lines) == 1 + running.TRIES + 3
    assert Results.load(path).missing == {
        "put/zasync/filestorage": "missing: Redis: not here",
        "idle/zasync/filestorage": "failed: Broken: a worker ended: no file ...",
    }
    assert results.values("drain/zasync/filestorage/no-op/default", "rate") == dict.fromkeys(
        (1, 2, 3), 7.0
    )


def test_a_run_that_was_broken_off_is_taken_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "measure", fake({"drain": {"rate": 7.0}, "put": {"rate": 3.0}}))
    results = Results()
    go([Case("drain")], results, path)

    _complete, lines = go([Case("drain"), Case("put")], Results.load(path), path)

    assert [line.split()[3] for line in lines] == ["put/zasync/filestorage:"] * 2


def test_pieces_come_to_the_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases, answers = [Case("drain"), Case("put")], {"drain": {"rate": 7.0}, "put": {"rate": 3.0}}
    whole = fake(answers)

    def interrupted(case: Case, bench: Bench) -> Any:
        if case.measure == "put":
            raise KeyboardInterrupt
        return whole(case, bench)

    monkeypatch.setattr(running, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        go(cases, Results(), path)
    left = len(running.lacking(cases, Results.load(path), 2))
    monkeypatch.setattr(running, "measure", whole)
    complete, lines = go(cases, Results.load(path), path)

    assert left == len(lines) == 3
    assert complete
    assert running.lacking(cases, Results.load(path), 2) == []


def test_an_estimate_goes_by_what_was_measured_before() -> None:
    cases, results = [Case("drain"), Case("idle")], Results()
    todo = running.lacking(cases, results, 3)
    guess = running.estimate(todo, results, 1.0)

    results.took = {case.key: 120.0 for case in cases}

    assert 0 < guess < 2
    assert running.estimate(todo, results, 1.0) == 2.0 * len(todo)


def test_no_case_is_begun_when_time_is_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "measure", fake({"drain": {"rate": 7.0}}))

    complete, lines = go([Case("drain")], Results(), path, minutes=0)

    assert not complete
    assert lines == ["time is up: 2 of 2 measures are left out"]


def test_a_server_that_is_not_there_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(places.importlib.util, "find_spec", lambda name: None)

    with Places() as there, pytest.raises(Missing, match="Redis: no redis-server"):
        there.place("redis").__enter__()
    with Places() as there, pytest.raises(Missing, match="RelStorage is not installed"):
        there.place("sqlite").__enter__()


def test_a_peer_that_is_not_installed_is_missing() -> None:
    with pytest.raises(Missing, match="no-such-queue is not installed"):
        _ = dataclasses.replace(SUBJECTS["rq"], package="no-such-queue").version


@pytest.mark.process
def test_a_worker_that_ends_at_once_is_reported_with_its_last_line(tmp_path: Path) -> None:
    with Places() as there:
        bench = Bench(there, TINY)
        with pytest.raises(Broken, match="no_such_work"):
            measure(Case("drain", work="no_such_work"), bench)


# The commands


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the program in `tmp_path`, without plots; answers what click's runner does."""
    monkeypatch.setattr(program, "_pictures", lambda results: {})
    monkeypatch.setattr(running, "measure", fake({"drain": {"rate": 7.0}, "raw": {"rate": 3.0}}))
    document = tmp_path / "performance.md"
    document.write_text(f"{program.page.BEGIN}\n{program.page.END}\n")
    monkeypatch.setattr(program, "DOCUMENT", document)

    def run(*words: str) -> Any:
        out = [] if words[0] == "list" else ["--out", str(tmp_path)]
        return CliRunner().invoke(program.main, [*words, *out], catch_exceptions=False)

    return run


def test_a_selected_run_prints_and_writes(command: Any, tmp_path: Path) -> None:
    ended = command("run", "--only", "drain", "--storage", "filestorage", "--work", "no_op")

    assert ended.exit_code == 0
    assert "Targets" in ended.output
    assert (tmp_path / "short.html").exists()
    assert len(Results.load(tmp_path / "short.json").measured) == 2


def test_the_documentation_is_written_from_results_that_are_there(
    command: Any, tmp_path: Path
) -> None:
    command("run", "--only", "raw", "--storage", "zeo")
    ended = command("page", "--no-run")

    assert ended.exit_code == 0
    assert "raw commits" in (tmp_path / "performance.md").read_text("utf-8")


def test_again_measures_the_chosen_cases_anew_and_keeps_the_rest(
    command: Any, tmp_path: Path
) -> None:
    command("run", "--only", "raw", "--storage", "zeo", "--rounds", "2")
    command("run", "--only", "drain", "--storage", "zeo", "--again", "--rounds", "1")
    command("run", "--only", "raw", "--storage", "zeo", "--again", "--rounds", "1")

    results = Results.load(tmp_path / "short.json")
    assert list(results.measured["raw/ZODB/zeo"]) == [1]
    assert "drain/zasync/zeo/no-op/default" in results.measured


def test_pieces_are_named_as_such_with_all_revisions(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revisions = iter(("one", "two", "two"))
    monkeypatch.setattr(
        program, "versions", lambda: {"ZODB": "6", program.REVISION: next(revisions)}
    )
    calls = iter((["run", "--only", "raw"], ["run", "--only", "drain"], ["run"]))
    monkeypatch.setattr(program, "_command", lambda: " ".join(next(calls)))

    command("run", "--only", "raw", "--storage", "zeo")
    first = Results.load(tmp_path / "short.json")
    command("run", "--only", "drain", "--storage", "zeo", "--resume")
    ended = command("page", "--only", "drain", "--storage", "zeo", "--resume")
    results = Results.load(tmp_path / "short.json")

    assert (first.command, first.versions[program.REVISION]) == ("run --only raw", "one")
    assert results.command == "python -m benchmarks run, in pieces"
    assert results.versions[program.REVISION] == "one, two"
    assert "0 measures, about 0 minutes" in ended.output
    said = (tmp_path / "performance.md").read_text("utf-8")
    assert "Made by `python -m benchmarks run`, in pieces." in said


def test_the_command_is_written_without_what_is_only_of_this_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["page", "--full", "--minutes", "25", "--resume", "--out", "somewhere"]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])

    assert program._command() == "python -m benchmarks page --full"


def test_results_of_other_versions_are_not_mixed(command: Any, tmp_path: Path) -> None:
    command("run", "--only", "raw")
    results = Results.load(tmp_path / "short.json")
    results.versions["ZODB"] = "1.0"
    results.save(tmp_path / "short.json")

    ended = command("run", "--resume")

    assert ended.exit_code == 2
    assert "other versions" in ended.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "--peers", "sidekiq"), "unknown: sidekiq"),
        (("run", "--only", "drain", "--storage", "papyrus"), "no case fits all of that"),
    ],
)
def test_a_selection_of_nothing_is_an_error(command: Any, words: Any, said: str) -> None:
    ended = command(*words)

    assert ended.exit_code == 2
    assert said in ended.output


def test_the_cases_are_listed(command: Any) -> None:
    assert "put/zasync/filestorage/100\n" in command("list", "--only", "put").output
