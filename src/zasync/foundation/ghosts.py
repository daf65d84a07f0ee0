# SPDX-License-Identifier: ZPL-2.1
"""References to objects of which class and object id are known, without reading them."""

from __future__ import annotations

from typing import Any


def ghost(connection: Any, oid: bytes, cls: type) -> Any:
    """The object `oid` of class `cls`; its state is read when it is first needed.

    `Connection.get` reads the record to learn the class, and the state is read once more later.
    What ZODB itself uses for references is not documented; where it is missing, `get` is called.
    """
    make = getattr(getattr(connection, "_reader", None), "load_persistent", None)
    return connection.get(oid) if make is None else make(oid, cls)
