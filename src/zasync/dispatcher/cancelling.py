# SPDX-License-Identifier: ZPL-2.1
"""What a dispatcher does about jobs that were cancelled while it holds them.

A thread cannot be stopped, so its place is taken until it comes back; what it did is not
committed.  A job that waits for a coroutine or a Deferred holds no thread: its place is free at
once, and the coroutine is cancelled.
"""

from __future__ import annotations

from typing import Any

from zasync.dispatcher.history import Key
from zasync.dispatcher.pool import Pool
from zasync.foundation import clock
from zasync.foundation.errors import why_unreadable
from zasync.interfaces import COMPLETED
from zasync.job import bookkeeping, relations
from zasync.job.run import Ending, Outcome


def let_go(agent: Any, pool: Pool, dispatcher: Any) -> None:
    """Forget the runs of `pool` that wait for a coroutine or a Deferred and have lost their job.

    Called within a poll; the poll sees to the job.  Looks only at jobs that nobody writes while
    they wait, which the poll's connection therefore knows already.
    """
    held = None
    for tracked in pool.busy:
        if tracked.running or tracked.thread is not None:
            continue
        held = dict(agent.held()) if held is None else held
        job = held.get(tracked.place)
        if job is None or why_unreadable(job) is not None or job._token == tracked.token:
            continue
        dispatcher.coroutines.cancel(task_name(tracked.key, tracked.token))
        tracked.info |= {"completed": clock.now(), "failed": None, "reassigned": True}
        pool.settled((tracked, Outcome(Ending.SUPERSEDED)))


def tidy(agent: Any, place: int) -> bool:
    """See to the job claimed under the number `place`, which this process runs no more.

    Answers False if it has no end yet, which others than the run that was lost have given it.
    """
    job = agent.held_at(place)
    if why_unreadable(job) is not None or not relations.has_result(job):
        return False
    if job.status == COMPLETED:
        agent.jobCompleted(job)
    else:
        agent.await_others(place)
        bookkeeping.put_resumption(agent.queue, job.resumeCallbacks)  # for the second time, mostly
    return True


def task_name(key: Key, token: int) -> str:
    """What a coroutine is called in its loop."""
    return f"zasync job {key[0]} of {key[1]}, run {token}"
