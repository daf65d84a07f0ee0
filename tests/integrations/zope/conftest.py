# SPDX-License-Identifier: ZPL-2.1
"""A Zope application object in a database, without Zope's own start-up, and people in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from AccessControl.SecurityManagement import noSecurityManager

from tests.support.zope_place import Place, opened_place


@pytest.fixture
def place() -> Iterator[Place]:
    """Zope's objects in memory: a folder, and users who may do different things."""
    with opened_place() as opened:
        yield opened


@pytest.fixture(autouse=True)
def nobody_before_and_after() -> Iterator[Any]:
    noSecurityManager()
    yield
    noSecurityManager()
