# SPDX-License-Identifier: ZPL-2.1
"""`python -m benchmarks.worker`: a process with one zasync dispatcher, for one measurement.

It says "ready" and waits for a line before it begins, works until its input ends, and then says
in one line of JSON what its commits came to.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import transaction
from twisted.internet.selectreactor import SelectReactor
from ZODB.Connection import Connection
from ZODB.POSException import ConflictError

from benchmarks import work
from benchmarks.places import URI
from zasync.agent import Agent
from zasync.dispatcher import Dispatcher, pop
from zasync.interfaces import KEY
from zasync.storage import close_database, open_database

SIZE = "ZASYNC_BENCH_SIZE"  # jobs at once
BATCH = "ZASYNC_BENCH_BATCH"  # jobs in one commit; 0: the default mode
FILTER = "ZASYNC_BENCH_FILTER"  # whether its agent has a filter
POLL_INTERVAL = 5.0  # seconds, the default; so nothing here is owed to polling
GRACE = 2.0


class Commits:
    """Counts the commits of this process and those that met a conflict, of all databases."""

    def __init__(self) -> None:
        self.committed = self.conflicts = 0
        self._finish, self._commit, self._vote = (
            Connection.tpc_finish,
            Connection.commit,
            Connection.tpc_vote,
        )

    def watch(self) -> None:
        def tpc_finish(connection: Any, *args: Any) -> Any:
            self.committed += 1
            return self._finish(connection, *args)

        Connection.tpc_finish = tpc_finish
        Connection.commit = self._noticing(self._commit)
        Connection.tpc_vote = self._noticing(self._vote)

    def _noticing(self, method: Any) -> Any:
        def noticing(connection: Any, *args: Any) -> Any:
            try:
                return method(connection, *args)
            except ConflictError:
                self.conflicts += 1
                raise

        return noticing


@contextlib.contextmanager
def dispatching(
    db: Any, *, size: int, batch: int = 0, filtered: bool = False
) -> Iterator[Dispatcher]:
    """A dispatcher with an agent of its own in the queue '', in a thread."""
    name = uuid.uuid4()
    options: dict[str, Any] = {"filter": work.accepted} if filtered else {}
    if batch:
        options["batch"] = batch
    manager = transaction.TransactionManager()
    connection = db.open(transaction_manager=manager)
    for attempt in manager.attempts(20):
        with attempt:
            queue = connection.root()[KEY][""]
            queue.dispatchers.register(name)["main"] = Agent(size=size, **options)
    connection.close()
    reactor = SelectReactor()
    dispatcher = Dispatcher(db, reactor, POLL_INTERVAL, name, grace=GRACE)

    def run() -> None:
        dispatcher.activate()
        reactor.run(installSignalHandlers=False)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield dispatcher
    finally:
        reactor.callFromThread(reactor.stop)
        thread.join(30)
        pop(name)


def main() -> None:
    logging.basicConfig(level=logging.CRITICAL)
    commits = Commits()
    commits.watch()
    db = open_database(os.environ[URI])
    print("ready", flush=True)
    sys.stdin.readline()
    before = commits.committed
    with dispatching(
        db,
        size=int(os.environ.get(SIZE, "10")),
        batch=int(os.environ.get(BATCH, "0")),
        filtered=FILTER in os.environ,
    ):
        sys.stdin.read()
        threads = threading.active_count()
    close_database(db)
    answer = {
        "commits": commits.committed - before,
        "conflicts": commits.conflicts,
        "threads": threads,
    }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
