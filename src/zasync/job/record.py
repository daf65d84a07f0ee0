# SPDX-License-Identifier: ZPL-2.1
"""Stored: how the state of a job lies in its record: as one string of bytes and what holds it.

A record is written three times in a job's life, and ZODB looks at each object in it with a call of
Python.  So numbers, names and small plain values are one pickle of their own, which needs no look;
beside it are the reference to the parent and, as a dict, what few jobs have.  States that are
dicts, or tuples with more parts, as they were before, are read as well.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Set
from typing import Any, NamedTuple

from zasync.interfaces import ACTIVE, ASSIGNED, CALLBACKS, COMPLETED, NEW, PENDING

STATUSES = (NEW, PENDING, ASSIGNED, ACTIVE, CALLBACKS, COMPLETED)  # their places are stored
_CODES = {status: code for code, status in enumerate(STATUSES)}
ATOMS = frozenset({type(None), bool, int, float, str, bytes})
_PROTOCOL = 4  # of the inner pickle: known to all Pythons that read it
_MOST_PARTS = 3  # what has more was written before there was an inner pickle
_OLD_HEAD = struct.Struct(">B5q")
_OLD_NUMBERS = ("_begin_after", "_token", "_active_start", "_active_end", "_callbacks_end")
_OLD_NONE = -(2**63)


class Place(NamedTuple):
    """Where a waiting job lies: the names of its quotas, the tree, the key in it."""

    quota_names: tuple[str, ...]
    kind: str
    key: int


def packed(state: dict[str, Any], none_by_default: Set[str] = frozenset()) -> tuple[Any, ...]:
    """The state as it is stored; `state` is used up.

    None is left out where it is the default.
    """
    take = state.pop
    parent, place = take("_parent", None), take("_place", None)
    args, result = take("_args", ()), take("_result", None)
    if not ATOMS.issuperset(map(type, args)):
        state["_args"], args = args, ()
    if type(result) not in ATOMS:
        state["_result"], result = result, None
    plain: tuple[Any, ...] = (
        _CODES[take("_status", NEW)],
        take("_begin_after", None),
        take("_token", None),
        take("_active_start", None),
        take("_active_end", None),
        take("_callbacks_end", None),
        take("_names", ()),
        args,
        tuple(place) if type(place) is Place else place,
        result,
    )
    if state:
        more = {name: value for name, value in state.items() if _is_plain(value)}
        for name in more:
            del state[name]
        for name in none_by_default & more.keys():
            if more[name] is None:
                del more[name]
        plain = (*plain, more) if more else plain
    inner = pickle.dumps(plain, _PROTOCOL)
    return (inner, parent, state) if state else (inner, parent)


def _is_plain(value: Any) -> bool:
    """Whether there is nothing in it that ZODB has to see: no object with an id or a class."""
    if type(value) is dict:  # such as named arguments
        return ATOMS.issuperset(map(type, (*value, *value.values())))
    return type(value) in ATOMS


def unpacked(stored: tuple[Any, ...]) -> dict[str, Any]:
    """What `packed` was given, with None where nothing was."""
    if len(stored) > _MOST_PARTS:
        return _unpacked_old(stored)
    inner, parent, *rest = stored
    code, after, token, start, end, callbacks_end, names, args, place, result, *more = pickle.loads(
        inner
    )
    state = {
        "_status": STATUSES[code],
        "_begin_after": after,
        "_token": token,
        "_active_start": start,
        "_active_end": end,
        "_callbacks_end": callbacks_end,
        "_names": names,
        "_args": args,
        "_parent": parent,
        "_place": Place(*place) if type(place) is tuple else place,
        "_result": result,
    }
    for each in (*more, *rest):
        state.update(each)
    return state


def _unpacked_old(stored: tuple[Any, ...]) -> dict[str, Any]:
    """The same of a record in which each value was a part of its own."""
    head, names, args, parent, place, result, *rest = stored
    code, *numbers = _OLD_HEAD.unpack(head)
    state = {
        "_status": STATUSES[code],
        "_names": names,
        "_args": args,
        "_parent": parent,
        "_place": place,
        "_result": result,
    }
    for name, number in zip(_OLD_NUMBERS, numbers, strict=True):
        state[name] = None if number == _OLD_NONE else number
    for each in rest:
        state.update(each)
    return state
