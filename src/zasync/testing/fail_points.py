# SPDX-License-Identifier: ZPL-2.1
"""Make something happen at a named place in zasync's own code.

`POINTS` says which places there are and what is the case at each.  An action is called without
arguments in the thread that gets there; it may raise, wait, end the process, or prepare what the
next commit of that thread is to meet (`FaultyStorage.lose_reply(only_here=True)`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from zasync.foundation import failpoints
from zasync.foundation.failpoints import POINTS, Action

__all__ = ["POINTS", "Action", "Armed", "arm", "armed", "disarm"]


class Armed:
    """What is to happen at a place, and how often that has been so."""

    def __init__(self, action: Action, skip: int, times: int | None) -> None:
        self.met = 0  # how often the action was called
        self._action = action
        self._skip = skip
        self._times = times
        self._lock = threading.Lock()

    def __call__(self) -> None:
        if self._is_due():
            self._action()

    def _is_due(self) -> bool:
        with self._lock:
            if self._skip:
                self._skip -= 1
                return False
            if self._times is not None and self.met >= self._times:
                return False
            self.met += 1
            return True


def arm(name: str, action: Action, *, skip: int = 0, times: int | None = None) -> Armed:
    """Have `action()` called whenever the place `name` is reached; answers what counts that.

    The first `skip` times it is not called, and after `times` calls (None: ever) no more.
    It replaces what was armed there.  KeyError for unknown names.
    """
    if name not in POINTS:
        raise KeyError(f"no fail point {name!r}; there are: {', '.join(POINTS)}")
    made = failpoints.armed[name] = Armed(action, skip, times)
    return made


def disarm(name: str | None = None) -> None:
    """Have nothing happen at the place `name` any more; without a name, nowhere."""
    if name is None:
        failpoints.armed.clear()
    else:
        failpoints.armed.pop(name, None)


@contextlib.contextmanager
def armed(name: str, action: Action, *, skip: int = 0, times: int | None = None) -> Iterator[Armed]:
    """Have `action()` called at the place `name`, as `arm` does, within the `with` block."""
    made = arm(name, action, skip=skip, times=times)
    try:
        yield made
    finally:
        disarm(name)
