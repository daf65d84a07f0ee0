# SPDX-License-Identifier: ZPL-2.1
"""The steps of one run of a job: prepare, call, settle, call back.

Its outcome is a value; whoever runs the job acts on it: a dispatcher's worker thread
(`zasync.dispatcher.worker`), or `zasync.job.by_hand`.  A run is named by its attempt token, and
commits nothing for a job that carries another one.  After an error from a commit the database is
asked what became of it; nothing is ever retried blindly.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

from zasync import threadlocal
from zasync.failure import Failure
from zasync.foundation import attempts, clock
from zasync.foundation.attempts import Stopped, committed
from zasync.foundation.failpoints import reach
from zasync.foundation.reporting import events
from zasync.interfaces import (
    ACTIVE,
    CALLBACKS,
    COMPLETED,
    NEW,
    ICallbackProxy,
    ReassignedError,
)
from zasync.job import relations
from zasync.job.attempt import (
    after_error,
    attempt,
    begin,
    decide,
    not_begun,
    settle,
    settle_failure,
)
from zasync.job.bookkeeping import keep_books
from zasync.job.run import CommitGuard, Ending, Host, Landing, Outcome, Run, Step


def perform(run: Run, first: Step | None = None) -> Outcome:
    """Run the job until it has an outcome, and then its callbacks.

    The job is ACTIVE under the run's token, and that is committed.  `first` replaces the first
    attempt where a Deferred or a coroutine has already done the work.
    """
    next_one: Outcome | Step = first or attempt
    token = threadlocal.surroundings.set(run.host.surroundings(run))
    try:
        while not isinstance(next_one, Outcome):
            next_one = _guarded(next_one, run)
    finally:
        threadlocal.surroundings.reset(token)
    return finish_with_callbacks(run) if next_one.ending is Ending.CALLBACKS else next_one


def finish_with_callbacks(run: Run) -> Outcome:
    """Run the callbacks of a job that has its result, as its run goes on."""
    outcome = _guarded(lambda run: call_back(run.job, run.host), run)
    assert isinstance(outcome, Outcome)
    return outcome


def fail(run: Run, failure: Failure) -> Outcome:
    """End the job with `failure` instead of calling it."""
    return perform(run, lambda run: settle_failure(run, failure))


def _guarded(step: Step, run: Run) -> Outcome | Step:
    """Do one step; being stopped or superseded in it is an outcome like others."""
    try:
        return step(run)
    except Stopped:
        attempts.end(run.manager)
        return Outcome(Ending.STOPPED)
    except ReassignedError as error:
        attempts.end(run.manager)
        events.job_lost(repr(run.job), error)
        return Outcome(Ending.SUPERSEDED)


def call_back(job: Any, host: Host, *, resuming: bool = False) -> Outcome:
    """Run the callbacks that are not done, one after the other; then the job is COMPLETED.

    Each runs in transactions of its own.  One that waits for something else is left; whoever
    ends it continues here.  `resuming` says that ACTIVE ones were interrupted.
    """
    manager = job._p_jar.transaction_manager
    seen = 0
    while True:
        token = clock.current().token()
        step = committed(_next_callback, job, seen, resuming, token, transaction_manager=manager)
        if step.callback is None:
            reach("callbacks.done")
            return Outcome(Ending.COMPLETED if step.done else Ending.CALLBACKS, failed=job.failed)
        seen = step.index + 1
        if step.interrupted:
            step.callback.handleInterrupt()
            seen = step.index
            continue
        reach("callbacks.chosen")
        ending = _run_callback(step.callback, host).ending
        reach("callbacks.called")
        if ending is Ending.STOPPED:
            return Outcome(Ending.STOPPED, failed=job.failed)


@dataclasses.dataclass(frozen=True)
class _Step:
    """What to do next for the callbacks of a job."""

    callback: Any = None
    index: int = 0
    interrupted: bool = False
    done: bool = False


def _next_callback(job: Any, seen: int, resuming: bool, token: int) -> _Step:
    """Choose the next callback to run, from the index `seen` on; complete the job if none is left.

    Marks what is chosen as ACTIVE under the new `token`, in the transaction that will be
    committed; done again after a doubtful commit, it answers what it chose.
    """
    reach("callbacks.next")
    unfinished = False
    for index, item in enumerate(job.callbacks):
        callback = item.getJob(job.result) if ICallbackProxy.providedBy(item) else item
        if callback.status == COMPLETED:
            continue
        unfinished = True
        if index < seen:
            continue
        if callback.status == ACTIVE and callback._token == token:
            return _Step(callback, index)
        if callback.status == NEW and not _is_for_later(callback):
            callback.start(token)
            callback._starter = _runner()
            return _Step(callback, index)
        if callback.awaited is None and _was_left_behind(callback, resuming):
            return _Step(callback, index, interrupted=callback.status == ACTIVE)
    if not unfinished and job.status == CALLBACKS:
        extras = job.find_extras()
        if extras is not None:
            job._p_jar.readCurrent(extras)
        job.complete()
    return _Step(done=not unfinished)


def _is_for_later(callback: Any) -> bool:
    return callback._again is not None and callback._again > clock.now_micros()


def _runner() -> tuple[int, int] | None:
    """The job, and its attempt, that runs here and continues the callbacks of another; or None."""
    around = threadlocal.surroundings.get()
    if around is None:
        return None
    job = around.get_job()
    return job.oid, job._token


def _was_left_behind(callback: Any, resuming: bool) -> bool:
    """Whether whatever ran `callback` is gone.

    One that was started by a job that continues callbacks is left to that job, whose own
    interruption brings it here again, in another attempt; unless that job has ended, since the
    callback had to wait for a Deferred or a coroutine.
    """
    if callback.status == NEW:  # for later
        return False
    runner, starter = _runner(), callback._starter
    if runner is None or starter is None:
        return resuming
    if starter[0] == runner[0]:
        return bool(starter[1] != runner[1])
    return resuming and _has_ended(callback._p_jar, starter[0])


def _has_ended(connection: Any, oid: int) -> bool:
    """Whether the job `oid` goes on no more: it is completed, or forgotten already."""
    try:
        return bool(connection.get(oid.to_bytes(8, "big")).status == COMPLETED)
    except KeyError:
        return True


def _run_callback(callback: Any, host: Host) -> Outcome:
    if callback.status == CALLBACKS:  # its own call is done, its callbacks are not
        return call_back(callback, host, resuming=True)
    run = Run(callback, callback._token, host, of_callback=True)
    try:
        return perform(run)
    except (SystemExit, KeyboardInterrupt):
        give_up(run)
        raise


def give_up(run: Run) -> Outcome:
    """The process is to end: what is being handled becomes the job's failure, if it has no end."""
    try:
        return settle_failure(run, Failure())
    except ReassignedError:
        return Outcome(Ending.SUPERSEDED)


