# SPDX-License-Identifier: ZPL-2.1
"""A bench with the queue in a database of its own, beside one or more with the users' data."""

from __future__ import annotations

import dataclasses
from typing import Any

import transaction
from ZODB.DB import DB

from tests.support.bench import Bench
from tests.support.faulty import Fault, FaultyStorage
from zasync.interfaces import KEY
from zasync.job import two_databases
from zasync.queue import Queue, Queues

QUEUES = "async"


@dataclasses.dataclass
class World:
    """What the storages of one process have in common: what fails, and whether it is dead."""

    faults: list[Fault] = dataclasses.field(default_factory=list)
    dead: bool = False


class Half(FaultyStorage):
    """A storage of a process with several; dies with the others."""

    def __init__(self, world: World, key: str) -> None:
        self.world = world
        super().__init__()
        self.sortKey = lambda: key  # DemoStorage gives each instance one, too

    dead = property(  # type: ignore[assignment]
        lambda self: self.world.dead, lambda self, dead: setattr(self.world, "dead", dead)
    )


class TwoBench(Bench):
    """`storage.fail` counts what happens in any of the storages.

    `order` tells the sort keys: the database that comes first there has the smallest.
    """

    def __init__(self, order: tuple[str, ...] = ("main", QUEUES)) -> None:
        world = World()
        databases: dict[str, Any] = {}
        self.storages = {name: Half(world, f"{number}") for number, name in enumerate(order)}
        for name, storage in self.storages.items():
            DB(storage, databases=databases, database_name=name)
            storage.faults = world.faults
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
