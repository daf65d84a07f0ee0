# SPDX-License-Identifier: ZPL-2.1
"""Several short jobs in one transaction: each is called, and all are committed together.

Whatever goes wrong, an error of one, a conflict, a commit of their own, breaks the group up:
nothing of it is committed, and its members are run alone, as if there had been no group.  So only
jobs are taken that may be called twice.  Why it is done this way: docs/decisions/0013-groups.md.
"""

from __future__ import annotations

import contextvars
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


class Joining:
    """Tells which claimed jobs may be members of a group; made for each poll."""

    def __init__(self, crash_limit: int) -> None:
        self._crash_limit = crash_limit
        self._policies: dict[Any, bool] = {}

    def may_join(self, job: Any) -> bool:
        """Whether `job` may be called twice, and needs nothing else.

        Not one that was interrupted, has callbacks, has hooks around its attempts, commits by
        itself, or is parked by a single death.  Not a coroutine either, which the call tells.
        """
        if (
            job._alone
            or job._policy is not None
            or job._interrupted
            or job._own_commits
            or job._extras is not None
            or job.has_hooks
            or (job._crash_limit or self._crash_limit) <= 1
            or crashes.is_repair(job)
        ):
            return False
        stored = job._retry_policy_factory
        if not (stored is None or isinstance(stored, str)):
            return retry.allows_second_run(job.retry_policy_factory)
        key = (type(job), stored)
        if key not in self._policies:
            self._policies[key] = _may_run_twice(job, stored or "")
        return self._policies[key]


def _may_run_twice(job: Any, name: str) -> bool:
    """Whether the policy that is registered under `name` lets `job` run twice."""
    adapters = zope.component.getSiteManager().adapters
    factory = adapters.lookup1(zope.interface.providedBy(job), IRetryPolicy, name)
    if factory is None:
        return not name  # then it is the common one
    return retry.allows_second_run(factory)


class Group:
    """Jobs that are called one after the other in one transaction."""

    def __init__(self, manager: Any) -> None:
        self.runs: list[Run] = []
        self._manager = manager
        self._process = os.getpid()
        self._outcomes: list[Outcome] = []
        self._transaction: Any = None

    def begin(self) -> None:
        """Begin the transaction."""
        self._manager.begin()
        self._transaction = self._manager.get()
        self._manager.registerSynch(self)

    def call(self, run: Run) -> float:
        """Call one more job and write down what it answered; answers how many seconds it took.

        After an error the group is to be broken up.
        """
        self.runs.append(run)
        job = run.job
        run.check_owned()
        events.job_started(job)
        callable, args, kwargs = prepare(run)
        if getattr(callable, "commits_by_itself", False):
            raise BrokenUp("it commits by itself")
        began = clock.monotonic()
        value = contextvars.copy_context().run(_call, run, callable, args, kwargs)
        seconds = clock.monotonic() - began
        if os.getpid() != self._process:
            end_forked_child(None)
        if self._manager.get() is not self._transaction or self._transaction.status != "Active":
            raise BrokenUp("it has ended the transaction")
        self._outcomes.append(_answered(run, value))
        return seconds

    def settle(self) -> list[Outcome | None]:
        """Commit; answers the outcome of each member, None for those that are to be run alone.

        After an error it is the database that says of each member whether it has its end.
        """
        self._leave()
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

    def break_up(self, error: BaseException | None = None) -> None:
        """Abort all that was done."""
        if os.getpid() != self._process:
            end_forked_child(error)
        if self._transaction is not None:
            self._leave()
        attempts.end(self._manager)
        for run in self.runs:  # what was known of it may not be so any more
            run.job._p_invalidate()

    def _leave(self) -> None:
        self._manager.unregisterSynch(self)
        self._transaction = None

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
    threadlocal.surroundings.set(run.host.surroundings(run))
    return callable(*args, **kwargs)


def _answered(run: Run, value: Any) -> Outcome:
    value = unwrapped(value)
    if is_awaitable(value):
        discard(value)
        raise BrokenUp("it answers something to wait for")
    if IJob.providedBy(value):
        raise BrokenUp("it answers a job to wait for")
    return finish(run, value)
