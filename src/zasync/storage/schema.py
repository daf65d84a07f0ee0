# SPDX-License-Identifier: ZPL-2.1
"""Refusing a database that a newer zasync has written, before anything of it is used.

It knows no class of the queue: it reads one number, and creates nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import transaction
import ZODB
from ZODB.interfaces import IBroken

from zasync.interfaces import KEY
from zasync.storage.errors import BadConfiguration, NewerDatabase

# The form of the stored data that this zasync writes, and the newest that it can read.
SCHEMA = 1


def check_schema(db: ZODB.DB) -> None:
    """Raise `NewerDatabase` if what lies in the root under KEY has a form that is too new.

    Uses a connection and a transaction of its own, which it aborts.  No queue at all is fine.
    Raises `BadConfiguration` if the root refers to a database that is not open.
    """
    transactions = transaction.TransactionManager(explicit=True)
    connection = db.open(transactions)
    try:
        transactions.begin()
        queues = _root(connection).get(KEY)
        if queues is not None:
            _refuse_newer(queues, db.database_name)
    finally:
        transactions.abort()
        connection.close()


def _root(connection: Any) -> Any:
    root = connection.root()
    try:
        root.keys()
    except Exception as error:
        db = connection.db()
        missing = _missing_database(error, db.databases)
        if missing is None:
            raise
        raise BadConfiguration(
            f"database {db.database_name!r} refers to database {missing!r}, which is not open: "
            "open that first, or both from one ZConfig file (zconfig://FILE)"
        ) from error
    return root


def _missing_database(error: BaseException, databases: Mapping[str, Any]) -> str | None:
    """The name that a cross-database reference asked for in vain.

    Connections look it up in the mapping; ZODB 6.4 wraps the error of that, older ones don't.
    """
    match error.__cause__ or error:
        case KeyError(args=(str(name),)) if name not in databases:
            return name
    return None


def _refuse_newer(queues: Any, name: str) -> None:
    if IBroken.providedBy(queues):
        # Its class is gone or not there yet, and with it perhaps the number.
        kind = f"{type(queues).__module__}.{type(queues).__qualname__}"
        raise NewerDatabase(
            f"root[{KEY!r}] of database {name!r} is a {kind}, which this zasync (schema {SCHEMA}) "
            "does not have: use the newer zasync that wrote it"
        )
    schema = getattr(queues, "schema", SCHEMA)
    if not isinstance(schema, int) or schema > SCHEMA:
        raise NewerDatabase(
            f"database {name!r} has schema {schema!r}, but this zasync knows schemas up to "
            f"{SCHEMA}: use the newer zasync that wrote it"
        )
