# SPDX-License-Identifier: ZPL-2.1
"""A database with a queue and an agent, and what a dispatcher does, done by hand in one thread."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import transaction
from ZODB.DB import DB

from zasync.agent import Agent
from zasync.interfaces import KEY
from zasync.job import Job
from zasync.queue import Queue, Queues
from zasync.testing.faults import FaultyStorage

UUID = uuid.UUID(int=26)


class Another:
    """A connection with a transaction manager of its own."""

    def __init__(self, db: Any) -> None:
        self._manager = transaction.TransactionManager()
        self.connection = db.open(transaction_manager=self._manager)
        self.begin, self.commit = self._manager.begin, self._manager.commit
        self.begin()

    def close(self) -> None:
        self._manager.abort()
        self.connection.close()


class Bench:
    """Sees its database through one connection; `restart` opens another, as a new process does."""

    def __init__(self) -> None:
        self.storage = FaultyStorage()
        self.db = DB(self.storage)
        self.open()
        queues = self.root[KEY] = Queues()
        queues[""] = Queue()
        self.commit()

    def open(self) -> None:
        self.manager = transaction.TransactionManager()
        self.connection = self.db.open(transaction_manager=self.manager)

    def close(self) -> None:
        self.storage.revive()
        self.manager.abort()
        self.connection.close()
        self.db.close()

    @property
    def root(self) -> Any:
        return self.connection.root()

    @property
    def queue(self) -> Any:
        return self.root[KEY][""]

    @property
    def record(self) -> Any:
        """The record of the one dispatcher, activated and with an agent, made if need be."""
        if UUID not in self.queue.dispatchers:
            record = self.queue.dispatchers.register(UUID)
            record.activate()
            record["main"] = Agent(size=100)
            self.commit()
        return self.queue.dispatchers[UUID]

    @property
    def agent(self) -> Any:
        return self.record["main"]

    def commit(self) -> None:
        self.manager.commit()

    def begin(self) -> None:
        self.manager.begin()

    def stored(self, *args: Any, kind: Callable[..., Any] = Job, **kwargs: Any) -> Any:
        """A committed job that is in no queue."""
        job = kind(*args, **kwargs)
        return self.keep(job)

    def keep(self, thing: Any) -> Any:
        """Add something persistent to the database, and commit."""
        self.connection.add(thing)
        self.commit()
        return thing

    def held(self, *args: Any, **kwargs: Any) -> Any:
        """A committed job that is ASSIGNED in the agent."""
        agent = self.agent
        job = self.queue.put(Job(*args, **kwargs))
        assert agent.claimJob() is job
        self.commit()
        return job

    @contextmanager
    def elsewhere(self) -> Iterator[Callable[[Any], Any]]:
        """A function that answers an object as another connection sees it; commits at the end."""
        manager = transaction.TransactionManager()
        connection = self.db.open(transaction_manager=manager)
        try:
            manager.begin()
            yield lambda thing: connection.get(thing._p_oid)
            manager.commit()
        finally:
            manager.abort()
            connection.close()

    def open_another(self) -> Another:
        """A second connection, which sees what was committed until now."""
        return Another(self.db)

    def seen(self, thing: Any, look: Callable[[Any], Any]) -> Any:
        """What `look` says about `thing`, as another connection sees it."""
        with self.elsewhere() as there:
            return look(there(thing))

    def work(self) -> int:
        """Claim and call jobs until none is due; answers how many there were."""
        count = 0
        while True:
            self.begin()
            self.record.ping()
            job = self.agent.claimJob()
            if job is None:
                self.manager.abort()
                return count
            job()
            count += 1

    def restart(self) -> None:
        """Go on as another process, after the death of the first one; hand back what it held."""
        self.storage.revive()
        self.open()
        self.begin()
        self.record.deactivate(crashed=True)
        self.record.activate()
        self.commit()
