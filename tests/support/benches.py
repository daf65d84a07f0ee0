# SPDX-License-Identifier: ZPL-2.1
"""A bench and a clock that stands still for the tests of jobs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.bench import Bench
from tests.support.clocks import StandingClock
from tests.unit.job import things
from zasync.foundation import clock


@pytest.fixture(autouse=True)
def standing() -> Iterator[StandingClock]:
    standing = StandingClock()
    before = clock.install(standing)
    yield standing
    clock.install(before)


@pytest.fixture
def bench() -> Iterator[Bench]:
    things.reset()
    bench = Bench()
    yield bench
    bench.close()
    things.reset()
