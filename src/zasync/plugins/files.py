# SPDX-License-Identifier: ZPL-2.1
"""The file of a download that is under way, on the disk where the storage keeps its blobs.

It goes away with its object.  One that a killed process has left is found by its lock, which
died with that process, and removed by the next download.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from ZODB.interfaces import IBlobStorage

from zasync.plugins.errors import NoBlobs

PREFIX = "zasync-fetch-"
NEW_PREFIX = "zasync-new-"
COPY_PREFIX = "zasync-copy-"


class Download:
    """A file to be written once, and then copied into a blob as often as need be."""

    def __init__(self, db: Any) -> None:
        directory = blob_directory(db)
        remove_leftovers(directory)
        descriptor, new = tempfile.mkstemp(prefix=NEW_PREFIX, dir=directory)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path = new.replace(NEW_PREFIX, PREFIX)
        os.rename(new, path)  # so one with this name is locked for as long as it is needed
        self.path = Path(path)
        self._file = os.fdopen(descriptor, "wb")
        self._finalizer = weakref.finalize(self, _remove, path, self._file)

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def close(self) -> None:
        """All is there.  The file stays open, and so locked."""
        self._file.flush()

    def copy(self) -> str:
        """The name of another file with the same data, for one that uses it up."""
        descriptor, path = tempfile.mkstemp(prefix=COPY_PREFIX, dir=self.path.parent)
        os.close(descriptor)
        os.remove(path)
        try:
            os.link(self.path, path)  # the same data under a second name
        except OSError:
            shutil.copyfile(self.path, path)
        return path

    def discard(self) -> None:
        self._finalizer()


def _remove(path: str, file: Any) -> None:
    with contextlib.suppress(OSError):
        os.remove(path)
    with contextlib.suppress(OSError):
        file.close()


def blob_directory(db: Any) -> Path:
    """Where the storage of `db` wants files that become blobs.  NoBlobs if it keeps none."""
    try:
        if IBlobStorage.providedBy(db.storage):
            return Path(db.storage.temporaryDirectory())
    except Exception:  # what a storage without a directory does about it is its own affair
        pass
    raise NoBlobs(
        f"the storage of the database {db.database_name!r}, {db.storage.getName()!r}, keeps no"
        " blobs: open it with a directory for them (blob-dir in ZConfig, blob_dir in a URI)"
    )


def remove_leftovers(directory: Path) -> None:
    """Remove the files of processes that are gone."""
    for path in directory.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.remove(path)
            finally:
                os.close(descriptor)
