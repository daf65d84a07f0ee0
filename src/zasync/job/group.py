# SPDX-License-Identifier: ZPL-2.1
"""Several short jobs in one transaction: each is called, and all are committed together.

Whatever goes wrong, an error of one, a conflict, a commit of their own, breaks the group up:
nothing of it is committed, and its members are run alone, as if there had been no group.  So only
jobs are taken that may be called twice.  Why it is done this way: docs/decisions/0012-groups.md.
"""

from __future__ import annotations

import contextvars
import dataclasses
import os
from typing import Any

import zope.component
import zope.interface

from zasync import threadlocal
from zasync.foundation import attempts, clock
from zasync.foundation.attempts import committed
from zasync.foundation.errors import Trouble, classify
from zasync.foundation.failpoints import reach
from zasync.foundation.process import end_forked_child
from zasync.foundation.reporting import events
from zasync.interfaces import IJob, IRetryPolicy
from zasync.job import crashes, retry
from zasync.job.attempt import discard, finish, is_awaitable, name_of, prepare, unwrapped
from zasync.job.run import Outcome, Refusal, Run


class BrokenUp(Exception):
    """The members of a group are to be run alone."""


def may_join(job: Any) -> bool:
    """Whether a claimed job may ever be a member: it may be called twice, and needs nothing else.

    Not one that was interrupted, has callbacks, has hooks around its attempts, commits by itself,
    or is parked by a single death.  Not a coroutine either, which the call itself tells.
    """
    return bool(
        not job._alone
        and job._policy is None
        and not job._interrupted
        and not job._own_commits
        and job._extras is None
        and not job.has_hooks
        and not crashes.is_last_chance_at_once(job)
        and not crashes.is_repair(job)
        and _may_run_twice(job)
    )


def _may_run_twice(job: Any) -> bool:
    stored = job._retry_policy_factory
    if stored is not None and not isinstance(stored, str):
        return retry.allows_second_run(job.retry_policy_factory)
    adapters = zope.component.getSiteManager().adapters
    provided = zope.interface.providedBy(job)
    factory = adapters.lookup1(provided, IRetryPolicy, stored or "")
    if factory is None:
        return not stored  # then it is the common one
    return retry.allows_second_run(factory)


class Group:
    """Jobs that are called one after the other in one transaction."""

    def __init__(self, manager: Any) -> None:
        self.runs: list[Run] = []
        self._manager = manager
        self._process = os.getpid()
        self._outcomes: list[Outcome] = []
        manager.begin()
        self._transaction = manager.get()
        manager.registerSynch(self)

    def call(self, run: Run) -> None:
        """Call one more job and write down what it answered.  Any error is to end the group."""
        self.runs.append(run)
        job = run.job
        run.check_owned()
        if job.find_extras() is not None:
            raise BrokenUp("it has been given callbacks")
        events.job_started(job)
        callable, args, kwargs = prepare(run)
        if getattr(callable, "commits_by_itself", False):
            raise BrokenUp("it commits by itself")
        began = clock.monotonic()
        value = contextvars.copy_context().run(_call, run, callable, args, kwargs)
        run.seconds = clock.monotonic() - began
        if os.getpid() != self._process:
            end_forked_child(None)
        if self._manager.get() is not self._transaction or self._transaction.status != "Active":
            raise BrokenUp("it has ended the transaction")
        self._outcomes.append(_answered(run, value))

    def settle(self) -> list[Outcome | None]:
        """Commit; answers the outcome of each member, None for those that are to be run alone.

        After an error it is the database that says of each member whether it has its end.
        """
        self._manager.unregisterSynch(self)
        try:
            reach("group.committing")
            self._manager.commit()
        except Exception as error:
            attempts.end(self._manager)
            if classify(error, from_storage=True) is Trouble.CONFLICT:
                return [None for _run in self.runs]
            events.job_in_doubt(f"{name_of(self.runs[0].job)} and its group", error)
            settled = committed(self._ask, transaction_manager=self._manager)
            outcomes = [
                outcome if is_settled else None
                for outcome, is_settled in zip(self._outcomes, settled, strict=True)
            ]
        else:
            reach("group.settled")
            outcomes = list(self._outcomes)
        for run, outcome in zip(self.runs, outcomes, strict=True):
            if outcome is not None:
                run.job.report_end()
        return outcomes

    def _ask(self) -> list[bool]:
        return [run.has_settled() for run in self.runs]

    def break_up(self) -> None:
        """Abort all that was done."""
        if os.getpid() != self._process:
            end_forked_child(None)
        self._manager.unregisterSynch(self)
        attempts.end(self._manager)

    # Synchronizer of the transaction

    def newTransaction(self, transaction: Any) -> None:
        pass

    def beforeCompletion(self, transaction: Any) -> None:
        """A member commits (or aborts) by itself: what others did must not be committed with it."""
        if transaction.status == "Active":
            transaction.join(Refusal(BrokenUp("a member of a group commits by itself")))

    def afterCompletion(self, transaction: Any) -> None:
        pass


def _call(run: Run, callable: Any, args: Any, kwargs: Any) -> Any:
    around = dataclasses.replace(run.host.surroundings(run), host=run.host)
    threadlocal.surroundings.set(around)
    return callable(*args, **kwargs)


def _answered(run: Run, value: Any) -> Outcome:
    value = unwrapped(value)
    if is_awaitable(value):
        discard(value)
        raise BrokenUp("it answers something to wait for")
    if IJob.providedBy(value):
        raise BrokenUp("it answers a job to wait for")
    return finish(run, value)
