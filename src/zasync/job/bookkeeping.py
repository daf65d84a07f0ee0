# SPDX-License-Identifier: ZPL-2.1
"""Where a job goes once a run is over: among the completed of its agent, or back to its queue.

A dispatcher does this in its poll, for many jobs at once; here is what it and others have in
common, and what is done at once for a job that was called by hand.
"""

from __future__ import annotations

import logging
from typing import Any

from zasync import threadlocal
from zasync.foundation import clock
from zasync.foundation.attempts import committed
from zasync.interfaces import (
    COMPLETED,
)
from zasync.job import relations, retry
from zasync.job.adapting import plain_job
from zasync.job.run import Ending, Outcome
from zasync.job.states import Move


def put_callback_again(callback: Any, due: int) -> None:
    """Make a callback ready to be run again by its parent at `due`, and see to that."""
    callback.move(Move.RETRY_CALLBACK)
    callback._again = due
    queue = callback.queue
    if queue is not None:
        when = clock.from_micros(due) if due else None
        continuing = relations.parent_job(callback).continue_callbacks
        put_resumption(queue, continuing, begin_after=when)


def put_resumption(queue: Any, method: Any, begin_after: Any = None) -> None:
    """Put a job of ours that repairs or continues another job: first in line, never given up."""
    job = plain_job(method)
    job.failure_log_level = logging.CRITICAL
    job.retry_policy_factory = retry.RetryCommonForever
    if begin_after is None:
        queue.putBack(job)
    else:
        queue.put(job, begin_after=begin_after)


def keep_books(job: Any, outcome: Outcome) -> None:
    """Do at once, and commit, what a dispatcher does for many jobs in its next poll.

    Within a dispatcher what an agent holds is left to the poll, so that agents have one writer.
    """
    if job.is_callback or outcome.ending not in (Ending.COMPLETED, Ending.RESCHEDULED):
        return
    around = threadlocal.surroundings.get()
    if around is None or around.dispatcher is None or job.agent is None:
        committed(_keep_books, job, transaction_manager=job._p_jar.transaction_manager)


def _keep_books(job: Any) -> None:
    agent = job.agent
    if job.status == COMPLETED:
        if agent is not None and job.parent is agent and job in agent:
            agent.jobCompleted(job)
        return
    if job._again is not None:
        queue = job.queue
        if agent is not None:
            agent.let_go(job)
        put_again(job, queue)


def put_again(job: Any, queue: Any) -> None:
    """Put a job that is to run again back in `queue`; without one it is NEW.  Does not commit."""
    due, job._again = job._again, None
    if queue is None:
        job.move(Move.LET_GO)
        job.parent = None
    elif due:
        queue.reschedule(job, due)
    else:
        queue.putBack(job)


def adopt(job: Any) -> None:
    """Give a job that has lost its agent to the agent that runs the present job, if any."""
    found = threadlocal.surroundings.get()
    agent = None if found is None else getattr(found.get_job(), "agent", None)
    if agent is not None and job.agent is None and not job.is_callback:
        agent.adopt(job)
