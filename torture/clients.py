# SPDX-License-Identifier: ZPL-2.1
"""Clients: threads that put jobs, and write down what they were told.

A client is told one of three things: *ok*; *refused*, when it is sure that nothing was committed
(an error before its commit, or a conflict); *unknown*, when its commit raised anything else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import transaction
from ZODB.POSException import ConflictError

from torture import application
from torture.lines import Lines
from zasync.interfaces import KEY
from zasync.job import Job
from zasync.storage import close_database, open_database

OK, REFUSED, UNKNOWN = "ok", "refused", "unknown"
CHAIN, MEMBERS = 10, 5  # links of a chain, members of a fan
SHARES = {"ledger": 30, "bank": 25, "chain": 15, "fan": 10, "gauge": 10, "answer": 10}  # per cent
LONGEST = 1.5  # seconds that a job takes at most


@dataclasses.dataclass(frozen=True)
class Order:
    """Something to be put, and what must come of it: these effects and callbacks, each once."""

    kind: str
    name: str
    seed: int
    effects: tuple[str, ...]
    callbacks: tuple[str, ...] = ()
    fails: bool = False

    def renamed(self, suffix: str) -> Order:
        """The same under another name, for another try."""

        def new(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(name.replace(self.name, self.name + suffix, 1) for name in names)

        return dataclasses.replace(
            self,
            name=self.name + suffix,
            effects=new(self.effects),
            callbacks=new(self.callbacks),
        )


def orders(jobs: int, chance: random.Random) -> list[Order]:
    """Orders that make at least so many jobs, callbacks not counted, in random order."""
    made: list[Order] = []
    for kind, share in SHARES.items():
        wanted = jobs * share // 100 + 1
        number = 0
        while wanted > 0:
            order = _order(kind, f"{kind}-{number}", chance)
            made.append(order)
            wanted -= len(order.effects)
            number += 1
    chance.shuffle(made)
    return made


def _order(kind: str, name: str, chance: random.Random) -> Order:
    seed = chance.getrandbits(32)
    if kind == "chain":
        return Order(kind, name, seed, tuple(f"{name}/{n}" for n in range(CHAIN)))
    if kind == "fan":
        members = tuple(f"{name}/{n}" for n in range(MEMBERS))
        return Order(kind, name, seed, (*members, f"{name}/in"))
    if kind == "answer":
        fails = chance.random() < 0.3
        callbacks = tuple(f"{name}/{which}" for which in ("always", "chosen", "after"))
        return Order(kind, name, seed, () if fails else (name,), callbacks, fails)
    return Order(kind, name, seed, (name,))


def job_for(order: Order) -> Any:
    """The job, or group of jobs, that the order means."""
    chance = random.Random(order.seed)
    name, seconds = order.name, chance.uniform(0, LONGEST)
    if order.kind == "ledger":
        return Job(application.ledger, name, chance.randrange(application.LEDGERS), seconds)
    if order.kind == "bank":
        giver, taker = chance.sample(range(application.ACCOUNTS), 2)
        return Job(application.bank, name, giver, taker, chance.randint(1, 9), seconds)
    if order.kind == "chain":
        return application.chain_link(name, 0, CHAIN, seconds / CHAIN)
    if order.kind == "fan":
        return application.fan(name, [seconds / n for n in range(1, MEMBERS + 1)])
    if order.kind == "gauge":
        job = Job(application.gauge, name, seconds * 1.5)  # others have come before it ends
        job.quota_names = (application.QUOTA,)
        return job
    job = Job(application.answer, name, order.fails, seconds / 2)
    _add_callbacks(job, order)
    return job


def _add_callbacks(job: Any, order: Order) -> None:
    always, chosen, after = (Job(application.called, name) for name in order.callbacks)
    job.addCallback(always)
    proxy = job.addCallbacks(**{"failure" if order.fails else "success": chosen})
    proxy.addCallback(after)


class Client:
    """Puts its orders one after the other, evenly over `seconds`, through a connection to `uri`."""

    def __init__(self, uri: str, todo: list[Order], seconds: float, history: Lines) -> None:
        self.todo, self.history = todo, history
        self.done = 0
        self.told = {OK: 0, REFUSED: 0, UNKNOWN: 0}
        self._pause = seconds / max(1, len(todo))
        self._stopped = threading.Event()
        self._db = open_database(uri, wait=timedelta(seconds=10))
        self._thread = threading.Thread(target=self._run, name="client", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, seconds: float) -> bool:
        """Whether it has put everything, or does so in time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def close(self) -> None:
        self._stopped.set()
        if self.join(30):
            # A connection that could not be closed when the storage was away cannot be now either.
            with contextlib.suppress(Exception):
                close_database(self._db)

    def _run(self) -> None:
        begin = time.monotonic()
        for number, order in enumerate(self.todo):
            for again in self._tries(order):
                outcome = self._put(again)
                self.told[outcome] += 1
                if outcome == OK:
                    break
            self.done = number + 1
            late = begin + self.done * self._pause - time.monotonic()
            if self._stopped.wait(max(0.0, late)):
                return

    def _tries(self, order: Order) -> Iterator[Order]:
        """What was not acknowledged is put again, as another order."""
        yield order
        number = 2
        while not self._stopped.wait(0.5):
            yield order.renamed(f"~{number}")
            number += 1

    def _put(self, order: Order) -> str:
        manager = transaction.TransactionManager()
        outcome, error = REFUSED, None
        connection = None
        try:
            connection = self._db.open(transaction_manager=manager)
            root = connection.root()
            application.put(root[KEY][""], root[application.ROOT], order.name, job_for(order))
            outcome = UNKNOWN
            manager.commit()
            outcome = OK
        except ConflictError as raised:
            outcome, error = REFUSED, raised
        except Exception as raised:
            error = raised
        finally:
            _let_go(manager, connection)
        told = {"outcome": outcome, "error": None if error is None else type(error).__name__}
        self.history.write(**dataclasses.asdict(order), **told)
        return outcome


def _let_go(manager: Any, connection: Any) -> None:
    try:
        manager.abort()
        if connection is not None:
            connection.close()
    except Exception:  # the storage is away; the next transaction gets another connection
        pass
