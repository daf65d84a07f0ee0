# SPDX-License-Identifier: ZPL-2.1
"""Make something happen at a named place in zasync's own code.

`POINTS` says which places there are and what is the case at each.  An action is called without
arguments in the thread that gets there; it may raise, wait, or end the process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from zasync.foundation import failpoints
from zasync.foundation.failpoints import POINTS, Action

__all__ = ["POINTS", "Action", "arm", "armed", "disarm"]


def arm(name: str, action: Action) -> None:
    """Have `action()` called whenever the place `name` is reached.  KeyError for unknown names."""
    if name not in POINTS:
        raise KeyError(f"no fail point {name!r}; there are: {', '.join(POINTS)}")
    failpoints.armed[name] = action


def disarm(name: str | None = None) -> None:
    """Have nothing happen at the place `name` any more; without a name, nowhere."""
    if name is None:
        failpoints.armed.clear()
    else:
        failpoints.armed.pop(name, None)


@contextlib.contextmanager
def armed(name: str, action: Action) -> Iterator[None]:
    """Have `action()` called at the place `name` within the `with` block."""
    arm(name, action)
    try:
        yield
    finally:
        disarm(name)