def continue_parents(job: Any, host: Host) -> None:
    """After `job`, which had to wait, has been completed: go on with those that waited for it."""
    parent = relations.parent_job(job)
    while parent is not None and parent.status == CALLBACKS and job.status == COMPLETED:
        outcome = call_back(parent, host)
        if outcome.ending is Ending.STOPPED:
            raise Stopped
        keep_books(parent, outcome)
        job, parent = parent, relations.parent_job(parent)


def landed(run: Run, value: Any) -> Any:
    """The result that a coroutine has answered; a Landing makes it in this transaction."""
    if not isinstance(value, Landing):
        return value
    with CommitGuard(run, warns=True):
        return value()


def resume(run: Run, value: Any = None, error: BaseException | None = None) -> Outcome:
    """Settle a suspended run with the value or the error that its awaitable ended with."""

    def land(run: Run) -> Outcome | Step:
        """Only this is done again after a conflict: what the callable did is committed already."""
        try:
            begin(run)
        except (Stopped, ReassignedError):
            raise
        except Exception as trouble:
            return not_begun(run, trouble, land)
        if error is not None:
            attempts.end(run.manager)
            return decide(run, "jobError", Failure(error), attempt)
        try:
            return settle(run, landed(run, value), land)
        except (Stopped, ReassignedError):
            raise
        except Exception:
            return after_error(run, land if isinstance(value, Landing) else attempt)

    outcome = perform(run, land)
    if outcome.ending is Ending.COMPLETED:
        with contextlib.suppress(Stopped):  # then those are handed back too
            continue_parents(run.job, run.host)
    return outcome
