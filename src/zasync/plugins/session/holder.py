# SPDX-License-Identifier: ZPL-2.1
"""The job that holds the connection of a session: a coroutine, which lives as long as that.

It connects, and connects again; sends what lies in the outbox; makes jobs of what it hears.  When
its worker stops it hands the session over; when its worker dies, the job is taken up by another.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
from collections.abc import Awaitable
from typing import Any

from zasync import local
from zasync.foundation import clock
from zasync.foundation.attempts import Stopped
from zasync.foundation.text import safe_str
from zasync.interfaces import ReassignedError, ZasyncError
from zasync.plugins.backstage import backstage
from zasync.plugins.errors import SessionLost
from zasync.plugins.session import waking
from zasync.plugins.session.drivers import Connection, Heard
from zasync.plugins.session.events import Refused
from zasync.plugins.session.ledger import BATCH, Ledger, Terms
from zasync.plugins.session.status import SessionStatus

LOOK_EVERY = 5.0  # seconds between two looks at the outbox, should a hint be lost
STOP_LOOK = 0.25  # seconds between two looks whether the worker is to stop
SEND_TIMEOUT = 60.0  # seconds that the other side may take to accept a message
CLOSE_TIMEOUT = 5.0
ROOM_LOOK = 0.5  # seconds between two looks whether what was heard has been handled
FIRST_PAUSE = 1.0  # seconds before a lost connection is made again, then twice as long ...
LONGEST_PAUSE = 60.0  # ... up to this
STEADY = 30.0  # seconds of a connection after which pauses begin anew

_FINAL = (ValueError, TypeError, LookupError, PermissionError, ImportError)


class HandedOver(ZasyncError):
    """The worker that held a session stops; another one takes it up."""


class _Lost(ZasyncError):
    """The connection is gone; the message says why."""


class _Ended(ZasyncError):
    """The other side has ended the connection properly."""


async def hold(database: str, oid: int) -> dict[str, Any]:
    """Hold the session `oid` of `database` until it is closed; answers how it ended."""
    job, dispatcher = local.getJob(), local.getDispatcher()
    job_key, token = (job._p_jar.db().database_name, job._p_oid), job._token
    db = dispatcher.db
    async with backstage(db) as stage:
        ledger = Ledger(stage, database, oid, job_key, token)
        terms = await ledger.terms()
        woken = asyncio.Event()
        with contextlib.ExitStack() as stack:
            wake = _waker(woken)
            stack.callback(
                waking.listen(db.databases.get(database, db), oid.to_bytes(8, "big"), wake)
            )
            stack.callback(dispatcher.hints.listen(await ledger.watched(), wake))
            holder = Holder(ledger, terms, woken)
            ended: dict[str, Any] = await _until_stopped(dispatcher, holder.run())
            return ended


def _waker(event: asyncio.Event) -> Any:
    loop = asyncio.get_running_loop()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(event.set)

    return wake


async def _until_stopped(dispatcher: Any, running: Awaitable[Any]) -> Any:
    """What `running` answers; HandedOver once the dispatcher is told to stop."""
    task = asyncio.ensure_future(running)
    try:
        while True:
            await asyncio.wait([task], timeout=STOP_LOOK)
            if task.done():
                return task.result()
            if not dispatcher.activated:
                raise HandedOver("the worker stops, and another takes the session up")
    finally:
        await _cancelled(task)


async def _cancelled(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Holder:
    """Connects and converses, again and again."""

    def __init__(self, ledger: Ledger, terms: Terms, woken: asyncio.Event) -> None:
        self._ledger = ledger
        self._terms = terms
        self._woken = woken
        self._pause = FIRST_PAUSE
        self._lost_at: float | None = None  # since when it is tried in vain

    async def run(self) -> dict[str, Any]:
        """Until it is closed.  SessionLost, or an error that trying again would not mend."""
        while True:
            letters = await self._ledger.letters()
            in_vain = self._lost_at is not None or not letters.messages
            if letters.closing is not None and in_vain:
                return await self._ended(letters.closing)
            try:
                return await self._ended(await self._converse())
            except (*_FINAL, ReassignedError, Stopped):  # also UnresolvableError
                raise
            except _Ended as end:
                if not self._terms.reconnect:
                    return await self._ended(str(end))
                await self._recover(str(end))
            except Exception as error:
                await self._recover(_described(error))

    async def _ended(self, reason: str) -> dict[str, Any]:
        return {"closed": reason, **await self._ledger.summary()}

    async def _converse(self) -> str:
        """Connect and converse; answers why it was closed by us."""
        resume = await self._ledger.note(SessionStatus.CONNECTING)
        connection = await self._terms.driver.connect(self._terms.options, resume)
        began = clock.monotonic()
        try:
            await self._ledger.note(SessionStatus.CONNECTED)
            self._lost_at = None
            return await Conversation(self._ledger, self._terms, connection, self._woken).run()
        finally:
            if clock.monotonic() - began >= STEADY:
                self._pause = FIRST_PAUSE
            await _closed(connection)

    async def _recover(self, why: str) -> None:
        """Wait before it is tried again.  SessionLost if it is not."""
        if not self._terms.reconnect:
            raise SessionLost(why)
        now, patience = clock.monotonic(), self._terms.give_up_after
        self._lost_at = now if self._lost_at is None else self._lost_at
        if patience is not None and now - self._lost_at >= patience.total_seconds():
            raise SessionLost(f"in vain for {patience.total_seconds():g} s: {why}")
        await self._ledger.note(SessionStatus.LOST, why)
        until = now + clock.current().random.uniform(self._pause / 2, self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        while (remaining := until - clock.monotonic()) > 0:
            await woken_within(self._woken, remaining)
            if (await self._ledger.letters()).closing is not None:
                return


async def woken_within(event: asyncio.Event, seconds: float) -> None:
    """Wait until `event` is set, and clear it, but no longer than `seconds`."""
    with contextlib.suppress(builtins.TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    event.clear()


def _described(error: Exception) -> str:
    text = safe_str(error, 400)
    return text if isinstance(error, ZasyncError) else f"{type(error).__name__}: {text}"


async def _closed(connection: Connection) -> None:
    """Close a connection, whatever becomes of that."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await connection.close()


