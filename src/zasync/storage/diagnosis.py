# SPDX-License-Identifier: ZPL-2.1
"""Turns what ZODB, ZEO, ZConfig and drivers raise while opening into our one-line errors.

What a ZEO server says when it refuses a client is taken from ZEO's log, because its error only
tells that time is up.
"""

from __future__ import annotations

import ast
import logging
import os
import re
import ssl
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import zc.lockfile  # type: ignore[import-untyped]
import zodburi
from ZEO.Exceptions import ClientDisconnected, ServerException
from ZODB.FileStorage.FileStorage import CorruptedFileStorageError, FileStorageFormatError
from ZODB.FileStorage.format import CorruptedError
from ZODB.POSException import ReadOnlyError

from zasync.storage import relstorage
from zasync.storage.errors import (
    BadConfiguration,
    StorageError,
    StorageLocked,
    StorageUnreachable,
    UnknownScheme,
)
from zasync.storage.uri import redacted


@dataclass(frozen=True)
class Subject:
    """What is being opened: how to call it, its scheme, and the addresses of its ZEO servers."""

    name: str
    scheme: str = ""
    servers: str = ""

    def __str__(self) -> str:
        return self.name


@contextmanager
def explained(subject: Subject) -> Iterator[None]:
    """Raise any error of the block as the `StorageError` that explains it."""
    with _ServerReasons() as reasons:
        try:
            yield
        except StorageError:
            raise
        except Exception as error:
            # A half-made FileStorage would keep its lock as long as a frame holds it.
            traceback.clear_frames(error.__traceback__)
            raise diagnosis(error, subject, reasons.last) from error


def diagnosis(error: Exception, subject: Subject, reason: Exception | None) -> StorageError:
    """Answer the error of ours that tells best what `error` means for `subject`.

    `reason` is why a ZEO server refused, if one did.
    """
    match error:
        case zc.lockfile.LockError():
            return _locked(_path_of_lock(error))
        case ClientDisconnected():
            return _unreachable(subject, reason)
        case ReadOnlyError():
            return read_only(subject)
        case ssl.SSLError():
            return StorageUnreachable(
                f"the ZEO server at {subject.servers} and {subject} do not trust each other: "
                f"{_words(error)}; look at the certificates of both sides, and when they expire"
            )
        case FileStorageFormatError():
            return StorageError(
                f"{subject} is not a FileStorage: name the Data.fs of a database, "
                "or a file that does not exist yet"
            )
        case CorruptedFileStorageError() | CorruptedError():
            return StorageError(
                f"{subject} is damaged ({_words(error)}): keep a copy, then repair it with "
                "ZODB's fsrecover, or restore a backup"
            )
        case zodburi.UnknownDatabaseKeywords():
            return _unknown_option(subject, ", ".join(sorted(error.kw)))
        case zodburi.NoResolverForScheme():
            return UnknownScheme(f"{subject}: no storage is known for {redacted(error.uri)}")
    return (
        _about_file(error)
        or relstorage.diagnosis(error, subject.name, subject.scheme)
        or _about_options(error, subject)
        or StorageError(f"cannot open {subject}: {type(error).__name__}: {_words(error)}")
    )


def read_only(subject: Subject) -> BadConfiguration:
    """The error for a storage that takes no changes."""
    where = f"the ZEO server at {subject.servers}" if subject.servers else str(subject)
    return BadConfiguration(
        f"{where} is read-only, and zasync must write: take the read-only option away"
    )


def _locked(path: Path) -> StorageLocked:
    """The error for a FileStorage that another process has open."""
    pid = _pid_in(path.with_name(path.name + ".lock"))
    if pid is None:
        holder = "another process"
    elif pid == os.getpid():
        holder = f"this very process ({pid})"
    else:
        holder = f"process {pid}"
    return StorageLocked(
        f"{path} is open in {holder}, and a FileStorage admits one process at a time: "
        "end that one, or share the file through a ZEO server "
        "(runzeo, or zasync worker --processes N)",
        path,
        pid,
    )


class _ServerReasons(logging.Handler):
    """While in force, remembers why a ZEO server refused this process; `last` is the reason.

    ZEO tries again for as long as it may wait, and tells the reason to its log only.
    """

    _log = logging.getLogger("ZEO.asyncio.client")

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.last: Exception | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the exception of a record that has one."""
        if record.exc_info and isinstance(record.exc_info[1], Exception):
            self.last = record.exc_info[1]

    def __enter__(self) -> Self:
        self._log.addHandler(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._log.removeHandler(self)


def _unreachable(subject: Subject, reason: Exception | None) -> StorageError:
    if isinstance(reason, ReadOnlyError):
        return read_only(subject)
    where = subject.servers or str(subject)
    if reason is None:
        return StorageUnreachable(
            f"no ZEO server answered at {where} in time: is it running there? "
            f"(needed for {subject})"
        )
    if "Server behind client" in str(reason):
        return StorageError(
            f"the database of the ZEO server at {where} is older than what {subject} has seen: "
            "if a backup was restored there, delete its persistent cache file (*.zec)"
        )
    return StorageUnreachable(f"the ZEO server at {where} refuses {subject}: {_words(reason)}")


def _about_file(error: Exception) -> StorageError | None:
    if not isinstance(error, OSError) or not isinstance(error.filename, str):
        return None
    # FileStorage locks before it opens, so the lock file is what it cannot make.
    path = Path(error.filename.removesuffix(".lock"))
    match error:
        case FileNotFoundError() if not path.parent.is_dir():
            text = f"directory {path.parent} does not exist: make it, {path.name} is made then"
        case FileNotFoundError():
            text = f"there is no file {path}"
        case IsADirectoryError():
            text = f"{path} is a directory: name a file in it, such as {path / 'Data.fs'}"
        case PermissionError():
            text = f"this user may not read and write {error.filename}: {error.strerror}"
        case _:
            text = f"cannot open {path}: {error.strerror}"
    return StorageError(text)


def _about_options(error: Exception, subject: Subject) -> StorageError | None:
    if not isinstance(error, TypeError | ValueError):
        return None
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if unknown:
        return _unknown_option(subject, unknown[1])
    return BadConfiguration(f"{subject} cannot be right: {_words(error)}")


def _unknown_option(subject: Subject, option: str) -> StorageError:
    return BadConfiguration(f"{subject} has an option that this storage does not know: {option}")


def _path_of_lock(error: Exception) -> Path:
    """The data file in zc.lockfile's words, which end with the quoted name of the lock file."""
    quoted = re.search(r"lock (['\"].*['\"])$", str(error))
    path = ast.literal_eval(quoted[1]) if quoted else "the FileStorage"
    return Path(str(path).removesuffix(".lock"))


def _pid_in(lock_file: Path) -> int | None:
    try:
        return int(lock_file.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _words(error: BaseException) -> str:
    """The first line of what an error says, without passwords."""
    match error:
        case ServerException(args=(str(), (str() as words, *_))):
            text = words  # what a server raised comes as (class name, arguments)
        case _:
            text = str(error)
    return redacted(text.strip().partition("\n")[0]) or type(error).__name__
