# SPDX-License-Identifier: ZPL-2.1
"""The errors of opening a database: one line each that names the thing and what to do.

There is a class of its own where a caller may act differently; the rest are plain
`StorageError`s.  `diagnosis` turns the errors of other packages into these.
"""

from __future__ import annotations

from pathlib import Path

from zasync.interfaces import ZasyncError


class StorageError(ZasyncError):
    """A database could not be opened; the message says why and what to do about it."""


class UnknownScheme(StorageError, LookupError):
    """No storage is known for the scheme of a URI, or the package that has it is missing."""


class BadConfiguration(StorageError, ValueError):
    """A URI or a ZConfig file is wrong as it is written.  Correct it; waiting will not help."""


class StorageUnreachable(StorageError, ConnectionError):
    """A server did not answer in time.  Trying again later may help."""


class StorageLocked(StorageError):
    """Another process has a FileStorage open.  End it, or share the file through ZEO.

    `path` is the file, `pid` the number of the process if the lock file told it.
    """

    def __init__(self, message: str, path: Path, pid: int | None) -> None:
        super().__init__(message)
        self.path = path
        self.pid = pid


class NewerDatabase(StorageError):
    """A newer zasync has written the database.  Upgrade this one; do not touch the data."""