class Conversation:
    """One connection, from its beginning to its end."""

    def __init__(
        self, ledger: Ledger, terms: Terms, connection: Connection, woken: asyncio.Event
    ) -> None:
        self._ledger = ledger
        self._connection = connection
        self._woken = woken
        self._most_unhandled = terms.most_unhandled
        self._batch = min(BATCH, terms.most_unhandled)
        self._room = 0  # so many jobs may be put before their number is looked at again
        # Bounded: who says more than can be handled is not listened to for a while.
        self._heard: asyncio.Queue[Heard | Exception | None] = asyncio.Queue(2 * BATCH)

    async def run(self) -> str:
        """Until it is closed by us, which answers why; else what ended it is raised."""
        listening = asyncio.create_task(self._listen())
        posting = asyncio.create_task(self._post())
        sending = asyncio.create_task(self._send())
        try:
            await asyncio.wait({posting, sending}, return_when=asyncio.FIRST_COMPLETED)
            if not posting.done():
                await _cancelled(listening)
                with contextlib.suppress(builtins.TimeoutError):
                    async with asyncio.timeout(CLOSE_TIMEOUT):
                        await self._heard.put(None)
                        await posting
                return sending.result()
            posting.result()
            raise AssertionError("it does not end without an error")
        finally:
            await _cancelled(listening, posting, sending)

    async def _listen(self) -> None:
        """Hear what is said; the last thing is what ended that."""
        try:
            while (heard := await self._connection.receive()) is not None:
                await self._heard.put(heard)
            await self._heard.put(_Ended("the other side has ended it"))
        except Exception as error:
            await self._heard.put(_Lost(_described(error)))

    async def _post(self) -> None:
        """Make jobs of what is heard; raises what ended that."""
        while True:
            batch = [await self._heard.get()]
            while len(batch) < self._batch and not self._heard.empty():
                batch.append(self._heard.get_nowait())
            said = [each for each in batch if isinstance(each, Heard)]
            if said:
                await self._make_room(len(said))
                await self._ledger.post(said)
            last = batch[-1]
            if isinstance(last, Exception):
                raise last
            if last is None:
                return

    async def _make_room(self, count: int) -> None:
        """Wait until `count` more jobs may be put."""
        while self._room < count:
            self._room = self._most_unhandled - await self._ledger.unhandled()
            if self._room < count:
                await asyncio.sleep(ROOM_LOOK)
        self._room -= count

    async def _send(self) -> str:
        """Send what lies in the outbox, until it is to be closed; answers why."""
        while True:
            letters = await self._ledger.letters()
            if letters.messages:
                await self._send_all(letters.messages)
            elif letters.closing is not None:
                return letters.closing
            else:
                await woken_within(self._woken, LOOK_EVERY)

    async def _send_all(self, messages: list[tuple[int, str]]) -> None:
        sent: list[int] = []
        refused: list[str] = []
        try:
            for key, text in messages:
                try:
                    async with asyncio.timeout(SEND_TIMEOUT):
                        await self._connection.send(text)
                except Refused as error:
                    refused.append(str(error))
                sent.append(key)
        except _FINAL:
            raise
        except Exception as error:
            raise _Lost(_described(error)) from None
        finally:
            if sent:
                await self._ledger.sent(sent, refused)
