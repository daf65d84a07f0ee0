# SPDX-License-Identifier: ZPL-2.1
"""A bench with the queue in a database of its own, beside one or more with the users' data."""

from __future__ import annotations

from typing import Any

import transaction
from ZODB.DB import DB
from ZODB.DemoStorage import DemoStorage

from tests.support.bench import Bench
from zasync.interfaces import KEY
from zasync.job import two_databases
from zasync.queue import Queue, Queues
from zasync.testing.faults import FaultyStorage

QUEUES = "async"


def halves(names: tuple[str, ...]) -> dict[str, FaultyStorage]:
    """Storages of one process, which die together; the first one has the smallest sort key."""
    made: dict[str, FaultyStorage] = {}
    for number, name in enumerate(names):
        storage = DemoStorage()
        storage.sortKey = lambda key=f"{number}": key
        made[name] = FaultyStorage(storage, together_with=next(iter(made.values()), None))
    return made


class TwoBench(Bench):
    """`storage.fail` counts what happens in any of the storages.

    `order` tells the sort keys: the database that comes first there has the smallest.
    """

    def __init__(self, order: tuple[str, ...] = ("main", QUEUES)) -> None:
        databases: dict[str, Any] = {}
        self.storages = halves(order)
        for name, storage in self.storages.items():
            DB(storage, databases=databases, database_name=name)
        self.storage = self.storages["main"]
        self.db = databases["main"]
        self.open()
        queues = self.home.root()[KEY] = Queues()
        queues[""] = Queue()
        self.commit()

    def close(self) -> None:
        super().close()
        for name, database in list(self.db.databases.items()):
            if name != "main":
                database.close()

    @property
    def home(self) -> Any:
        """The connection to the queue's database."""
        return self.connection.get_connection(QUEUES)

    @property
    def queue(self) -> Any:
        return self.home.root()[KEY][""]

    def restart(self) -> None:
        two_databases.names = two_databases.Names()
        super().restart()

    def keep(self, thing: Any) -> Any:
        """Add something to the queue's database, and commit."""
        self.home.add(thing)
        self.commit()
        return thing

    def fresh(self) -> None:
        """See what is committed now, through new connections."""
        self.manager.abort()
        self.connection.close()
        self.manager = transaction.TransactionManager()
        self.connection = self.db.open(transaction_manager=self.manager)
