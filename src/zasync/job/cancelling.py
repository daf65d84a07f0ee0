# SPDX-License-Identifier: ZPL-2.1
"""Ending a job that nobody wants any more, and what is done only for it.  Nothing here commits.

The end is written into the job's own record, so whatever runs the job at this moment conflicts
and commits nothing more.  It is not stopped: its code may ask `zasync.local.is_cancelled`.  The
place in its agent is given back by the dispatcher (`zasync.dispatcher.cancelling`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zasync import threadlocal
from zasync.failure import Failure
from zasync.foundation.text import printable
from zasync.foundation.wakeup import ring_after_commit
from zasync.interfaces import ACTIVE, CALLBACKS, NEW, PENDING, CancelledError, ICallbackProxy
from zasync.job import bookkeeping, relations, two_databases

LONGEST_REASON = 200  # characters


def cancel(job: Any, reason: str | None = None) -> bool:
    """Give `job` a CancelledError as its result; answers False if it has come to its end already.

    The jobs that only it waits for are cancelled too.  See `zasync.job.Job.cancel`.
    """
    if reason is not None and not isinstance(reason, str):
        raise TypeError(f"the reason of a cancellation is text, not {reason!r}")
    if relations.has_result(job) or job._cancelled is not None:
        return False
    if _runs_here(job):
        raise ValueError(f"{job!r} cannot cancel itself while it runs; raise CancelledError in it")
    todo = [(job, reason)]
    while todo:
        next_one, why = todo.pop()
        in_vain = list(_in_vain_without(next_one))
        _end(next_one, CancelledError(_message(next_one, why)))
        why = f"only {next_one.callable_name} waited for it, which was cancelled"
        todo += [(other, why) for other in in_vain]
    return True


def expire(job: Any, token: int, error: Exception) -> bool:
    """Give `job` a Failure of `error` as its result, if the attempt `token` still runs it.

    That attempt commits nothing any more.
    """
    if job.status != ACTIVE or job._token != token or job._cancelled is not None:
        return False
    _end(job, error)
    return True


def _message(job: Any, reason: str | None) -> str:
    text = f"{job.callable_name} was cancelled"
    if reason:
        text += f": {printable(reason, one_line=True)[:LONGEST_REASON]}"
    return text


def _runs_here(job: Any) -> bool:
    """Whether it is the job's own code, in its own transaction, that wants to end it."""
    around = threadlocal.surroundings.get()
    return around is not None and around.get_job() is job


def _in_vain_without(job: Any) -> Iterator[Any]:
    """The jobs that are performed for `job` alone, which is about to be cancelled."""
    for other in job.performed_for_it():
        if relations.has_result(other) or other._cancelled is not None or _runs_here(other):
            continue
        if other.status == NEW and other.parent is None:
            continue  # nobody will put it now
        if all(_tells(callback, job) for callback in other.callbacks):
            yield other


def _tells(callback: Any, job: Any) -> bool:
    """Whether `callback` does nothing but tell a result to `job`."""
    payload = getattr(callback, "_payload", None)
    return payload is not None and payload.target is job


def _end(job: Any, error: Exception) -> None:
    queue = job.queue
    if queue is None and _needs_a_queue(job):
        raise ValueError(
            f"{job!r} cannot be cancelled: it lies in no queue, so nobody would see to what follows"
            " its end.  Call fail(CancelledError()), which does that at once"
        )
    if _is_half_of_a_pair(job):
        raise ValueError(f"{job!r} is one half of a pair of callbacks that is not chosen yet")
    if job._p_jar is not None:
        ring_after_commit(job._p_jar)
    if two_databases.may_be_half_committed(job):
        _interrupt(job, queue, str(error))
    else:
        _finish(job, queue, error)


def _needs_a_queue(job: Any) -> bool:
    return bool(job.callbacks) or _is_waited_on(job) or two_databases.may_be_half_committed(job)


def _is_half_of_a_pair(job: Any) -> bool:
    return bool(ICallbackProxy.providedBy(job.parent) and job.parent.job is None)


def _is_waited_on(job: Any) -> bool:
    """Whether `job` is a callback that its parent has left, as it waits for something itself."""
    if job.status != ACTIVE or not job.is_callback:
        return False
    return job.awaited is not None or job._suspension is not None


def _interrupt(job: Any, queue: Any, message: str) -> None:
    """Fence the run off, and leave the end to one who can see what it has committed elsewhere."""
    job._cancelled = message
    if job._token is not None:
        record = getattr(job.agent, "parent", None)
        two_databases.note_interruption(job, getattr(record, "databases", ()))
    job._token = job._quota_hold = None
    bookkeeping.put_resumption(queue, job.handleInterrupt)


def _finish(job: Any, queue: Any, error: Exception) -> None:
    was_waited_on = _is_waited_on(job)
    if job.status == PENDING:
        queue.remove(job)
        job.parent = queue  # so that its callbacks find it
    job._token = None  # or the run that was going on would take this for its own end
    job.finish(Failure(error))
    if job._p_jar is not None:
        now = job._p_jar.transaction_manager.get()
        now.addAfterCommitHook(lambda committed: job.report_end() if committed else None)
    if job.status == CALLBACKS and not job.callbacks:
        extras = job.find_extras()
        if extras._p_jar is not None:  # else a callback that is added at this moment is lost
            extras._p_jar.readCurrent(extras)
        job.complete()
    if job.status == CALLBACKS:
        bookkeeping.put_resumption(queue, job.resumeCallbacks)
    elif was_waited_on:
        bookkeeping.put_resumption(queue, relations.parent_job(job).continue_callbacks)


def finish_interrupted(job: Any) -> bool:
    """End a job that was cancelled while it might have been half committed, and was not.

    Answers whether `job` is such a one.
    """
    if job._cancelled is None:
        return False
    job.finish(Failure(CancelledError(job._cancelled)))
    bookkeeping.adopt(job)
    return True
