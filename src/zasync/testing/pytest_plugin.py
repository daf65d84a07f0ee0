# SPDX-License-Identifier: ZPL-2.1
"""Fixtures for the tests of applications; a conftest.py asks for them:

    pytest_plugins = ["zasync.testing.pytest_plugin"]

They are no `pytest11` entry point, since that would be imported, with Twisted and all, in every
run of pytest wherever zasync happens to be installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from zasync.testing import crashing


@pytest.fixture
def crash_at_every_commit(record_property: Callable[[str, object], None]) -> Any:
    """`zasync.testing.crashing.crash_at_every_commit`; what was tried goes into the report."""

    def crash(set_up: Any, check: Any, **options: Any) -> crashing.Crashes:
        crashes = crashing.crash_at_every_commit(set_up, check, **options)
        record_property("crashes", str(crashes))
        return crashes

    return crash
