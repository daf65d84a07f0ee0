# SPDX-License-Identifier: ZPL-2.1
"""Short transactions for coroutines, in a thread that they share."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from ZODB.POSException import ConflictError

from tests.support.running import until
from zasync.foundation.attempts import Stopped
from zasync.plugins.backstage import Backstage, backstage


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "zasync backstage"]


def add(connection: Any, amount: int) -> int:
    root = connection.root()
    root["count"] = root.get("count", 0) + amount
    return int(root["count"])


def test_what_is_done_is_committed_and_answered(database: Any) -> None:
    async def work() -> list[int]:
        async with backstage(database) as first, backstage(database) as second:
            assert first is second
            assert len(threads()) == 1
            return [await first.do(add, 2), await second.do(add, 1)]

    assert asyncio.run(work()) == [2, 3]
    with database.transaction() as connection:
        assert connection.root()["count"] == 3
    until(lambda: not threads(), "the end of the thread")


def test_a_conflict_is_tried_again_and_an_error_is_raised(database: Any) -> None:
    calls = []

    def conflict_once(connection: Any) -> str:
        calls.append(1)
        if len(calls) == 1:
            raise ConflictError("once")
        return "done"

    def fail(connection: Any) -> None:
        connection.root()["count"] = 7
        raise ValueError("no")

    async def work() -> None:
        async with backstage(database) as stage:
            assert await stage.do(conflict_once) == "done"
            with pytest.raises(ValueError, match="no"):
                await stage.do(fail)
            assert await stage.do(add, 1) == 1

    asyncio.run(work())


def test_a_waiter_that_is_cancelled_disturbs_nobody(database: Any) -> None:
    go_on = threading.Event()

    def wait(connection: Any) -> None:
        go_on.wait(30)

    async def work() -> int:
        async with backstage(database) as stage:
            waiter = asyncio.create_task(stage.do(wait))
            await asyncio.sleep(0)
            waiter.cancel()
            go_on.set()
            return await stage.do(add, 1)

    assert asyncio.run(work()) == 1


def test_one_that_waits_for_the_storage_is_given_up_at_the_end(database: Any) -> None:
    begun = threading.Event()

    def conflict(connection: Any) -> None:
        begun.set()
        raise ConflictError("for ever")

    async def work(stage: Backstage) -> None:
        waiter = asyncio.create_task(stage.do(conflict))
        await asyncio.to_thread(begun.wait, 30)
        stage.end()
        with pytest.raises(Stopped):
            await waiter

    size = database.getPoolSize()
    asyncio.run(work(Backstage(database)))
    until(lambda: not threads(), "the end of the thread")
    assert database.getPoolSize() == size
