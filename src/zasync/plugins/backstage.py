# SPDX-License-Identifier: ZPL-2.1
"""Short transactions for coroutines, done in a thread with a connection of its own.

A coroutine has no transaction, and a commit would hold up all others of its loop.  The thread is
shared by those of one database, and ends with the last of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from zasync.foundation import attempts
from zasync.foundation.attempts import OwnManager, Stopped, committed

Result = TypeVar("Result")


class Backstage:
    """Where `do` has functions called and committed.  Use `backstage`."""

    def __init__(self, db: Any) -> None:
        self.users = 0
        self._db = db
        self._inbox: queue.SimpleQueue[Callable[[Any], None] | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="zasync backstage", daemon=True)
        self._grow(1)
        self._thread.start()

    def _grow(self, change: int) -> None:
        for database in self._db.databases.values():
            database.setPoolSize(database.getPoolSize() + change)

    async def do(self, function: Callable[..., Result], *args: Any) -> Result:
        """Call `function(connection, *args)` and commit; answers what it answered.

        It is called again after a conflict, so it must be one that may be called twice.  A storage
        that is away is waited for.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def settle(answer: Any, error: BaseException | None) -> None:
            if future.done():  # nobody waits any more
                return
            if error is None:
                future.set_result(answer)
            else:
                future.set_exception(error)

        def task(connection: Any) -> None:
            answer, error = None, None
            try:
                manager = connection.transaction_manager
                answer = committed(function, connection, *args, transaction_manager=manager)
            except BaseException as raised:
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, answer, error)
            if isinstance(error, Stopped):
                raise error

        self._inbox.put(task)
        return await future

    def end(self) -> None:
        """Have the thread end; what waits for a storage is given up."""
        self._stop.set()
        self._inbox.put(None)
        self._grow(-1)

    def _run(self) -> None:
        attempts.stop_signal.set(self._stop)
        connection = None
        try:
            while (task := self._inbox.get()) is not None:
                if connection is None:
                    connection = self._db.open(transaction_manager=OwnManager())
                task(connection)
                attempts.end(connection.transaction_manager)
                connection.cacheGC()
        except Stopped:
            pass
        finally:
            if connection is not None:
                attempts.end(connection.transaction_manager)
                connection.close()


_stages: weakref.WeakKeyDictionary[Any, Backstage] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


@contextlib.asynccontextmanager
async def backstage(db: Any) -> AsyncIterator[Backstage]:
    """The Backstage of `db`, for the block."""
    with _lock:
        stage = _stages.get(db)
        if stage is None:
            stage = _stages[db] = Backstage(db)
        stage.users += 1
    try:
        yield stage
    finally:
        with _lock:
            stage.users -= 1
            if not stage.users:
                del _stages[db]
                stage.end()
