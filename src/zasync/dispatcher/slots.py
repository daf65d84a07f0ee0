# SPDX-License-Identifier: ZPL-2.1
"""Numbered files of UUIDs in one directory, each for one process at a time ("slots").

A stable UUID lets a process that was killed recover its own jobs as soon as it is started again.
So a process takes the first file that no other has locked; the system takes the lock away
however the process ends.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import IO

import zc.lockfile  # type: ignore[import-untyped]


class Lock(zc.lockfile.LockFile):
    """A lock that ends with this process, though a job may have forked one that lives on.

    LockError if another process has it.
    """

    _fp: IO[str] | None

    def __init__(self, path: str) -> None:
        super().__init__(path)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._let_go)

    def _let_go(self) -> None:
        # To close the lock would take it from the process that we are a fork of, too.
        if self._fp is not None:
            self._fp.close()
            self._fp = None


def free_slot(directory: Path) -> tuple[Path, Lock]:
    """The path of the first slot that no other process has, and the lock on it."""
    directory.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        path = directory / f"{number}.uuid"
        try:
            return path, Lock(str(path.with_suffix(".lock")))
        except zc.lockfile.LockError:
            continue
    raise AssertionError("numbers do not end")
