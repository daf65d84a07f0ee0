# SPDX-License-Identifier: ZPL-2.1
"""Stored: the retry policies, each of which decides for one job.

They decide only; `zasync.job.performance` and `zasync.job.interruption` act on it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Protocol

import zope.component
import zope.interface
from persistent import Persistent

from zasync.foundation import attempts, clock
from zasync.foundation.errors import Trouble, classify
from zasync.foundation.reporting import events
from zasync.interfaces import IJob, IRetryPolicy
from zasync.job import crashes

Decision = bool | datetime | timedelta
"""True: again now.  False: no more.  A moment or a delay: back to the queue until then."""


class Policy(Protocol):
    """IRetryPolicy for the type checker."""

    def jobError(self, failure: Any, data_cache: dict[str, Any]) -> Decision: ...

    def commitError(self, failure: Any, data_cache: dict[str, Any]) -> Decision: ...

    def interrupted(self) -> Decision: ...

    def updateData(self, data_cache: dict[str, Any]) -> None: ...


@zope.component.adapter(IJob)
@zope.interface.implementer(IRetryPolicy)
class RetryCommonFourTimes(Persistent):
    """The default for jobs.

    Transaction errors (conflicts): run again at once, up to five attempts in all.  The storage
    is disconnected: for ever, after waiting 5 s, 10 s, ... up to 60 s.  Interrupted: up to nine
    times, not counting clean stops.  Other errors: not again.  `data` has the counts: 'conflicts',
    'disconnects', 'interruptions'.  Subclasses set the limits, None for none.
    """

    conflict_limit: int | None = 4
    interruption_limit: int | None = 9
    first_wait = 5.0
    wait_step = 5.0
    longest_wait = 60.0

    def __init__(self, job: Any) -> None:
        self.parent = job
        self.data: dict[str, Any] = {}

    def jobError(self, failure: Any, data_cache: dict[str, Any]) -> Decision:
        return self._after_trouble(classify(failure.value), data_cache)

    def commitError(self, failure: Any, data_cache: dict[str, Any]) -> Decision:
        return self._after_trouble(classify(failure.value, from_storage=True), data_cache)

    def _after_trouble(self, trouble: Trouble, data_cache: dict[str, Any]) -> Decision:
        if trouble is Trouble.OTHER:
            return False
        if trouble is Trouble.CONFLICT:
            count = self._count("conflicts", data_cache)
            return self.conflict_limit is None or count <= self.conflict_limit
        self._count("disconnects", data_cache)
        self._wait(data_cache)
        return True

    def _count(self, name: str, data_cache: dict[str, Any]) -> int:
        count: int = data_cache.get(name, self.data.get(name, 0)) + 1
        data_cache[name] = count
        return count

    def _wait(self, data_cache: dict[str, Any]) -> None:
        """Wait in place, since nothing can be written meanwhile; a stop cuts it short."""
        seconds = data_cache.get("next_wait", self.first_wait)
        data_cache["next_wait"] = min(seconds + self.wait_step, self.longest_wait)
        attempts.pause(seconds)

    def interrupted(self) -> Decision:
        if self.parent.interrupted_cleanly:  # however often a long job's machine is restarted
            return True
        count = self.data.get("interruptions", 0) + 1
        self.data = {**self.data, "interruptions": count, "last_interruption": clock.now()}
        return self.interruption_limit is None or count <= self.interruption_limit

    def updateData(self, data_cache: dict[str, Any]) -> None:
        kept = {name: value for name, value in data_cache.items() if name != "next_wait"}
        if any(self.data.get(name) != value for name, value in kept.items()):
            self.data = {**self.data, **kept}


@zope.component.adapter(IJob)
@zope.interface.implementer(IRetryPolicy)
class RetryCommonForever(RetryCommonFourTimes):
    """The default for callbacks: conflicts and interruptions without limit.

    A commit error of any other kind is tried again too, after a pause that grows like that for a
    disconnected storage, with a CRITICAL log every few times.  A job of ours that repairs another
    one is put off for a minute after any error of its own: that other job would be lost with it.
    """

    conflict_limit = None
    interruption_limit = None
    log_every = 5
    repair_pause = timedelta(minutes=1)

    def jobError(self, failure: Any, data_cache: dict[str, Any]) -> Decision:
        decision = super().jobError(failure, data_cache)
        job = self.parent
        if decision is False and crashes.is_repair(job) and not job.is_callback:
            events.repair_failed(repr(job), failure)
            return self.repair_pause
        return decision

    def commitError(self, failure: Any, data_cache: dict[str, Any]) -> Decision:
        if classify(failure.value, from_storage=True) is not Trouble.OTHER:
            return super().commitError(failure, data_cache)
        count = self._count("commit_errors", data_cache)
        if count % self.log_every == 0:
            events.commit_retried_often(repr(self.parent), count, failure)
        self._wait(data_cache)
        return True


@zope.component.adapter(IJob)
@zope.interface.implementer(IRetryPolicy)
class NeverRetry(Persistent):
    """For work that must not run twice, since it talks to the outside world."""

    def __init__(self, job: Any) -> None:
        self.parent = job
        self.data: dict[str, Any] = {}

    def jobError(self, failure: Any, data_cache: dict[str, Any]) -> Decision:
        return False

    def commitError(self, failure: Any, data_cache: dict[str, Any]) -> Decision:
        return False

    def interrupted(self) -> Decision:
        return False

    def updateData(self, data_cache: dict[str, Any]) -> None:
        pass


def allows_second_run(factory: Any) -> bool:
    """Whether jobs with policies made by `factory` may surely be called more than once.

    Known of the common ones, and of those that do not change what happens after an interruption.
    """
    return (
        isinstance(factory, type)
        and issubclass(factory, RetryCommonFourTimes)
        and factory.interrupted is RetryCommonFourTimes.interrupted
        and factory.interruption_limit != 0
    )
