# SPDX-License-Identifier: ZPL-2.1
"""What one run of a job is: its record, its host, how it can end, what guards its commits."""

from __future__ import annotations

import dataclasses
import enum
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from zasync import threadlocal
from zasync.foundation import attempts
from zasync.foundation.process import end_forked_child
from zasync.foundation.reporting import events
from zasync.interfaces import (
    ACTIVE,
)
from zasync.job import two_databases


class Ending(enum.Enum):
    """How a run can end."""

    COMPLETED = "the job has its result, and its callbacks are done"
    CALLBACKS = "the job has its result; a callback goes on elsewhere or later"
    WAITING = "the job waits for an inner job"
    SUSPENDED = "the job waits for a Deferred or a coroutine"
    RESCHEDULED = "the job is to go back to its queue"
    SUPERSEDED = "the job was taken away from this run"
    STOPPED = "the process stops; the job is to be handed back"


class Landing:
    """What a coroutine may answer: its result is that of `function(*args, **kwargs)`.

    That is called in a thread, in the transaction in which the job ends, so what it changes in
    the database is committed together with the end.  It is called again after a conflict, and
    must not use up what it was given.  It is never stored.
    """

    def __init__(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        self._call = functools.partial(function, *args, **kwargs)

    def __call__(self) -> Any:
        return self._call()

    def __reduce__(self) -> Any:
        raise TypeError("a Landing is what a coroutine answers, and cannot be stored")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a run: how it ended, and whether with a Failure."""

    ending: Ending
    failed: bool = False
    awaitable: Any = None
    setup_info: Any = None


class Host(Protocol):
    """What runs the job, as far as a run needs to know."""

    def surroundings(self, run: Run) -> threadlocal.Surroundings:
        """What `zasync.local` tells the job."""

    def around(self, job: Any) -> AbstractContextManager[Any]:
        """What is set up around an attempt at `job`, in its transaction, until that has ended."""

    def attach(self, run: Run, awaitable: Any) -> None:
        """Have `run` resumed when the Deferred or coroutine has ended."""

    def takes(self, awaitable: Any) -> bool:
        """Whether `attach` can be called with this one."""

    def may_begin(self) -> bool:
        """Whether code of jobs may be entered: nobody takes this process for dead."""

    def wait_to_begin(self) -> None:
        """Wait until `may_begin`.  `attempts.Stopped` if this thread is told to stop."""


@dataclasses.dataclass
class Run:
    """One run of one job in one thread, from its start mark to its outcome."""

    job: Any
    token: int
    host: Host
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    data_cache: dict[str, Any] = dataclasses.field(default_factory=dict)
    begun: bool = False  # a transaction has just been begun for it
    attempts: int = 0  # so many were to be repeated at once
    in_halves: bool = False  # a commit to other databases than its queue's has begun to end
    of_callback: bool = False  # called with the result of its parent as well
    timeout: float | None = None  # seconds that what it waits for may take
    seconds: float | None = None  # how long its code ran last, where it returned
    _pauses: Iterator[float] | None = None

    def next_pause(self) -> float:
        """Seconds to wait before the storage is asked again for what the job needs."""
        if self._pauses is None:
            self._pauses = attempts.pauses(first=0.5, step=1.0)
        return next(self._pauses)

    @property
    def connection(self) -> Any:
        return self.job._p_jar

    @property
    def manager(self) -> Any:
        return self.connection.transaction_manager

    def owns_job(self) -> bool:
        """Whether the job, as the present transaction sees it, is still this run's to settle."""
        return bool(self.job.status == ACTIVE and self.job._token == self.token)

    def has_settled(self) -> bool:
        """Whether the present transaction sees what this run meant to commit."""
        job = self.job
        moved_on = job.status != ACTIVE or job._again is not None or job.awaited is not None
        return bool(job._token == self.token and moved_on)

    def check_owned(self) -> None:
        """ReassignedError if the job was taken away from this run."""
        if not self.owns_job():
            raise self.job.loss()


Step = Callable[[Run], "Outcome | Step"]
"""Answers the outcome, or the step to do next."""


Function = TypeVar("Function", bound=Callable[..., Any])


def commits_by_itself(function: Function) -> Function:
    """Mark a callable of ours that commits: it is fenced like others, but nobody is warned."""
    function.commits_by_itself = True  # type: ignore[attr-defined]
    return function


class CommitGuard:
    """Fences what the job's own code commits, like the last commit, and says that it did.

    Also in a child process that the code forks: that must commit nothing, and when it comes back
    from the code it ends, since the job, its connection and all that follows are the parent's.
    """

    def __init__(self, run: Run, warns: bool) -> None:
        self.run = run
        self.warns = warns
        self.process = os.getpid()

    def __enter__(self) -> None:
        self.run.manager.registerSynch(self)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if os.getpid() != self.process:
            end_forked_child(error)
        self.run.manager.unregisterSynch(self)

    def newTransaction(self, transaction: Any) -> None:
        pass

    def beforeCompletion(self, transaction: Any) -> None:
        """Make the job's record part of what is about to be committed (or aborted)."""
        if transaction.status != "Active":
            return  # a failed one is being aborted; nothing can be added to it
        job = self.run.job
        if os.getpid() != self.process:
            transaction.join(Refusal(RuntimeError("a forked child cannot commit for its parent")))
            return
        if not self.run.owns_job():
            transaction.join(Refusal(job.loss()))
            return
        if self.warns:
            job._own_commits += 1
        else:
            job._p_jar.readCurrent(job)
        two_databases.fence(self.run, transaction)

    def afterCompletion(self, transaction: Any) -> None:
        if self.warns and transaction.status == "Committed":
            self.warns = False
            events.job_committed_itself(self.run.job)


class Refusal:
    """Joins a transaction that must not be committed, and sees to that."""

    transaction_manager = None

    def __init__(self, error: Exception) -> None:
        self.error = error

    def tpc_begin(self, transaction: Any) -> None:
        raise self.error

    def abort(self, transaction: Any) -> None:
        """Nothing was done."""

    commit = tpc_vote = tpc_finish = tpc_abort = abort

    def sortKey(self) -> str:
        return ""
