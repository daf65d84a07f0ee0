# SPDX-License-Identifier: ZPL-2.1
"""Stored: callbacks, which are jobs too, and the proxy of a success/failure pair."""

from __future__ import annotations

import logging
from typing import Any

import zope.interface
from persistent import Persistent

from zasync.failure import Failure
from zasync.interfaces import COMPLETED, NEW, BadStatusError, ICallbackProxy
from zasync.job import by_hand, relations
from zasync.job.adapting import as_job, plain_job


def pass_on(result: Any) -> Any:
    """Stands for the missing half of a pair: the result goes on to the further callbacks."""
    return result


class Extras(Persistent):
    """What few jobs have: callbacks and annotations."""

    callbacks: tuple[Any, ...] = ()
    annotations: Any = None

    def take_in(self, other: Extras) -> None:
        """Add what `other` has, which was made for the same job."""
        self.callbacks = (*self.callbacks, *other.callbacks)
        if self.annotations is None:
            self.annotations = other.annotations
        elif other.annotations is not None:
            for name, value in other.annotations.items():
                self.annotations.setdefault(name, value)


class Chaining:
    """addCallback and addCallbacks, for jobs and for proxies."""

    def addCallback(
        self,
        callback: Any,
        failure_log_level: int | None = None,
        retry_policy_factory: Any = None,
    ) -> Any:
        """Have `callback` called with the result, whatever it is; answers the callback's job.

        Added to a COMPLETED job it runs at once, in transactions of its own.
        """
        job = self._prepare(callback, failure_log_level, retry_policy_factory)
        self._append(job)
        return job

    def addCallbacks(
        self,
        success: Any = None,
        failure: Any = None,
        failure_log_level: int | None = None,
        retry_policy_factory: Any = None,
    ) -> CallbackProxy:
        """Have `success` called with the result, or `failure` with the Failure.

        Answers a proxy on which further callbacks chain; they get the result of whichever of the
        two was called, or the result itself where that one is missing.
        """
        jobs = [
            None if item is None else self._prepare(item, failure_log_level, retry_policy_factory)
            for item in (success, failure)
        ]
        proxy = CallbackProxy(*jobs)
        self._append(proxy)
        return proxy

    def _prepare(self, item: Any, failure_log_level: Any, retry_policy_factory: Any) -> Any:
        job = as_job(item)
        above: Any = self
        while ICallbackProxy.providedBy(above) or relations.is_job(above):
            if above is job:
                raise ValueError("a job cannot be a callback of itself", job)
            above = above.parent
        if job.status != NEW or job.parent is not None:
            raise BadStatusError(f"{job!r} has a place already; a callback must be a new job")
        if failure_log_level is not None:
            job.failure_log_level = failure_log_level
        if retry_policy_factory is not None:
            job.retry_policy_factory = retry_policy_factory
        job.check_storable(self._p_jar)  # type: ignore[attr-defined]
        return job

    def _append(self, item: Any) -> None:
        item.parent = self
        extras = self.need_extras()  # type: ignore[attr-defined]
        if self._p_jar is not None and self._p_oid is not None:  # type: ignore[attr-defined]
            # The status that we see must still be true when this is committed; else the
            # callback could come too late, and nobody would run it.
            self._p_jar.readCurrent(self)  # type: ignore[attr-defined]
        extras.callbacks = (*extras.callbacks, item)
        if self.status == COMPLETED:  # type: ignore[attr-defined]
            by_hand.run_late_callback(self, item)


@zope.interface.implementer(ICallbackProxy)
class CallbackProxy(Chaining, Persistent):
    """Stands for the job of a success/failure pair until the result says which one it is."""

    parent: Any = None
    _job: Any = None
    _extras: Any = None

    def __init__(self, success: Any, failure: Any) -> None:
        self.success = success
        self.failure = failure
        for job in (success, failure):
            if job is not None:
                job.parent = self

    @property
    def job(self) -> Any:
        """The job that was chosen, or None until the result is there."""
        return self._job

    @property
    def status(self) -> str:
        return NEW if self._job is None else self._job.status

    @property
    def result(self) -> Any:
        return None if self._job is None else self._job.result

    @property
    def callbacks(self) -> tuple[Any, ...]:
        if self._job is not None:
            return self._job.callbacks  # type: ignore[no-any-return]
        return () if self._extras is None else self._extras.callbacks

    def getJob(self, result: Any) -> Any:
        """Choose the job by `result`, once, and give it the callbacks that were added so far."""
        if self._job is None:
            chosen = self.failure if isinstance(result, Failure) else self.success
            if chosen is None:
                chosen = plain_job(pass_on)
                chosen.failure_log_level = logging.DEBUG  # the failure was logged where it arose
                chosen.parent = self
            if self._extras is not None:
                if self._p_jar is not None and self._extras._p_oid is not None:
                    self._p_jar.readCurrent(self._extras)  # else one added now would be lost
                for item in self._extras.callbacks:
                    item.parent = chosen
                chosen.need_extras().callbacks += self._extras.callbacks
                self._extras = None
            self._job = chosen
        return self._job

    def need_extras(self) -> Any:
        if self._extras is None:
            self._extras = Extras()
        return self._extras

    def _append(self, item: Any) -> None:
        if self._job is None:
            super()._append(item)
        else:
            self._job._append(item)


CallbackProxy.__module__ = Extras.__module__ = pass_on.__module__ = "zasync.job"
