# SPDX-License-Identifier: ZPL-2.1
"""What tests register as plugins, and what a worker then finds under these names."""

from __future__ import annotations

import asyncio
import os  # noqa: F401 - is reached for in vain
import threading
from collections.abc import Mapping
from os import system  # noqa: F401 - the same
from typing import Any, ClassVar

from twisted.internet import defer
from ZODB.POSException import ConflictError

from zasync import local
from zasync.job import Landing
from zasync.plugins.session import Heard

ended: list[str] = []  # what was cancelled, or went on all the same
go_on = threading.Event()


def double(number: int) -> int:
    """Twice the number.

    And no more.
    """
    return 2 * number


def fail(message: str) -> Any:
    raise ValueError(message)


class Doubler:
    @staticmethod
    def double(number: int) -> int:
        return 2 * number

    def method(self) -> None:
        pass


def _private() -> None:
    pass


an_instance = Doubler()


async def wait_for_ever(name: str) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        ended.append(name)
        raise


def wait_with_twisted(name: str) -> defer.Deferred[None]:
    return defer.Deferred(lambda _: ended.append(name))


def fired_soon(value: str) -> Any:
    deferred: defer.Deferred[str] = defer.Deferred()
    threading.Timer(0.05, deferred.callback, [value]).start()
    return deferred


async def raise_a_timeout_of_its_own() -> None:
    raise TimeoutError("mine")


def wait_in_a_thread(name: str) -> str:
    go_on.wait(30)
    ended.append(name)
    return name


def count_late(counter: Any) -> None:
    """Change something when it is too late."""
    go_on.wait(30)
    ended.append(f"told: {local.is_cancelled()}")
    counter["value"] += 1


def keep_failure(failure: Any) -> str:
    return str(failure.type.__name__)


def reset() -> None:
    """Forget what other tests left."""
    ended.clear()
    go_on.clear()
    Echo.connections.clear()
    Echo.errors.clear()


class Landings:
    """How often a landing was called, and what it is told to do."""

    coroutines = 0
    calls = 0
    conflicts = 0


async def land(oid: int, amount: int) -> Any:
    Landings.coroutines += 1
    return Landing(add, oid, amount)


def add(oid: int, amount: int) -> int:
    """Add to the counter in the database; a conflict as often as asked for."""
    Landings.calls += 1
    counter = local.getJob()._p_jar.get(oid.to_bytes(8, "big"))
    counter["value"] = counter["value"] + amount
    if Landings.calls <= Landings.conflicts:
        raise ConflictError("as asked for")
    return counter["value"]


def hear(session: Any, text: str, about: dict[str, Any]) -> None:
    """Keep what a session has heard, under its owner and number."""
    session._p_jar.root()["heard"][str(session.owner), about["number"]] = (text, about)


def hear_slowly(session: Any, text: str, about: dict[str, Any]) -> None:
    """The same, once the test lets it go on."""
    go_on.wait(60)
    hear(session, text, about)


async def hear_in_a_coroutine(session: Any, text: str, about: dict[str, Any]) -> None:
    """Cannot be: there is no session outside of a transaction."""


class Echo:
    """A driver of an application's own: hears what was sent, until it is told to go wrong."""

    connections: ClassVar[list[EchoConnection]] = []
    errors: ClassVar[list[Exception]] = []  # of the next attempts to connect

    def check_options(self, options: Mapping[str, Any]) -> None:
        if options:
            raise ValueError("there are no options")

    def check_message(self, options: Mapping[str, Any], text: str) -> None:
        if text == "":
            raise ValueError("say something")

    async def connect(self, options: Mapping[str, Any], resume: str) -> EchoConnection:
        if self.errors:
            raise self.errors.pop(0)
        self.connections.append(EchoConnection(resume))
        return self.connections[-1]


class EchoConnection:
    def __init__(self, resume: str) -> None:
        self.resume = resume
        self.closed = False
        self._said: asyncio.Queue[str] = asyncio.Queue()

    async def receive(self) -> Heard | None:
        text = await self._said.get()
        if text == "END":
            return None
        return Heard(text, id=f"id of {text}")

    async def send(self, text: str) -> None:
        if text == "FAIL":
            raise RuntimeError("\x1b[31mred")
        await self._said.put(text)

    async def close(self) -> None:
        self.closed = True
        raise OSError("it does not even close")
