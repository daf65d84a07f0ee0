# SPDX-License-Identifier: ZPL-2.1
"""The event loop for users' coroutines: in a thread of its own, so that one that blocks stops
neither polls nor pings, and without any worker thread or ZODB transaction.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from zasync import threadlocal
from zasync.dispatcher.expiry import overtime
from zasync.foundation.attempts import OwnManager, end

Done = Callable[[Any, BaseException | None], None]


class CoroutineLoop:
    """An asyncio loop that is started when it is first needed."""

    def __init__(self, db: Any, may_begin: Callable[[], bool]) -> None:
        self._db = db
        self._may_begin = may_begin
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._connection: Any = None
        self._stopping = False

    def run(
        self,
        coroutine: Coroutine[Any, Any, Any],
        surroundings: threadlocal.Surroundings,
        done: Done,
        held_back: Callable[[], None],
        name: str | None = None,
    ) -> None:
        """Run `coroutine` under `name`; then call `done(value, error)` in the loop's thread.

        Where it may not be begun (any more, when it is its turn), `held_back()` is called there
        instead, and the coroutine is left.  One that `stop` has cancelled ends without `done`.
        Called in any thread.
        """
        loop = self._running_loop()
        loop.call_soon_threadsafe(self._start, coroutine, surroundings, done, held_back, name)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="zasync coroutines", daemon=True
                )
                self._thread.start()
            return self._loop

    def _start(
        self,
        coroutine: Any,
        surroundings: threadlocal.Surroundings,
        done: Done,
        held_back: Callable[[], None],
        name: str | None,
    ) -> None:
        if not self._may_begin():
            held_back()
            return
        task = asyncio.get_running_loop().create_task(
            self._perform(coroutine, surroundings, done), name=name
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda task: coroutine.close())  # one cancelled before it began

    def cancel(self, name: str) -> None:
        """Cancel what runs under `name`; it ends with `done`, if it had begun.

        Called in any thread; nothing happens if there is no such coroutine.
        """
        with self._lock:
            loop = self._loop
        if loop is not None:
            loop.call_soon_threadsafe(self._cancel, name)

    def _cancel(self, name: str) -> None:
        for task in list(self._tasks):
            if task.get_name() == name:
                task.cancel()

    async def _perform(
        self, coroutine: Any, surroundings: threadlocal.Surroundings, done: Done
    ) -> None:
        threadlocal.surroundings.set(surroundings)
        try:
            async with asyncio.timeout(surroundings.timeout) as limit:
                value = await coroutine
        except BaseException as error:
            if self._stopping and isinstance(error, asyncio.CancelledError):
                raise
            if limit.expired() and isinstance(error, builtins.TimeoutError):
                error = overtime(surroundings.timeout)
            done(None, error)
        else:
            done(value, None)

    def job(self, database_name: str, oid: bytes) -> Any:
        """The job as it is now, for reading, for the code that runs in the loop's thread."""
        if self._connection is None:
            manager = OwnManager()
            self._connection = self._db.open(transaction_manager=manager)
        else:
            end(self._connection.transaction_manager)
        self._connection.transaction_manager.begin()
        return self._connection.get_connection(database_name).get(oid)

    @property
    def active(self) -> int:
        """How many coroutines have not ended."""
        return len(self._tasks)

    def stop(self, timeout: float) -> None:
        """Cancel what runs, wait for it for at most `timeout` seconds, and end the thread."""
        with self._lock:
            self._stopping = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        ended = asyncio.run_coroutine_threadsafe(self._cancel_all(), loop)
        with contextlib.suppress(
            builtins.TimeoutError
        ):  # of one that blocks; its thread is a daemon
            ended.result(timeout)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout)
        if not thread.is_alive():
            loop.close()

    async def _cancel_all(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._connection is not None:
            end(self._connection.transaction_manager)
            self._connection.close()
            self._connection = None
