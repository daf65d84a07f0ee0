# SPDX-License-Identifier: ZPL-2.1
"""Fail points: each name is a place in the code, and each place has a name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import zasync
from zasync.foundation.failpoints import reach
from zasync.testing import fail_points

SOURCE = Path(zasync.__file__).parent


def test_what_is_armed_happens_when_the_place_is_reached() -> None:
    happened: list[str] = []
    with fail_points.armed("put.added", lambda: happened.append("put")):
        reach("put.added")
        reach("run.taken")
    reach("put.added")
    assert happened == ["put"]


def test_an_action_may_raise() -> None:
    def fail() -> None:
        raise OSError("no space left")

    fail_points.arm("run.taken", fail)
    with pytest.raises(OSError, match="no space"):
        reach("run.taken")
    fail_points.disarm("run.taken")
    reach("run.taken")


def test_an_unknown_place_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(KeyError, match=r"no fail point 'run\.tkaen'.*run\.taken"):
        fail_points.arm("run.tkaen", lambda: None)


def test_every_name_is_reached_in_the_code_and_every_place_is_named() -> None:
    reached: list[str] = []
    for path in SOURCE.rglob("*.py"):
        reached += re.findall(r'\breach\("([^"]+)"\)', path.read_text())
    assert sorted(reached) == sorted(fail_points.POINTS)


def test_an_action_can_wait_for_its_turn_and_come_to_an_end() -> None:
    happened: list[int] = []
    with fail_points.armed("run.taken", lambda: happened.append(1), skip=1, times=2) as armed:
        for _ in range(5):
            reach("run.taken")
    assert happened == [1, 1]
    assert armed.met == 2


def test_what_is_armed_anew_begins_anew() -> None:
    with fail_points.armed("run.taken", lambda: None, times=1):
        reach("run.taken")
        again = fail_points.arm("run.taken", lambda: None, times=1)
        reach("run.taken")
    assert again.met == 1
