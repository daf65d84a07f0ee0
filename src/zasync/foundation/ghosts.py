# SPDX-License-Identifier: ZPL-2.1
"""Objects of which class and object id are known, without reading them.

What ZODB itself uses for references, and for what a connection knows, is not documented; where it
is missing, the object is read.
"""

from __future__ import annotations

from typing import Any, NamedTuple


def ghost(connection: Any, oid: bytes, cls: type) -> Any:
    """The object `oid` of class `cls`; its state is read when it is first needed.

    `Connection.get` reads the record to learn the class, and the state is read once more later.
    """
    make = getattr(getattr(connection, "_reader", None), "load_persistent", None)
    return connection.get(oid) if make is None else make(oid, cls)


class Copy(NamedTuple):
    """What a connection knew of an object when it had committed it, apart from its `_parent`."""

    state: dict[str, Any]  # nothing in it is persistent, or could be changed in place
    serial: bytes
    parent: tuple[bytes, type]


def copied(found: Any, state: dict[str, Any]) -> Copy:
    """A copy of an object with this `state` for another connection, just after its commit."""
    parent = found._parent
    return Copy(state, found._p_serial, (parent._p_oid, type(parent)))


def planted(connection: Any, oid: bytes, cls: Any, copy: Copy) -> Any:
    """The object `oid` as it was when it was copied, though it may have been changed since.

    Then it cannot be committed: the storage has another serial for it.  Until that shows, nothing
    tells; `_p_invalidate` has it read.
    """
    cache = getattr(connection, "_cache", None)
    if cache is None or cache.get(oid) is not None:
        return ghost(connection, oid, cls)
    made = cls.__new__(cls)
    made.__dict__.update(copy.state, _parent=ghost(connection, *copy.parent))
    made._p_oid, made._p_jar = oid, connection
    cache[oid] = made
    made._p_serial = copy.serial
    return made
