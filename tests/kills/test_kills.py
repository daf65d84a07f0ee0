# SPDX-License-Identifier: ZPL-2.1
"""A real process is killed with SIGKILL at each moment of a job's life; others go on.

Effects once, each job ended once, each callback once, no place of a quota taken for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.kills.cases import Case, Ground
from tests.kills.grid import POINTS, Point, Recovery

pytestmark = [pytest.mark.process, pytest.mark.zeo]


@pytest.mark.parametrize("recovery", Recovery, ids=lambda recovery: recovery.name.lower())
@pytest.mark.parametrize("point", POINTS, ids=str)
def test_a_process_is_killed(
    ground: Ground,
    point: Point,
    recovery: Recovery,
    record_property: Callable[[str, object], None],
) -> None:
    case = Case(ground, point, recovery)
    try:
        death = case.die()
        case.recover()
        record_property("recovery", time.monotonic() - death)
        case.check()
    finally:
        case.end()


def test_the_table_has_each_of_the_moments() -> None:
    assert [point.number for point in POINTS] == list(range(1, 29))
