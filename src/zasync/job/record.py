# SPDX-License-Identifier: ZPL-2.1
"""Stored: how the state of a job lies in its record: as a short tuple with few parts.

A record is written three times in a job's life, and each part of it costs time then.  The status
and the moments are one string of bytes; what few jobs have is a dict at the end.  States that are
dicts, as they were before, are read as well.
"""

from __future__ import annotations

import struct
from typing import Any

from zasync.interfaces import ACTIVE, ASSIGNED, CALLBACKS, COMPLETED, NEW, PENDING

STATUSES = (NEW, PENDING, ASSIGNED, ACTIVE, CALLBACKS, COMPLETED)  # their places are stored
_CODES = {status: code for code, status in enumerate(STATUSES)}
_NUMBERS = ("_begin_after", "_token", "_active_start", "_active_end", "_callbacks_end")
_LAYOUT = struct.Struct(">B5q")
_NONE = -(2**63)


def packed(state: dict[str, Any]) -> tuple[Any, ...]:
    """The state as it is stored; `state` has what differs from the defaults, and is used up."""
    take = state.pop
    head = _LAYOUT.pack(
        _CODES[take("_status", NEW)],
        take("_begin_after", _NONE),
        take("_token", _NONE),
        take("_active_start", _NONE),
        take("_active_end", _NONE),
        take("_callbacks_end", _NONE),
    )
    main = (
        head,
        take("_names", ()),
        take("_args", ()),
        take("_parent", None),
        take("_place", None),
        take("_result", None),
    )
    return (*main, state) if state else main


def unpacked(stored: tuple[Any, ...]) -> dict[str, Any]:
    """What `packed` was given, with None where nothing was."""
    head, names, args, parent, place, result, *rest = stored
    code, *numbers = _LAYOUT.unpack(head)
    state = {
        "_status": STATUSES[code],
        "_names": names,
        "_args": args,
        "_parent": parent,
        "_place": place,
        "_result": result,
    }
    for name, number in zip(_NUMBERS, numbers, strict=True):
        if number != _NONE:
            state[name] = number
    if rest:
        state.update(rest[0])
    return state
