# SPDX-License-Identifier: ZPL-2.1
"""Calling a job by hand, outside of a dispatcher, and what is done at once around it."""

from __future__ import annotations

import dataclasses
import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import transaction

from zasync import threadlocal
from zasync.failure import Failure
from zasync.foundation import attempts, clock
from zasync.foundation.attempts import Stopped, committed
from zasync.foundation.errors import Trouble, classify
from zasync.foundation.reporting import events
from zasync.interfaces import (
    PENDING,
    ReassignedError,
)
from zasync.job import relations
from zasync.job.attempt import name_of
from zasync.job.bookkeeping import adopt, keep_books, put_resumption
from zasync.job.performance import call_back, give_up, perform, resume
from zasync.job.run import Ending, Host, Run
from zasync.job.states import Move


class ByHand:
    """The host of a job that is simply called."""

    def surroundings(self, run: Run) -> threadlocal.Surroundings:
        outer = threadlocal.surroundings.get()
        if outer is None:
            return threadlocal.Surroundings(lambda: run.job, token=run.token, host=self)
        return dataclasses.replace(outer, get_job=lambda: run.job, token=run.token, host=self)

    def around(self, job: Any) -> AbstractContextManager[Any]:
        return nullcontext()  # what the caller has set up

    def takes(self, awaitable: Any) -> bool:
        return not inspect.iscoroutine(awaitable)

    def may_begin(self) -> bool:
        return True

    def wait_to_begin(self) -> None:
        pass

    def attach(self, run: Run, awaitable: Any) -> None:
        """Settle in the thread in which the Deferred fires, in a connection of its own."""
        database, oid = run.connection.db(), run.job._p_oid

        def fired(value: Any) -> Any:
            manager = transaction.TransactionManager()
            connection = database.open(transaction_manager=manager)
            try:
                job = committed(lambda: connection.get(oid), transaction_manager=manager)
                outcome = resume(dataclasses.replace(run, job=job), value)
                keep_books(job, outcome)
            finally:
                attempts.end(manager)
                connection.close()
            return value

        awaitable.addBoth(fired)


def run_by_hand(job: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`job(*args, **kwargs)`: run it in its connection's transaction manager; answers its result.

    What the caller has changed so far is committed with the start mark.
    """
    manager = _manager_of(job)
    Move.START.check(job)
    job.check_resolvable()  # before anything is marked
    token = clock.current().token()
    job.start(token)
    run = Run(job, token, ByHand(), args, kwargs)
    _commit_start(run)
    try:
        outcome = perform(run)
    except (SystemExit, KeyboardInterrupt):
        keep_books(job, give_up(run))
        raise
    if outcome.ending is Ending.STOPPED:
        raise Stopped
    if outcome.ending is Ending.SUPERSEDED:
        raise ReassignedError(f"{job!r} was taken away while it ran; nothing was committed")
    keep_books(job, outcome)
    # In a new transaction, since another connection may have ended the job meanwhile.
    return committed(lambda: job.result, transaction_manager=manager)


def _commit_start(run: Run) -> None:
    """Commit the start mark and what the caller did; the error if that is sure to have failed."""
    manager = run.manager
    try:
        manager.commit()
    except Exception as error:
        attempts.end(manager)
        if classify(error, from_storage=True) is Trouble.CONFLICT or run.job._p_jar is None:
            raise
        events.job_in_doubt(name_of(run.job), error)
        if not committed(run.owns_job, transaction_manager=manager):
            raise


def fail_by_hand(job: Any, error: Any) -> Any:
    """`job.fail(error)`: make it the result, commit, and run the callbacks.

    Answers the Failure; but nothing to the job whose only work this is, which has not failed.
    """
    manager = _manager_of(job)
    by_a_job_of_ours = _is_failing_job_of(job)
    if not by_a_job_of_ours:
        Move.FAIL.check(job)
    if not relations.has_result(job):
        _write_early_failure(job, error)
        adopt(job)
        manager.commit()
        job.report_end()
    outcome = call_back(job, host_here())
    if outcome.ending is Ending.STOPPED:
        raise Stopped
    keep_books(job, outcome)
    return None if by_a_job_of_ours else job.result


def _is_failing_job_of(job: Any) -> bool:
    """Whether what runs here is the job that is to fail `job`: it may do that a second time."""
    around = threadlocal.surroundings.get()
    runner = None if around is None else around.get_job()
    if runner is None or runner._payload is None:
        return False
    return runner._payload.target is job and runner._names[-1] == "fail"


def _write_early_failure(job: Any, error: Any) -> None:
    queue = job.queue
    if job.status == PENDING:
        queue.remove(job)
        job.parent = queue  # so that its callbacks find it
    if isinstance(error, type):
        error = error()
    job.finish(error if isinstance(error, Failure) else Failure(error))


def host_here() -> Host:
    """What runs the callbacks of another job: what runs the present job, or nothing special."""
    around = threadlocal.surroundings.get()
    return ByHand() if around is None or around.host is None else around.host


def run_late_callback(job: Any, item: Any) -> None:
    """Run a callback that was added to a COMPLETED job, at once, committing before and after.

    Inside of a running job it is left to the queue instead: the running job's changes must not
    be committed before it has ended.
    """
    around = threadlocal.surroundings.get()
    if around is not None:
        queue = around.get_job().queue if job.queue is None else job.queue
        if queue is not None:
            put_resumption(queue, job.continue_callbacks)
            return
    _manager_of(job).commit()
    call_back(job, ByHand())


def _manager_of(job: Any) -> Any:
    home = getattr(job.parent, "_p_jar", None)
    if job._p_jar is None and home is not None:  # not committed yet, such as one that a claim made
        home.add(job)
    if job._p_jar is None:
        raise ValueError(
            f"{job!r} is not in a database; put it in a queue, or add it to a stored object and"
            " commit, before it is run"
        )
    return job._p_jar.transaction_manager
