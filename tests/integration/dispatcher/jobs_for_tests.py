# SPDX-License-Identifier: ZPL-2.1
"""What the jobs of the dispatcher's tests do; importable, since jobs are kept by name."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import threading
from datetime import timedelta
from typing import Any

import transaction
import zope.component.hooks
from BTrees.LOBTree import LOBTree
from twisted.internet.defer import Deferred
from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import ConflictError

import zasync
from zasync.job import NeverRetry, RetryCommonForever, RetryCommonFourTimes

gates: dict[str, threading.Event] = {}
seen: list[Any] = []
deferreds: list[Deferred[Any]] = []


def reset() -> None:
    gates.clear()
    seen.clear()
    deferreds.clear()


def gate(name: str) -> threading.Event:
    return gates.setdefault(name, threading.Event())


def note(*values: Any) -> Any:
    seen.append(values)
    return values[0] if values else None


def wait_at(name: str) -> str:
    """Say that it has come to the gate, and wait until it is opened."""
    gate(f"{name} reached").set()
    assert gate(name).wait(20)
    return name


def count_up() -> int:
    """Add one to a counter in the database."""
    root = zasync.local.getJob()._p_jar.root()
    root["count"] = root.get("count", 0) + 1
    return int(root["count"])


def read_data() -> Any:
    """What lies in the root."""
    return zasync.local.getJob()._p_jar.root().get("data", "missing")


def leave_a_mark(number: int) -> None:
    """Count in the database how often this was done, without meeting the other jobs."""
    marks = zasync.local.getJob()._p_jar.root()["marks"]
    marks[number] = marks.get(number, 0) + 1


def wait_and_count(name: str) -> int:
    wait_at(name)
    return count_up()


def wait_here_and_count() -> int:
    """Wait at a gate that is only for the runs of this dispatcher."""
    wait_at(str(zasync.local.getDispatcher().UUID))
    return count_up()


def leave() -> None:
    raise SystemExit(3)


def make_a_mess() -> None:
    """Leave a site, a changed object in an open transaction, and a context variable behind."""
    zope.component.hooks.setSite(MESS)
    transaction.begin()
    zasync.local.getJob()._p_jar.root()["mess"] = True


class Mess:
    """Enough of a site to be set."""

    def getSiteManager(self) -> Any:
        return zope.component.getGlobalSiteManager()


MESS = Mess()


def look_around() -> Any:
    root = zasync.local.getJob()._p_jar.root()
    return zope.component.hooks.getSite() is None, "mess" in root


def surroundings() -> Any:
    local = zasync.local
    return (
        local.getJob()._p_oid,
        local.getQueue().name,
        str(local.getDispatcher().UUID),
        local.getReactor() is local.getDispatcher().reactor,
        local.getAgentName(),
    )


def later() -> Deferred[Any]:
    deferred: Deferred[Any] = Deferred()
    deferreds.append(deferred)
    return deferred


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return number * 2


async def async_surroundings() -> Any:
    await asyncio.sleep(0)
    return surroundings()


async def async_fail() -> None:
    await asyncio.sleep(0)
    raise KeyError("async")


async def wait_for_ever(name: str) -> None:
    gate(f"{name} reached").set()
    await asyncio.Event().wait()


def read_then_await() -> Any:
    """A function that reads in its transaction and answers a coroutine."""
    return double(count_up())


def commit_halfway(name: str) -> None:
    count_up()
    transaction.commit()
    wait_at(name)
    count_up()


def progress(name: str) -> None:
    zasync.local.setLiveAnnotation("progress", 50)
    wait_at(name)


def once_only(job: Any) -> NeverRetry:
    return NeverRetry(job)


def only_notes(job: Any) -> bool:
    return bool(job.callable is note)


def broken_filter(job: Any) -> bool:
    raise RuntimeError("this filter is broken")


def leave_with(result: Any) -> None:
    raise SystemExit(4)


class AgainSoon(RetryCommonForever):
    """Does not wait long for a storage that is away."""

    first_wait = wait_step = 0.01


def again_soon(job: Any) -> AgainSoon:
    return AgainSoon(job)


class AgainLater(NeverRetry):
    """Every error: once more a moment later."""

    def jobError(self, failure: Any, data_cache: Any) -> timedelta:
        return timedelta(milliseconds=50)


def again_later(job: Any) -> AgainLater:
    return AgainLater(job)


def fail_first() -> str:
    seen.append(())
    if len(seen) == 1:
        raise ValueError("the first time")
    return "second time"


async def note_later(*values: Any) -> Any:
    await asyncio.sleep(0)
    return note(*values)


def lose_the_storage() -> None:
    gate("storage lost").set()
    raise ClientDisconnected


def raise_it(error: type[BaseException]) -> None:
    raise error


class CannotAbort:
    """Joined to a transaction; a thing that cannot even be aborted."""

    transaction_manager = None

    def abort(self, transaction: Any) -> None:
        raise OSError("cannot be aborted")

    def sortKey(self) -> str:
        return "cannot abort"


def leave_what_cannot_be_aborted() -> None:
    zasync.local.getJob()._p_jar.transaction_manager.get().join(CannotAbort())
    raise ValueError("and fail")


def begin_interaction() -> None:
    sys.modules["zope.security.management"].newInteraction()


def has_interaction() -> Any:
    return sys.modules["zope.security.management"].queryInteraction()


def fork_and_return() -> int:
    """The child comes back from the job's code, as one does that was written carelessly."""
    child = os.fork()
    if not child:
        seen.append("in the child")
        return 0
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fork_and_exit() -> int:
    child = os.fork()
    if not child:
        sys.exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fork_and_commit() -> int:
    """The child tries to commit what the job has changed so far."""
    count_up()
    child = os.fork()
    if not child:
        transaction.commit()
        os._exit(0)  # not reached
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def double_in_child(number: int) -> int:
    context = multiprocessing.get_context("fork")
    with context.Pool(1) as pool:
        return int(pool.apply(twice, (number,)))


