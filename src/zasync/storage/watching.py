# SPDX-License-Identifier: ZPL-2.1
"""Hints between processes that share an SQLite file: a look, now and then, at the files' times.

SQLite tells nobody of commits, and RelStorage asks only when a transaction begins.  Each commit
changes the database file or its write-ahead log, and to ask the system for that costs a few
microseconds.  A change by this process itself is a hint too; the poll that follows finds nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from zasync.foundation import clock

LOOK_EVERY = 0.015  # seconds

Sign = tuple[int, int] | None


class FileWatch:
    """Calls `wake`, in a thread of its own, when one of the files has changed."""

    def __init__(self, paths: Sequence[Path], wake: Callable[[], None]) -> None:
        self._paths = [os.fspath(path) for path in paths]
        self._wake = wake
        self._over = threading.Event()
        self._signs = self._look()
        self._thread = threading.Thread(target=self._run, name="zasync file watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End soon; does not wait for it."""
        self._over.set()

    def _run(self) -> None:
        while not clock.wait_idly(self._over, LOOK_EVERY):
            signs = self._look()
            if signs != self._signs:
                self._signs = signs
                self._wake()

    def _look(self) -> list[Sign]:
        return [_sign(path) for path in self._paths]


def _sign(path: str) -> Sign:
    """What a commit changes; None while there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
