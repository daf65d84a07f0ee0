# SPDX-License-Identifier: ZPL-2.1
"""tests/FAULTS.md names tests that exist, and leaves out no fault."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ROW = re.compile(r"^\| ([A-F]\d+) \| (.+?) \| (.+) \|$", re.MULTILINE)
COUNTS = {"A": 15, "B": 8, "C": 24, "D": 19, "E": 11, "F": 7}

ROWS = ROW.findall((TESTS / "FAULTS.md").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def defined() -> set[str]:
    """The names of all test functions."""
    names: set[str] = set()
    for path in TESTS.rglob("test_*.py"):
        names.update(re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    return names


def test_every_fault_has_its_row() -> None:
    expected = [
        f"{part}{number}" for part, count in COUNTS.items() for number in range(1, count + 1)
    ]
    assert [row for row, _, _ in ROWS] == expected


@pytest.mark.parametrize(
    ("row", "tests"), [(row, tests) for row, _, tests in ROWS], ids=[row for row, _, _ in ROWS]
)
def test_a_row_names_tests_that_exist_or_says_why_there_are_none(
    row: str, tests: str, defined: set[str]
) -> None:
    named = set(re.findall(r"`(test_\w+)`", tests))
    assert named <= defined, f"{row} names {named - defined}"
    files = re.findall(r"`(tests/[\w/.]+)`", tests)
    assert all((TESTS.parent / file).exists() for file in files)
    assert named or files or re.match(r"(limit|outside|open|as [A-F]\d+)", tests)