def twice(number: int) -> int:
    return 2 * number


class PatientFourTimes(RetryCommonFourTimes):
    """The default, but it does not wait long."""

    first_wait = wait_step = 0.01


def patient(job: Any) -> PatientFourTimes:
    return PatientFourTimes(job)


def work_until_cancelled(name: str) -> None:
    gate(f"{name} reached").set()
    while not zasync.local.is_cancelled():
        gate("never").wait(0.01)
    note("cancelled")
    zasync.local.check_cancelled()
    note("not reached")


async def wait_in_spite_of_all(name: str) -> None:
    """A coroutine that does not let itself be cancelled."""
    gate(f"{name} reached").set()
    while not gate(name).is_set():
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            continue


async def ask_in_coroutine(name: str) -> None:
    gate(f"{name} reached").set()
    try:
        while not gate(name).is_set():
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        note("cancelled")
        raise
    note(zasync.local.is_cancelled())


async def wait_for_ever_in(name: str, result: Any) -> None:
    """The same as a callback."""
    await wait_for_ever(name)


def marks() -> LOBTree:
    return LOBTree()


def tell(number: int, result: Any) -> None:
    seen.append((number, result))


def wait_and_fail(name: str) -> None:
    wait_at(name)
    raise ValueError(name)


class AgainInAnHour(NeverRetry):
    def jobError(self, failure: Any, data_cache: Any) -> timedelta:
        return timedelta(hours=1)


def again_in_an_hour(job: Any) -> AgainInAnHour:
    return AgainInAnHour(job)


def wait_and_count_in(name: str, database: str) -> None:
    wait_at(name)
    root = zasync.local.getJob()._p_jar.get_connection(database).root()
    root["count"] = root.get("count", 0) + 1


def conflict_first() -> str:
    """Two attempts, of which the first meets a conflict."""
    seen.append(())
    if len(seen) == 1:
        raise ConflictError
    return "second time"
