# SPDX-License-Identifier: ZPL-2.1
"""The errors that drivers really raise, provoked one by one, and how they are sorted."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.support.postgres import PostgresServer
from zasync.foundation.errors import Trouble, classify


def cut_off(server: PostgresServer, session: Any, other: Any) -> None:
    server.terminate_clients("postgres")
    session.execute("SELECT 1")


def used_after_it_was_cut_off(server: PostgresServer, session: Any, other: Any) -> None:
    server.terminate_clients("postgres")
    with pytest.raises(psycopg2.Error):
        session.execute("SELECT 1")
    session.execute("SELECT 1")


def killed(server: PostgresServer, session: Any, other: Any) -> None:
    server.kill()
    session.execute("SELECT 1")


def not_there(server: PostgresServer, session: Any, other: Any) -> None:
    server.stop()
    psycopg2.connect(server.dsn())


def locked(server: PostgresServer, session: Any, other: Any) -> None:
    other.execute("LOCK TABLE things")
    session.execute("SET lock_timeout TO 100")
    session.execute("UPDATE things SET size = 2")


def outrun(server: PostgresServer, session: Any, other: Any) -> None:
    session.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
    session.execute("SELECT * FROM things")
    other.execute("UPDATE things SET size = 2")
    other.connection.commit()
    session.execute("UPDATE things SET size = 3")


def read_only(server: PostgresServer, session: Any, other: Any) -> None:
    session.execute("SET TRANSACTION READ ONLY")
    session.execute("UPDATE things SET size = 2")


def idle_too_long(server: PostgresServer, session: Any, other: Any) -> None:
    session.execute("SET idle_in_transaction_session_timeout TO 1")
    session.connection.commit()
    session.execute("SELECT 1")
    other.execute("SELECT pg_sleep(0.5)")
    session.execute("SELECT 1")


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("provoke", "trouble"),
    [
        (cut_off, Trouble.INFRASTRUCTURE),
        (used_after_it_was_cut_off, Trouble.INFRASTRUCTURE),
        (killed, Trouble.INFRASTRUCTURE),
        (not_there, Trouble.INFRASTRUCTURE),
        (locked, Trouble.INFRASTRUCTURE),
        (outrun, Trouble.CONFLICT),
        (read_only, Trouble.READ_ONLY),
        (idle_too_long, Trouble.INFRASTRUCTURE),
    ],
)
def test_an_error_of_postgresql(
    postgres_server: PostgresServer, provoke: Callable[..., None], trouble: Trouble
) -> None:
    postgres_server.execute("CREATE TABLE IF NOT EXISTS things (size integer)")
    postgres_server.execute("INSERT INTO things VALUES (1)")
    one, two = (psycopg2.connect(postgres_server.dsn()) for _ in range(2))
    with closing(one), closing(two), pytest.raises(psycopg2.Error) as caught:
        provoke(postgres_server, one.cursor(), two.cursor())
    assert classify(caught.value, from_storage=True) is trouble, repr(caught.value)


def test_a_locked_sqlite_database(tmp_path: Path) -> None:
    path = tmp_path / "main.sqlite3"
    with closing(sqlite3.connect(path)) as one, closing(sqlite3.connect(path, timeout=0)) as two:
        one.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked") as caught:
            two.execute("CREATE TABLE things (size)")
    assert classify(caught.value, from_storage=True) is Trouble.INFRASTRUCTURE


def test_a_sqlite_database_that_is_full(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "main.sqlite3")) as one:
        one.execute("PRAGMA max_page_count = 2")
        one.execute("CREATE TABLE things (size)")
        with pytest.raises(sqlite3.OperationalError, match="full") as caught:
            one.execute("INSERT INTO things VALUES (zeroblob(100000))")
    assert classify(caught.value, from_storage=True) is Trouble.INFRASTRUCTURE
