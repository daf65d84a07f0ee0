# SPDX-License-Identifier: ZPL-2.1
"""Opening a database from a URI or a ZConfig file, in bounded time and with clear errors.

The steps: read what is to be opened (`uri`, `zconfig`), open it, look at what came
(`schema`).  Any error on the way is explained by `diagnosis` and leaves nothing open.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import ZODB
from ZODB.POSException import ConflictError
from zodburi.datatypes import convert_int

from zasync.foundation.reporting import events
from zasync.storage import notices, oids, relstorage, tls, zconfig
from zasync.storage.diagnosis import Subject, explained, read_only
from zasync.storage.errors import BadConfiguration, StorageError
from zasync.storage.schema import check_schema
from zasync.storage.uri import (
    FileStorageURI,
    normalised,
    redacted,
    scheme_of,
    with_zeo_wait,
    zeo_address,
)

DEFAULT_WAIT = timedelta(seconds=10)
# Whoever opens a new database makes its root object.  Of those who do so at the same instant
# all but one get a conflict, and find it made when they come again.
_TRIES = 5

Databases = dict[str, ZODB.DB]


def open_database(
    uri: str,
    *,
    database_name: str | None = None,
    databases: Databases | None = None,
    pool_size: int | None = None,
    wait: timedelta = DEFAULT_WAIT,
    create: bool = True,
    writable: bool = True,
    allow_newer: bool = False,
) -> ZODB.DB:
    """Open the database that `uri` names and answer it; `close_database` is its opposite.

    `uri` is a path to a FileStorage, a URI that zodburi knows (`file://`, `zeo://`,
    `memory://`, `demo:`, RelStorage's), or `zconfig://FILE#NAME`.  Of a ZConfig file all
    `<zodb>` sections are opened as one multi-database; the answer is the one called NAME, or
    the first.

    `databases` is the mapping of a multi-database to join, where databases that others refer
    to come first; `database_name` is the name in it (for a ZConfig file: another way to give
    NAME).  `pool_size` is how many connections ZODB shall expect, in each database that is
    opened here.  `wait` is how long to wait for a server; with ZEO it is later also how long a
    call waits for a lost server to return, unless the URI or file has a wait timeout of its
    own.  With `create` off, a `file://` that does not exist is an error.  With `writable` off,
    a read-only storage is none; with `allow_newer` on, the database of a newer zasync is none.

    Raises a `StorageError` with one line that names the thing and what to do; then nothing
    stays open.  Commits nothing but the root object of a new database, as ZODB does.
    """
    uri = normalised(uri)
    seconds = max(1, math.ceil(wait.total_seconds()))
    if scheme_of(uri) == "zconfig":
        openings, chosen = _from_zconfig(uri, database_name, pool_size, seconds)
    else:
        chosen = _from_uri(uri, database_name, pool_size, seconds, create)
        openings = [chosen]
    databases = {} if databases is None else databases
    with ExitStack() as on_error:
        for opening in openings:
            db = opening.open(databases)
            on_error.callback(databases.pop, opening.name)
            on_error.callback(db.close)
        # Only now, because the root of one may refer to another.
        for opening in openings:
            opening.accept(databases[opening.name], writable and opening is chosen, allow_newer)
        on_error.pop_all()
    notices.tell_others(databases[chosen.name])
    return databases[chosen.name]


def close_database(db: ZODB.DB) -> None:
    """Close `db` and all databases of its multi-database; to do so twice is harmless."""
    with ExitStack() as closing:
        for each in [db, *db.databases.values()]:
            # Looked up when called, because ZODB replaces it by one that does nothing.
            closing.callback(lambda each: each.close(), each)
            closing.callback(notices.hang_up, each)


@dataclass(frozen=True)
class _Opening:
    """One database that is to be opened: its name, how, and what to call it in messages."""

    name: str
    open_once: Callable[[Databases], ZODB.DB]
    subject: Subject
    seconds: int
    sqlite_directories: tuple[Path, ...] = ()

    def open(self, databases: Databases) -> ZODB.DB:
        """Open it into `databases`, again if another process was making it meanwhile."""
        if self.name in databases:
            raise BadConfiguration(
                f"there is a database named {self.name!r} already: "
                f"open {self.subject} with another database_name"
            )
        with explained(self.subject), ExitStack() as alone:
            for directory in self.sqlite_directories:
                alone.enter_context(relstorage.alone_in(directory, self.seconds))
            for tries_left in reversed(range(_TRIES)):
                try:
                    db = self.open_once(databases)
                    mend(db)
                    return db
                except Exception as error:
                    databases.pop(self.name, None)  # ZODB enters a database before it is ready
                    if not tries_left or not _lost_the_race(error):
                        raise
        raise AssertionError("the last try returns or raises")

    def accept(self, db: ZODB.DB, writable: bool, allow_newer: bool) -> None:
        """Raise a `StorageError` if we cannot work with what was opened."""
        with explained(self.subject):
            if writable and db.storage.isReadOnly():
                raise read_only(self.subject)
            if not allow_newer:
                check_schema(db)
        weakness = relstorage.forgets_at_power_loss(db.storage)
        if weakness is not None and writable:
            events.storage_forgets(str(self.subject), weakness)


def _from_uri(
    uri: str, database_name: str | None, pool_size: int | None, seconds: int, create: bool
) -> _Opening:
    scheme = scheme_of(uri)
    servers = zeo_address(uri) if scheme == "zeo" else ""
    subject = Subject(redacted(uri), scheme, servers)
    with explained(subject):
        if scheme == "file":
            uri = _checked_file(uri, create)
        uri = relstorage.prepared(with_zeo_wait(uri, seconds), seconds)
        make_storage, options = (tls if tls.is_wanted(uri) else relstorage).resolved(uri)
    if database_name is not None:
        options["database_name"] = database_name
    if pool_size is not None:
        options["pool_size"] = pool_size

    def open_once(databases: Databases) -> ZODB.DB:
        storage = make_storage()
        try:
            return ZODB.DB(storage, databases=databases, **options)
        except BaseException:
            storage.close()
            raise

    directory = relstorage.sqlite_directory(uri)
    directories = () if directory is None else (directory,)
    return _Opening(options["database_name"], open_once, subject, seconds, directories)


def _from_zconfig(
    uri: str, database_name: str | None, pool_size: int | None, seconds: int
) -> tuple[list[_Opening], _Opening]:
    path, fragment = zconfig.parse(uri)
    if fragment and database_name and fragment != database_name:
        raise BadConfiguration(
            f"{uri} names {fragment!r}, but the database asked for is {database_name!r}"
        )
    sections = zconfig.sections(path)
    openings = {}
    for section in sections:
        name = zconfig.database_name(section)
        if pool_size is not None:
            section.config.pool_size = pool_size
        subject = Subject(f"<zodb {name}> of {path}", servers=zconfig.servers(section))
        zconfig.bound(section, seconds)
        directories = tuple(zconfig.sqlite_directories(section))
        openings[name] = _Opening(name, section.open, subject, seconds, directories)
    chosen = zconfig.named(sections, fragment or database_name or "", path)
    return list(openings.values()), openings[zconfig.database_name(chosen)]


def _checked_file(uri: str, create: bool) -> str:
    """Answer the URI as zodburi wants it, unless it would make or erase a database unasked."""
    file = FileStorageURI.parse(uri)
    exists = file.path.exists()
    if not create and not exists:
        raise StorageError(f"there is no database {file.path}: is the path right?")
    if exists and convert_int(file.options.get("create", "0")):
        raise BadConfiguration(
            f"create={file.options['create']} would erase the database {file.path}: take the "
            "option away (a file that does not exist is made without it)"
        )
    return str(file)


def _lost_the_race(error: Exception) -> bool:
    return isinstance(error, ConflictError) or relstorage.lost_the_race(error)


def mend(db: Any) -> None:
    """Work around what is known to go wrong in the storages of `db` when processes are killed.

    `open_database` and dispatchers do this; call it once for a database that was opened otherwise
    and in which others work that may die.
    """
    for database in db.databases.values():
        oids.forget_when_disconnected(database.storage)
        relstorage.forget_aborted(database.storage)
