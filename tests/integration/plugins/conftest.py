# SPDX-License-Identifier: ZPL-2.1
"""A database with blobs, a dispatcher that works it, and no plugin of another test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ZODB
from ZODB.FileStorage import FileStorage

from tests.support import handlers
from tests.support.plugins import loopback, no_plugins
from tests.support.running import Runner, Site, running

__all__ = ["loopback", "no_plugins"]


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Any]:
    """A database in a real FileStorage, with blobs."""
    database = ZODB.DB(FileStorage(str(tmp_path / "Data.fs"), blob_dir=str(tmp_path / "blobs")))
    yield database
    database.close()


@pytest.fixture
def site(db: Any) -> Iterator[Site]:
    """The database with a queue '', and a connection to look at it."""
    handlers.reset()
    site = Site(db)
    yield site
    handlers.go_on.set()
    site.close()


@pytest.fixture
def runner(db: Any, site: Site) -> Iterator[Runner]:
    """A dispatcher that works the queue."""
    with running(db, poll_interval=0.5) as runner:
        yield runner
        handlers.go_on.set()
