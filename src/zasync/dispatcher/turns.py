# SPDX-License-Identifier: ZPL-2.1
"""Turns: a poll and a group of very short jobs do not compute at the same time.

Python runs one thread at a time, and a thread that reads or writes a file lets another one go on.
Two threads that do little else hand the interpreter to and fro for each record; one after the other
they are through sooner.  Nothing depends on it: who has waited for LONGEST goes on all the same.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST = 0.05  # seconds


class Turns:
    """Of one dispatcher."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, wanted: bool = True) -> Iterator[bool]:
        """Wait for a turn if one is `wanted`, and have it in the block; tells whether it has."""
        mine = wanted and self._lock.acquire(timeout=LONGEST)
        try:
            yield mine
        finally:
            if mine:
                self._lock.release()
