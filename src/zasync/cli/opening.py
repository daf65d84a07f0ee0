# SPDX-License-Identifier: ZPL-2.1
"""What the commands do alike with a database: open and close it, look a queue up in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from zasync.cli.errors import CommandError
from zasync.foundation import attempts
from zasync.foundation.attempts import OwnManager
from zasync.interfaces import KEY
from zasync.queue import Queue, Queues
from zasync.storage import close_database, open_database

Command = TypeVar("Command", bound=Callable[..., Any])


def database_option(*, required: bool) -> Callable[[Command], Command]:
    """`--db URI`"""
    return click.option(
        "--db",
        "uri",
        required=required,
        metavar="URI",
        help="The database: a path, file://, zeo://, zconfig://FILE#NAME, or RelStorage's schemes.",
    )


db_option = database_option(required=True)


class UnknownQueue(CommandError, LookupError):
    """The database has no queue of that name; the message names those that it has."""


@contextmanager
def opened(uri: str, **options: Any) -> Iterator[Any]:
    """The database of `uri`, as long as the block; `options` are those of `open_database`."""
    db = open_database(uri, **options)
    try:
        yield db
    finally:
        close_database(db)


@contextmanager
def connected(db: Any) -> Iterator[Any]:
    """A connection with a transaction manager of its own; what is left open is aborted."""
    manager = OwnManager()
    connection = db.open(transaction_manager=manager)
    try:
        yield connection
    finally:
        attempts.end(manager)
        connection.close()


def look(connection: Any) -> Any:
    """The root of the database as it is now; what was begun before is aborted."""
    attempts.end(connection.transaction_manager)
    connection.transaction_manager.begin()
    return connection.root()


def find_queue(root: Any, name: str) -> Any:
    """The queue `name`; UnknownQueue if there is none."""
    queues = root.get(KEY) or {}
    if name not in queues:
        known = ", ".join(repr(each) for each in queues) or "none at all"
        raise UnknownQueue(f"the database has no queue {name!r}; it has {known}")
    return queues[name]


def install_queues(root: Any) -> None:
    """Make the mapping of queues, with the queue '', where there is none.  Does not commit."""
    if KEY not in root:
        root[KEY] = Queues()
    if not len(root[KEY]):
        root[KEY][""] = Queue()


def prepare_queues(db: Any, names: Iterable[str]) -> list[str]:
    """Install the queues if there are none, and commit; answers the names of those there are.

    UnknownQueue for the first of `names` that is not there.
    """

    def prepare() -> list[str]:
        root = connection.root()
        install_queues(root)
        for name in names:
            find_queue(root, name)
        return list(root[KEY])

    with connected(db) as connection:
        manager = connection.transaction_manager
        found: list[str] = attempts.committed(prepare, transaction_manager=manager) or []
    return found
