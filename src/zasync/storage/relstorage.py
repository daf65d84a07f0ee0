# SPDX-License-Identifier: ZPL-2.1
"""What is special about RelStorage: gaps in its URIs, missing drivers, and races at first use.

RelStorage itself stays unimported; zodburi or ZConfig load it, and its errors are known by
name.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from zasync.foundation.errors import Trouble, classify
from zasync.storage.errors import BadConfiguration, StorageError, StorageUnreachable
from zasync.storage.uri import RELSTORAGE_EXTRAS, redacted, scheme_of, with_default

NO_DRIVER = "relstorage.adapters.interfaces.DriverNotAvailableError"


def prepared(uri: str, seconds: int) -> str:
    """Answer a `normalised` URI such that RelStorage understands it as it was meant.

    Connecting gives up after `seconds` where the driver can be told so.  Raises
    `BadConfiguration` for what RelStorage would misunderstand.
    """
    match scheme_of(uri):
        case "sqlite" if sqlite_directory(uri) is None:
            raise BadConfiguration(
                f"{uri} does not say where: write sqlite:///?data_dir=DIRECTORY "
                "(a path before the question mark is ignored)"
            )
        case "postgres":
            return _bounded(_with_port(uri), seconds)
    return uri


def sqlite_directory(uri: str) -> Path | None:
    """The directory that a `sqlite://` URI names, or None."""
    if scheme_of(uri) != "sqlite":
        return None
    directories = parse_qs(urlsplit(uri).query).get("data_dir")
    return Path(directories[-1]) if directories else None


@contextmanager
def alone_in(directory: Path, seconds: int) -> Iterator[None]:
    """Keep others of us from opening a SQLite database in `directory` meanwhile.

    Those who open a new one together can leave tables without a row that all the rest refers
    to, and nobody can use it ever after.  The lock is SQLite's own, on a file beside.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with closing(
        sqlite3.connect(directory / "zasync-opening.lock", timeout=seconds, isolation_level=None)
    ) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        yield


def lost_the_race(error: BaseException) -> bool:
    """Whether `error` says that another process was making the same tables meanwhile.

    RelStorage makes them without a lock; PostgreSQL then refuses all but the first.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    return "IntegrityError" in names or (
        bool(names & {"OperationalError", "ProgrammingError"}) and "already exists" in str(error)
    )


def diagnosis(error: Exception, subject: str, scheme: str) -> StorageError | None:
    """Our error for one of RelStorage's or of its drivers', or None for any other."""
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
    if NO_DRIVER in names:
        extra = RELSTORAGE_EXTRAS.get(scheme, "relstorage")
        return BadConfiguration(
            f"{subject} needs a database driver that is not installed: "
            f"pip install 'zasync[{extra}]', or a driver that RelStorage's documentation names"
        )
    first_line = redacted(str(error).strip().partition("\n")[0])
    if "sqlite3.Error" in names:
        return StorageError(f"cannot open {subject}: {first_line}")
    if isinstance(error, OSError) and scheme not in RELSTORAGE_EXTRAS:
        return None
    if classify(error, from_storage=True) is Trouble.INFRASTRUCTURE:
        return StorageUnreachable(f"the server of {subject} cannot be used: {first_line}")
    return None


def _with_port(uri: str) -> str:
    parts = urlsplit(uri)
    if not parts.username or not parts.hostname:
        raise BadConfiguration(
            f"{redacted(uri)} lacks a user or host: write postgresql://user@host/database"
        )
    if parts.port is not None:
        return uri
    return parts._replace(netloc=f"{parts.netloc.rstrip(':')}:5432").geturl()


def _bounded(uri: str, seconds: int) -> str:
    # Only psycopg2 knows the option; pg8000 would stumble over it.
    if "driver=pg8000" in uri or find_spec("psycopg2") is None:
        return uri
    return with_default(uri, "connect_timeout", max(2, seconds))
