# SPDX-License-Identifier: ZPL-2.1
"""The dispatchers of this process, one per UUID."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import zope.component

from zasync.interfaces import IUUID

_dispatchers: dict[UUID, Any] = {}


def add(dispatcher: Any) -> None:
    """Take `dispatcher` in; ValueError if there is one of its UUID."""
    if dispatcher.UUID in _dispatchers:
        raise ValueError("this process has a dispatcher of that UUID already", dispatcher.UUID)
    _dispatchers[dispatcher.UUID] = dispatcher


def _key(uuid: Any) -> UUID:
    if uuid is None:
        uuid = zope.component.getUtility(IUUID)
    return UUID(int=uuid.int)


def get(uuid: Any = None, default: Any = None) -> Any:
    """The dispatcher of `uuid` (None: of the IUUID utility), or `default`."""
    return _dispatchers.get(_key(uuid), default)


def every() -> list[Any]:
    """All dispatchers of this process."""
    return list(_dispatchers.values())


def pop(uuid: Any = None) -> Any:
    """Forget and answer the dispatcher of `uuid`; KeyError if there is none."""
    return _dispatchers.pop(_key(uuid))


def clear() -> None:
    """Forget all dispatchers."""
    _dispatchers.clear()
