# SPDX-License-Identifier: ZPL-2.1
"""Hints between processes that share an SQLite file: a look, now and then, for commits.

SQLite tells nobody of commits, and RelStorage asks only when a transaction begins.  To ask SQLite
for the number of what is visible costs some microseconds.  The times of its files would not do: a
commit writes first, and is seen by others only when the disk has it, some milliseconds later.  A
commit by this process itself is a hint too; the poll that follows finds nothing.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from zasync.foundation import clock

LOOK_EVERY = 0.015  # seconds, while others commit
LOOK_AT_REST = 0.05  # seconds, else: it is the waking up that costs, not the look
REST_AFTER = 1.0  # seconds without a commit
OPEN_AGAIN = 1.0  # seconds from a look that failed to the next


class Commits:
    """Tells whether there was a commit since the last look.  Works in any thread.

    The connection is SQLite's own, because a process that closes one of the files by other means
    takes away the locks that SQLite holds on it.
    """

    def __init__(self, path: Path) -> None:
        self._uri = f"{path.absolute().as_uri()}?mode=ro"
        self._lock = threading.Lock()
        self._closed = False
        self._connection: sqlite3.Connection | None = None
        self._open_at = clock.monotonic()
        self._version = self._look()

    def have_come(self) -> bool:
        """Whether others can see now what they could not at the last look, or may."""
        with self._lock:
            before, self._version = self._version, self._look()
            return self._version != before

    def close(self) -> None:
        """From now on, nothing comes."""
        with self._lock:
            self._closed, self._version = True, None
            self._close()

    def _look(self) -> int | None:
        """A number that a commit changes; None while it cannot be asked for."""
        if self._closed or (self._connection is None and clock.monotonic() < self._open_at):
            return None
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(
                    self._uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False
                )
            # All rows, since a statement that has not ended keeps SQLite from tidying its log.
            [(version,)] = self._connection.execute("PRAGMA data_version").fetchall()
        except sqlite3.Error:
            self._close()
            self._open_at = clock.monotonic() + OPEN_AGAIN
            return None
        return int(version)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class CommitWatch:
    """Calls `wake`, in a thread of its own, when there was a commit to the database file."""

    def __init__(self, path: Path, wake: Callable[[], None]) -> None:
        self._commits = Commits(path)
        self._wake = wake
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="zasync commit watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End soon; does not wait for the thread, but the file is let go of."""
        self._over.set()
        self._commits.close()

    def _run(self) -> None:
        came = clock.monotonic()
        seconds = LOOK_EVERY
        while not clock.wait_idly(self._over, seconds):
            now = clock.monotonic()
            if self._commits.have_come():
                came = now
                self._wake()
            seconds = LOOK_EVERY if now - came < REST_AFTER else LOOK_AT_REST
