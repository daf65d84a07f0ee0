# SPDX-License-Identifier: ZPL-2.1
"""Databases for the dispatcher's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ZODB
from ZODB.FileStorage import FileStorage

from tests.integration.dispatcher import jobs_for_tests
from tests.support.running import Site


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Any]:
    """A database in a real FileStorage."""
    database = ZODB.DB(FileStorage(str(tmp_path / "Data.fs")))
    yield database
    database.close()


@pytest.fixture
def site(db: Any) -> Iterator[Site]:
    """The database with a queue '', and a connection to look at it."""
    jobs_for_tests.reset()
    site = Site(db)
    yield site
    for gate in jobs_for_tests.gates.values():
        gate.set()
    site.close()
