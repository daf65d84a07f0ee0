# SPDX-License-Identifier: ZPL-2.1
"""The tests have teeth: each of the known bugs of job queues, put into our code, makes one fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.teeth.bite import caught_by, misfits
from tests.teeth.bugs import BUGS, Bug

each_bug = pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])


@each_bug
def test_the_bug_fits_the_sources(bug: Bug) -> None:
    assert not misfits(bug)


@pytest.mark.timeout(300)
@each_bug
def test_the_bug_is_caught(bug: Bug, tmp_path: Path) -> None:
    assert caught_by(bug, tmp_path) is not None
