# SPDX-License-Identifier: ZPL-2.1
"""A dispatcher whose polls and worker threads are done by hand, in the thread of the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
import transaction

from tests.support.running import Site
from zasync.agent import Agent
from zasync.dispatcher import Dispatcher, pop
from zasync.dispatcher.pool import Pool

ONE, TWO = UUID(int=1), UUID(int=2)


class NoReactor:
    """Takes every call, and does nothing about it."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


class Single:
    """One process: polls and runs when it is told to."""

    def __init__(self, site: Site, uuid: UUID = ONE, **agent: Any) -> None:
        self.site = site
        self.dispatcher = Dispatcher(site.db, NoReactor(), uuid=uuid)

        def register() -> None:
            site.queue.dispatchers.register(uuid)["main"] = Agent(**agent)

        site.commit(register)
        self.dispatcher.activate()
        self.manager = transaction.manager
        self.connection = site.db.open()
        self.dispatcher.poll()

    @property
    def pool(self) -> Pool:
        return self.dispatcher.pool("", "main")

    @property
    def agent(self) -> Any:
        return self.site.queue.dispatchers[self.dispatcher.UUID]["main"]

    def poll(self, ahead: int = 0) -> None:
        """Poll; claim so many jobs ahead of need."""
        self.pool.ahead = lambda: ahead  # type: ignore[method-assign]
        self.dispatcher.poll()

    def begin(self) -> Any:
        """What a thread takes next, to be done with `do`; None if there is nothing for it."""
        task = self.pool._next_task()
        if task is None:
            self.pool._free = 0
        return task

    def do(self, task: Any) -> None:
        self.pool._do(task, self.connection)

    def work(self) -> int:
        """Do all that threads would do; answers how many tasks that were."""
        count = 0
        while (task := self.begin()) is not None:
            self.do(task)
            count += 1
        return count

    def learn(self, *codes: Any, seconds: float = 0.0001) -> None:
        """Have the pool know how long jobs with these callables take."""
        for code in codes:
            self.pool.grouping.took(code, seconds)

    def close(self) -> None:
        self.manager.abort()
        self.connection.close()
        if self.dispatcher.activated:
            self.dispatcher.deactivate(grace=0)
        pop(self.dispatcher.UUID)


@contextmanager
def single(
    site: Site, monkeypatch: pytest.MonkeyPatch, uuid: UUID = ONE, **agent: Any
) -> Iterator[Single]:
    """A `Single` whose pools have no threads."""
    monkeypatch.setattr(Pool, "_start_thread", lambda pool: setattr(pool, "_free", pool._free + 1))
    made = Single(site, uuid, **agent)
    try:
        yield made
    finally:
        made.close()
