# SPDX-License-Identifier: ZPL-2.1
"""The storages of the conformance tests: where one is, and what can be done to it.

A new storage is a function here, and one line in `PLACES`.
"""

from __future__ import annotations

import dataclasses
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from ZODB.serialize import referencesf

from tests.support.postgres import PostgresServer
from tests.support.zeo import ZeoServer
from zasync.storage import close_database, open_database

WAIT = timedelta(seconds=3)  # for a server that is away


@dataclasses.dataclass
class Place:
    """A new, empty storage.  What is opened is closed by the fixture."""

    name: str
    uri: str
    separate: bool = True  # several processes can have it open
    prompt: bool = True  # a put elsewhere wakes at once
    server: Any = None  # has kill() and start()
    cut_off: Callable[[], object] | None = None  # the server drops all of its clients
    hold_commits: Callable[[], AbstractContextManager[object]] | None = None  # for nobody
    forbid_writes: Callable[[], AbstractContextManager[object]] | None = None
    opened: list[Any] = dataclasses.field(default_factory=list)

    def open(self, **options: str) -> Any:
        """The database as one more process has it, or the only one if there can be no more."""
        if self.opened and not self.separate:
            return self.opened[0]
        query = "&".join(f"{name}={value}" for name, value in options.items())
        self.opened.append(open_database(_with(self.uri, query), wait=WAIT))
        return self.opened[-1]

    def pack(self, *, collect: bool) -> None:
        """Pack all that is older than now, with or without collection of garbage."""
        if "FileStorage" in self.name:
            self.open().storage.pack(time.time(), referencesf, gc=collect)
        elif "DemoStorage" in self.name:
            # Its own pack stumbles over changes that were given to it (ZODB 6.4).
            self.open().storage.changes.pack(time.time(), referencesf, gc=False)
        elif "ZEO" in self.name:
            self.open().pack()
        else:
            self.open(pack_gc=str(collect).lower()).pack()

    def close(self) -> None:
        for database in self.opened:
            close_database(database)


def _with(uri: str, query: str) -> str:
    return f"{uri}{'&' if '?' in uri else '?'}{query}" if query else uri


def file_storage(name: str, directory: Path, _: Any) -> Place:
    return Place(name, f"file://{directory}/Data.fs", separate=False)


def demo_storage(name: str, directory: Path, _: Any) -> Place:
    return Place(name, "demo:(memory://base)/(memory://changes)", separate=False)


def zeo(name: str, directory: Path, _: Any) -> Iterator[Place]:
    with ZeoServer(str(directory / "Data.fs")) as server:
        yield Place(name, server.uri, server=server)


def sqlite(name: str, directory: Path, _: Any) -> Place:
    @contextmanager
    def held() -> Iterator[object]:
        file = directory / "jobs" / "main.sqlite3"
        with closing(sqlite3.connect(file, isolation_level=None)) as lock:
            lock.execute("BEGIN IMMEDIATE")
            yield

    uri = f"sqlite:///?data_dir={directory}/jobs&keep_history=false&commit_lock_timeout=1"
    return Place(name, uri, prompt=False, hold_commits=held)


def history_free(name: str, directory: Path, server: PostgresServer) -> Place:
    return _postgresql(name, server, keep_history="false")


def history_preserving(name: str, directory: Path, server: PostgresServer) -> Place:
    return _postgresql(name, server, keep_history="true")


def _postgresql(name: str, server: PostgresServer, keep_history: str) -> Place:
    database = server.create_database()

    @contextmanager
    def held() -> Iterator[object]:
        with closing(psycopg2.connect(server.dsn(database))) as lock, lock.cursor() as cursor:
            table = "current_object" if keep_history == "true" else "object_state"
            cursor.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
            yield
            lock.rollback()

    @contextmanager
    def forbidden() -> Iterator[object]:
        # What a hot standby does to its clients, and a failover then ends.
        setting = f"ALTER DATABASE {database} SET default_transaction_read_only"
        server.execute(f"{setting} TO on")
        server.terminate_clients(database)
        try:
            yield
        finally:
            server.execute(f"{setting} TO off")
            server.terminate_clients(database)

    uri = server.uri(database, keep_history=keep_history, commit_lock_timeout="1")
    return Place(
        name,
        uri,
        server=server,
        cut_off=lambda: server.terminate_clients(database),
        hold_commits=held,
        forbid_writes=forbidden,
    )


@dataclasses.dataclass(frozen=True)
class Kind:
    """How to make a storage of one kind, and what can be done with it, in one word each."""

    make: Callable[..., Any]
    can: frozenset[str]
    marks: tuple[Any, ...] = ()


_POSTGRES = (pytest.mark.postgres,)
_ALL = {"processes", "prompt", "server", "cut off", "hold commits", "forbid writes", "collect"}

PLACES = {
    "FileStorage": Kind(file_storage, frozenset({"prompt", "collect"})),
    "DemoStorage": Kind(demo_storage, frozenset({"prompt"})),
    "ZEO": Kind(zeo, frozenset({"processes", "prompt", "server", "collect"}), (pytest.mark.zeo,)),
    "RelStorage/SQLite": Kind(sqlite, frozenset({"processes", "hold commits", "collect"})),
    "RelStorage/PostgreSQL": Kind(history_free, frozenset(_ALL), _POSTGRES),
    "RelStorage/PostgreSQL with history": Kind(history_preserving, frozenset(_ALL), _POSTGRES),
}


@contextmanager
def place(name: str, directory: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    """A new, empty storage of one kind."""
    server = request.getfixturevalue("postgres_server") if "PostgreSQL" in name else None
    made = PLACES[name].make(name, directory, server)
    if isinstance(made, Place):
        made = iter([made])
    for each in made:
        try:
            yield each
        finally:
            each.close()
