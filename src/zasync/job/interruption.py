# SPDX-License-Identifier: ZPL-2.1
"""What becomes of a job whose dispatcher died, or stopped, while it held the job.

These functions commit; they are called by hand or, mostly, as jobs of their own that a
dispatcher puts when it empties the agents of a dead one.  Each may be done twice.
"""

from __future__ import annotations

from typing import Any

from zasync import threadlocal
from zasync.failure import Failure
from zasync.foundation.attempts import committed
from zasync.foundation.reporting import events
from zasync.interfaces import (
    ACTIVE,
    CALLBACKS,
    COMPLETED,
    AbortedError,
    BadStatusError,
)
from zasync.job import performance, relations
from zasync.job.states import Move


def handle_interrupt(job: Any) -> None:
    """Ask the policy of an ACTIVE job what to do about its interruption, do it, and commit.

    A job that has gone on meanwhile is left alone.
    """
    manager = job._p_jar.transaction_manager
    if job.status == CALLBACKS:
        resume_callbacks(job)
        return
    decision = committed(_interrupt, job, transaction_manager=manager)
    if decision is None:
        return
    events.interrupted(job, decision)
    if relations.has_result(job):
        job.report_end()
        finish_callbacks(job)


def _interrupt(job: Any) -> Any:
    """Decide and write; answers the decision, or None where there is nothing to decide."""
    if job.status != ACTIVE:
        return None
    inner = job.awaited
    if inner is not None:
        _wait_on(job, inner)
        return None
    decision = performance.ask_policy(job, "interrupted")
    job._token = None
    if decision is False or decision is None:
        job.finish(Failure(AbortedError(f"{job!r} was interrupted")), bool(job.callbacks))
        _adopt(job)
    elif job.is_callback:
        job.move(Move.RETRY_CALLBACK)
        job._again = None if decision is True else performance.due_moment(decision)
    else:
        first_in_line = decision is True or decision == decision - decision
        job._again = 0 if first_in_line else performance.due_moment(decision)
        performance.put_again(job, job.queue)
    return decision


def _wait_on(job: Any, inner: Any) -> None:
    """The job waits for another one, which no death of ours can stop."""
    if relations.has_result(inner):
        job.take_inner_result(performance._unwrapped(inner))
    _adopt(job)


def _adopt(job: Any) -> None:
    """Give a job that has lost its agent to the agent that runs the present job, if any."""
    found = threadlocal.surroundings.get()
    agent = None if found is None else getattr(found.get_job(), "agent", None)
    if agent is not None and job.agent is None and not job.is_callback:
        agent.adopt(job)


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
    finish_callbacks(job, resuming=True)


def continue_callbacks(job: Any) -> None:
    """Run the callbacks that have not begun, as far as the job has a result."""
    if relations.has_result(job):
        finish_callbacks(job)


def finish_callbacks(job: Any, *, resuming: bool = False) -> None:
    """Run the callbacks, then those of the jobs that waited for this one to be completed."""
    host = performance.ByHand()
    if not job.is_callback:
        committed(_adopt, job, transaction_manager=job._p_jar.transaction_manager)
    outcome = performance.call_back(job, host, resuming=resuming)
    performance.keep_books(job, outcome)
    performance.continue_parents(job, host)
