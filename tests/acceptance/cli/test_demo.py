# SPDX-License-Identifier: ZPL-2.1
"""`zasync demo`: real work, here and in several processes, in one go and interrupted."""

import json
import re
import signal
from pathlib import Path

import pytest

from .commands import Desk, Started

pytestmark = [pytest.mark.process, pytest.mark.slow]

FILES = 30


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with as many files as FILES, and others that are not to be indexed."""
    root = tmp_path / "tree"
    (root / "inner").mkdir(parents=True)
    for number in range(FILES - 2):
        folder = root / "inner" if number % 2 else root
        text = f"def function_{number}(argument):\n    return argument + common\n"
        (folder / f"module_{number}.py").write_text(text)
    (root / "words.txt").write_text("common words, and some more words\n")
    (root / "picture.bin").write_bytes(b"\0\1\2 common")
    (root / ".hidden.py").write_text("hidden = common\n")
    return root


def assert_reports(text: str, files: int) -> None:
    assert f"{files} indexed, 1 could not be read" in text
    assert re.search(r"jobs +\d+ succeeded, 1 failed", text)
    assert re.search(r"\d+ jobs in [\d.]+ s: \d+ jobs per second", text)
    assert len(re.findall(r"median \d+ ms, 95th percentile \d+ ms", text)) == 2
    assert "1 job conflicted on purpose: 2 attempts, then succeeded" in text
    assert "Traceback (most recent call last)" in text
    assert "broken" in text
    assert re.search("Its callback handled that, and noted: .+", text)


def test_a_demo_ends_with_a_report_and_leaves_a_database_to_look_at(desk: Desk, tree: Path) -> None:
    printed = desk.done("demo", "--path", tree)
    assert f"The database of this demo is {desk.path('zasync-demo')}" in printed
    assert_reports(printed, FILES)
    assert re.search(rf"^ *{FILES - 1} +common", printed, re.MULTILINE)
    (status, *_) = re.findall(r"zasync status --db (\S+)", printed)
    (queue,) = json.loads(desk.done("status", "--db", status, "--json"))["queues"]
    assert (queue["waiting"], queue["active"], queue["failed"]) == (0, 0, 1)


def test_a_second_demo_has_a_directory_of_its_own(desk: Desk, tree: Path) -> None:
    desk.done("demo", "--path", tree, "--files", 3)
    printed = desk.done("demo", "--path", tree, "--files", 4)
    assert str(desk.path("zasync-demo-2")) in printed
    assert_reports(printed, 4)


def interrupt(demo: Started) -> None:
    """Interrupt it in the middle of its work."""
    demo.says(r"\d+ of \d+ jobs done, [1-9]")
    demo.signal(signal.SIGINT)
    assert demo.ends() == 130
    assert "zasync demo --resume --dir" in demo.output


@pytest.mark.parametrize("processes", [1, 2])
def test_an_interrupted_demo_is_finished_by_resume(desk: Desk, processes: int) -> None:
    with desk.started("demo", "--files", 120, "--processes", processes) as demo:
        interrupt(demo)
    printed = desk.done("demo", "--resume")
    assert_reports(printed, 120)
    assert "zasync status --db" in desk.done("demo", "--resume", "--dir", "zasync-demo")


def test_a_demo_in_two_processes_shares_the_work(desk: Desk, tree: Path) -> None:
    directory = desk.path("elsewhere")
    printed = desk.done("demo", "--path", tree, "--processes", 2, "--dir", directory)
    assert_reports(printed, FILES)
    found = json.loads(desk.done("status", "--db", directory / "Data.fs", "--json"))
    (queue,) = found["queues"]
    assert [each["state"] for each in queue["dispatchers"]] == ["stopped", "stopped"]
    assert desk.run("demo", "--dir", directory).returncode == 2
