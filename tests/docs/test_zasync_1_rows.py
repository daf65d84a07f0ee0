# SPDX-License-Identifier: ZPL-2.1
"""docs/coming-from-zasync-1.md has all 26 rows, each with tests that exist, or why it is gone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs" / "coming-from-zasync-1.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \|(.*)\|$", TABLE, re.MULTILINE)


@pytest.fixture(scope="module")
def defined() -> set[str]:
    """The names of all test functions."""
    names: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        names.update(re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE))
    return names


def test_all_rows_are_there() -> None:
    assert [int(row[0]) for row in ROWS] == list(range(1, 27))


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_names_its_tests_or_says_why_it_is_gone(
    row: tuple[str, str, str, str], defined: set[str]
) -> None:
    number, _, now, tests = row
    named = set(re.findall(r"`(test_\w+)`", tests))

    assert named <= defined
    assert named or now.startswith("*Gone:*")
    assert {name[9:11] for name in named if name.startswith("test_row_")} <= {f"{int(number):02}"}
