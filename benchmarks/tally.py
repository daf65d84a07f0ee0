# SPDX-License-Identifier: ZPL-2.1
"""A count that the jobs of all processes share, in a mapped file, at the same price for everyone.

Each thread of each process counts in a slot of its own, so nothing is locked and no call lets go
of the interpreter; whoever watches adds the slots up.  Behind the slots lie the moments at which
numbered jobs were started (CLOCK_MONOTONIC, which all processes of a machine share).
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from pathlib import Path

ENVIRONMENT = "ZASYNC_BENCH_TALLY"  # the path of the file
SLOTS = 1 << 14
STARTS = 1 << 14
_WORD = 8
_SIZE = (SLOTS + STARTS) * _WORD


class Tally:
    """The file as one process sees it; made by `create`, found by jobs through ENVIRONMENT."""

    def __init__(self, path: Path | str) -> None:
        self._claims = f"{path}.slots"
        with open(path, "r+b") as file:
            mapped = memoryview(mmap.mmap(file.fileno(), _SIZE))
        self._counts = mapped[: SLOTS * _WORD].cast("Q")
        self._starts = mapped[SLOTS * _WORD :].cast("d")
        self._own = threading.local()

    @classmethod
    def create(cls, path: Path) -> Tally:
        """Make the file, all zeros."""
        path.write_bytes(bytes(_SIZE))
        Path(f"{path}.slots").write_bytes(b"")
        return cls(path)

    def count(self) -> None:
        """Count one call of a job."""
        own = self._own
        # A fork inherits the slot of the thread that it was made in.
        if getattr(own, "pid", None) != os.getpid():
            own.slot, own.pid = self._claim(), os.getpid()
        self._counts[own.slot] += 1

    def start(self, number: int) -> None:
        """Note that the job `number` starts now."""
        self._starts[number % STARTS] = time.perf_counter()

    def total(self) -> int:
        """How many calls were counted so far."""
        return sum(self._counts[: os.path.getsize(self._claims)])

    def started(self, number: int) -> float:
        """When the job `number` started, 0.0 if it has not."""
        return self._starts[number % STARTS]

    def _claim(self) -> int:
        """A slot that nobody else has: one byte is appended for each."""
        file = os.open(self._claims, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, b".")
            slot = os.lseek(file, 0, os.SEEK_CUR) - 1
        finally:
            os.close(file)
        if slot >= SLOTS:
            raise RuntimeError(f"more than {SLOTS} threads have run jobs in one measurement")
        return slot


_mine: Tally | None = None


def mine() -> Tally:
    """The tally that ENVIRONMENT names."""
    global _mine
    if _mine is None:
        _mine = Tally(os.environ[ENVIRONMENT])
    return _mine
