# SPDX-License-Identifier: ZPL-2.1
"""What becomes of a job whose dispatcher died, or stopped, while it held the job.

These functions commit; they are called by hand or, mostly, as jobs of their own that a
dispatcher puts when it empties the agents of a dead one.  Each may be done twice.
"""

from __future__ import annotations

from typing import Any

from zasync import threadlocal
from zasync.failure import Failure
from zasync.foundation import clock
from zasync.foundation.attempts import Stopped, committed
from zasync.foundation.failpoints import reach
from zasync.foundation.reporting import events
from zasync.interfaces import (
    ACTIVE,
    CALLBACKS,
    COMPLETED,
    AbortedError,
    BadStatusError,
    IAgent,
    UnresolvableError,
)
from zasync.job import (
    attempt,
    bookkeeping,
    by_hand,
    cancelling,
    crashes,
    decisions,
    performance,
    relations,
    run,
    two_databases,
)
from zasync.job.bookkeeping import adopt
from zasync.job.states import Move

PARKED = "parked"
CANCELLED = "cancelled"


def handle_interrupt(job: Any) -> None:
    """Ask the policy of an ACTIVE job what to do about its interruption, do it, and commit.

    A job that has gone on meanwhile is left alone; one that has its result gets its callbacks
    done.
    """
    manager = job._p_jar.transaction_manager
    by_hand = threadlocal.surroundings.get() is None
    was_in_callbacks = job.status == CALLBACKS
    attempts = committed(two_databases.attempts_at, job, transaction_manager=manager)
    try:
        found = None if not by_hand and _runs_again(job) else two_databases.find(job)
    except UnresolvableError as error:
        _leave_to_others(job, job.handleInterrupt, error)
        return
    decision = committed(_interrupt, job, by_hand, attempts, found, transaction_manager=manager)
    if found is not None and decision is None:
        two_databases.report(job, found)
    elif decision is PARKED:
        events.job_parked(job.result.getErrorMessage())
    elif decision is not None and decision is not CANCELLED:
        events.interrupted(job, decision)
    if relations.has_result(job):
        if decision is not None or found is not None:
            job.report_end()
        finish_callbacks(job, resuming=by_hand and was_in_callbacks)


def _interrupt(job: Any, by_hand: bool, attempts: Any, found: two_databases.Found | None) -> Any:
    """Decide and write; answers the decision, or None where there is nothing to decide."""
    if job.status != ACTIVE or (not by_hand and _runs_again(job)):
        return None
    if two_databases.attempts_at(job) != attempts:
        return None  # it has run again, and been interrupted again; that is handled elsewhere
    if found is not None:
        two_databases.take_over(job, found)
    two_databases.forget_interruptions(job)
    if relations.has_result(job):
        job._token = None
        adopt(job)
        return None
    inner = job.awaited
    if inner is not None:
        _wait_on(job, inner)
        return None
    if cancelling.finish_interrupted(job):
        return CANCELLED
    died = crashes.note(job, crashes.cause_of(job))
    job._alone = True
    decision = decisions.ask_policy(job, "interrupted")
    reach("recovery.interrupting")
    job.policy_changed()
    job._token = None
    if decision is False:
        job.finish(Failure(AbortedError(f"{job!r} was interrupted")))
        adopt(job)
        return decision
    if died and job._crash_count >= crashes.limit_of(job) and not crashes.is_repair(job):
        _park(job)
        return PARKED
    at_once = decision is True or decisions.is_first_in_line(decision)
    due = 0 if at_once else decisions.due_moment(decision)
    if not job.is_callback:
        queue = job.queue
        if job.agent is not None:
            job.agent.let_go(job)
        job._again = due
        bookkeeping.put_again(job, queue)
    elif at_once:
        job.move(Move.RETRY_CALLBACK)  # whoever asked goes on with it
    else:
        bookkeeping.put_callback_again(job, due)
    return decision


def _leave_to_others(job: Any, method: Any, error: UnresolvableError) -> None:
    """Have another worker, if there is one, try `method`; a job without a queue just fails."""
    queue = job.queue
    if queue is None or job.is_callback:
        raise error
    events.database_missing(error)
    later = clock.now() + attempt.UNRESOLVABLE_PAUSE
    manager = job._p_jar.transaction_manager
    committed(bookkeeping.put_resumption, queue, method, later, transaction_manager=manager)


def _park(job: Any) -> None:
    """End the job, since it may well be what kills the processes, and have its queue show it."""
    job.finish(Failure(crashes.poison_error(job)))
    adopt(job)
    crashes.park(job)


def _runs_again(job: Any) -> bool:
    """Whether a job whose interruption is handled a second time is running again already."""
    return job._token is not None and IAgent.providedBy(job.parent)


def _wait_on(job: Any, inner: Any) -> None:
    """The job waits for another one, which no death of ours can stop."""
    if relations.has_result(inner):
        job.take_inner_result(attempt.unwrapped(inner))
    adopt(job)


def resume_callbacks(job: Any) -> None:
    """Finish the callbacks of a job in CALLBACKS: those left ACTIVE were interrupted.

    A COMPLETED job is left alone; any other status is a BadStatusError.
    """
    if job.status == COMPLETED:
        return
    if job.status != CALLBACKS:
        raise BadStatusError(
            f"the callbacks of {job!r} cannot be resumed: its status is {job.status},"
            f" and must be {CALLBACKS}"
        )
    try:
        finish_callbacks(job, resuming=True)
    except UnresolvableError as error:
        _leave_to_others(job, job.resumeCallbacks, error)


def continue_callbacks(job: Any) -> None:
    """Run the callbacks that have not begun, as far as the job has a result."""
    if relations.has_result(job):
        finish_callbacks(job)


def finish_callbacks(job: Any, *, resuming: bool = False) -> None:
    """Run the callbacks, then those of the jobs that waited for this one to be completed."""
    host = by_hand.host_here()
    if not job.is_callback:
        committed(adopt, job, transaction_manager=job._p_jar.transaction_manager)
    outcome = performance.call_back(job, host, resuming=resuming)
    if outcome.ending is run.Ending.STOPPED:
        raise Stopped  # what runs here is interrupted too, and begins here anew
    bookkeeping.keep_books(job, outcome)
    performance.continue_parents(job, host)
