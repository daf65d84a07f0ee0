# SPDX-License-Identifier: ZPL-2.1
"""A directory for each page, and no component or UUID of one page seen by the next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import transaction
import zope.component.testing

import zasync.dispatcher
import zasync.instanceuuid
from zasync.plugins import registry


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; afterwards no registration is left."""
    monkeypatch.chdir(tmp_path)
    for variable in zasync.instanceuuid.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(registry, "_registry", registry._Registry())
    zasync.instanceuuid.reset()
    zope.component.testing.setUp()
    yield tmp_path
    transaction.abort()
    zope.component.testing.tearDown()
    zasync.instanceuuid.reset()
    zasync.dispatcher.clear()
