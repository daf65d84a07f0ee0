# SPDX-License-Identifier: ZPL-2.1
"""What the simulated applications store and what their jobs do.

Every job has an entry in the *ledger*, put there in the transaction that puts the job; its code
notes its effect there, under its own attempt token.  So the ledger alone tells what took place.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import transaction
import zope.component.hooks
from BTrees.LOBTree import LOBTree
from persistent import Persistent
from twisted.internet.defer import Deferred

from zasync import local, threadlocal
from zasync.interfaces import KEY
from zasync.job import Job
from zasync.job.retry import NeverRetry, RetryCommonFourTimes

LEDGER, GAUGE = "ledger", "gauge"

world: Any = None  # the simulation that runs now


class PlannedError(Exception):
    """What a job raises that is meant to fail."""


class Effects(Persistent):
    """What the runs of one job, or callback, have committed: the token of each."""

    runs: tuple[Any, ...] = ()
    got: Any = None  # what a callback was called with

    def __init__(self, number: int, kind: str) -> None:
        self.number, self.kind = number, kind
        self.job: Any = None


class Gauge(Persistent):
    """An object that many jobs write."""

    value = 0


class Entry(Persistent):
    """What a client wanted of one job."""

    removed = False  # somebody took the job out of its queue
    failed_by_hand = False
    policy: Any = None

    def __init__(self, number: int, kind: str, job: Any, effects: Effects) -> None:
        self.number, self.kind, self.job, self.effects = number, kind, job, effects
        self.callbacks: tuple[tuple[Any, Effects], ...] = ()


class Impatient(RetryCommonFourTimes):
    """Puts an interrupted job off for a while, and one that failed for the first time."""

    def interrupted(self) -> Any:
        return super().interrupted() and timedelta(seconds=7)

    def jobError(self, failure: Any, data_cache: dict[str, Any]) -> Any:
        if failure.check(PlannedError) and self._count("errors", data_cache) == 1:
            return timedelta(seconds=9)
        return super().jobError(failure, data_cache)


# What jobs do


def _note(effects: Effects) -> None:
    effects.runs = (*effects.runs, local.getJob()._token)
    world.started(local.getJob(), effects)


def work(effects: Effects, kind: str) -> Any:
    """Note the effect, and end as `kind` says."""
    world.reach("body.begun")
    _note(effects)
    world.reach("body.noted")
    return ENDINGS[kind](effects)


def deployable(effects: Effects, kind: str) -> Any:
    """The same, but only the nodes that have been deployed to have it."""
    return work(effects, kind)


_DEPLOYED = {"deployable": deployable}
del deployable


def __getattr__(name: str) -> Any:
    if name in _DEPLOYED and (world is None or world.has_code()):
        return _DEPLOYED[name]
    raise AttributeError(name)


def call_back(effects: Effects, kind: str, result: Any) -> Any:
    """A callback: note what it got, and end as `kind` says."""
    world.reach("callback.begun")
    _note(effects)
    effects.got = result
    world.reach("callback.noted")
    return ENDINGS[kind](effects)


# How they end


def _raise(effects: Effects) -> None:
    raise PlannedError("as planned")


def _exit(effects: Effects) -> None:
    raise SystemExit(3)


def _count(effects: Effects) -> int:
    gauge = effects._p_jar.root()[GAUGE]
    value = gauge.value + 1
    world.reach("body.counting")
    gauge.value = value
    return value  # type: ignore[no-any-return]


def _put(effects: Effects) -> str:
    """Put another job in the same transaction."""
    _enter(effects, effects._p_jar.root()[KEY][""])
    return "put"


def _answer_job(effects: Effects) -> Any:
    return _enter(effects, None)


def _enter(effects: Effects, queue: Any) -> Any:
    """Make a job with an entry in the ledger; it lies in `queue`, if there is one."""
    ledger = effects._p_jar.root()[LEDGER]
    number = world.random.getrandbits(40)
    entry = ledger[number] = make_entry(number, "return")
    if queue is not None:
        queue.put(entry.job)
    return entry.job


def _commit(effects: Effects) -> str:
    transaction_manager = effects._p_jar.transaction_manager
    transaction_manager.commit()
    world.reach("body.committed itself")
    transaction_manager.begin()
    return "committed"


def _defer(effects: Effects) -> Deferred[Any]:
    deferred: Deferred[Any] = Deferred()
    world.defer(deferred)
    return deferred


async def _pause() -> str:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return "awaited"


def _await(effects: Effects) -> Any:
    return _pause()


def _dirty(effects: Effects) -> str:
    """Leave behind all that a job can leave behind in its thread."""
    zope.component.hooks.setSite(_Site())
    transaction.get().join(_Nothing())
    return "dirty"


class _Site:
    def getSiteManager(self) -> Any:
        return zope.component.getGlobalSiteManager()


class _Nothing:
    transaction_manager = None

    def abort(self, transaction: Any) -> None:
        pass

    tpc_begin = commit = tpc_vote = tpc_finish = tpc_abort = abort

    def sortKey(self) -> str:
        return "~"


ENDINGS: dict[str, Callable[[Effects], Any]] = {
    "return": lambda effects: 42,
    "raise": _raise,
    "unpicklable": lambda effects: threading.Lock(),
    "exit": _exit,
    "count": _count,
    "put": _put,
    "job": _answer_job,
    "commit": _commit,
    "defer": _defer,
    "await": _await,
    "dirty": _dirty,
}
FAILING = {"raise", "unpicklable", "exit"}  # the kinds that are meant to fail
SUSPENDING = {"defer", "await"}  # their code commits before the job has ended, and may run again
LOOSE = {*SUSPENDING, "commit"}  # their effects are not one with their end


def make_entry(number: int, kind: str, function: Any = work, policy: Any = None) -> Entry:
    """A job and its entry, in no queue yet."""
    effects = Effects(number, kind)
    job = effects.job = Job(function, effects, kind)
    entry = Entry(number, kind, job, effects)
    job.retry_policy_factory = entry.policy = policy
    return entry


def add_callbacks(entry: Entry, kinds: tuple[str, ...]) -> None:
    """Give the job of `entry` callbacks of these kinds."""
    for kind in kinds:
        effects = Effects(entry.number, kind)
        callback = effects.job = Job(call_back, effects, kind)
        entry.job.addCallback(callback)  # which may run it at once
        entry.callbacks = (*entry.callbacks, (callback, effects))


def is_clean() -> bool:
    """Whether a job that begins now in this thread would find nothing of another one."""
    return (
        threadlocal.surroundings.get() is None
        and zope.component.hooks.getSite() is None
        and not transaction.get()._resources
    )


POLICIES = {"": None, "never": NeverRetry, "impatient": Impatient}

__all__ = ["KEY", "LOBTree"]
