# SPDX-License-Identifier: ZPL-2.1
"""A connection of our own to PostgreSQL, for LISTEN and NOTIFY: the only use of psycopg2 here.

Imported only where psycopg2 is installed; read `notices` first.
"""

from __future__ import annotations

import psycopg2  # type: ignore[import-untyped]
from psycopg2 import sql
from psycopg2.extensions import parse_dsn  # type: ignore[import-untyped]

from zasync.storage.relstorage import LIBPQ_DEFAULTS

Error: type[Exception] = psycopg2.Error

_DEFAULTS = LIBPQ_DEFAULTS | {"connect_timeout": "10"}


class Session:
    """One connection; raises `Error` when it is lost.  `dsn` is RelStorage's own."""

    def __init__(self, dsn: str) -> None:
        self._connection = psycopg2.connect(
            **_DEFAULTS | parse_dsn(dsn) | {"application_name": "zasync notices"}
        )
        self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            # A notice need not survive a loss of power, so nobody waits for the disk.
            cursor.execute("SET synchronous_commit TO off")
            # Channels belong to a database; several RelStorages can lie in its schemas.
            cursor.execute("SELECT 'zasync_' || md5(current_schema())")
            channel = sql.Identifier(cursor.fetchone()[0])
            self._listen = sql.SQL("LISTEN {}").format(channel)
            self._notify = sql.SQL("NOTIFY {}").format(channel)

    def fileno(self) -> int:
        """What to wait at for the server to say something."""
        return int(self._connection.fileno())

    def listen(self) -> None:
        """From now on, get the notices of this database."""
        self._execute(self._listen)

    def notify(self) -> None:
        """Tell all who listen."""
        self._execute(self._notify)

    def has_heard_others(self) -> bool:
        """Take what has arrived; whether one of it came from another session."""
        self._connection.poll()
        own = self._connection.info.backend_pid
        heard = any(notice.pid != own for notice in self._connection.notifies)
        self._connection.notifies.clear()
        return heard

    def close(self) -> None:
        self._connection.close()

    def _execute(self, statement: sql.SQL) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
