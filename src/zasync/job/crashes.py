# SPDX-License-Identifier: ZPL-2.1
"""How a job was interrupted, what is kept of each death, and when it is enough.

Whoever empties an agent leaves on each job why (`_interruption`): None is not known, STOPPED a
clean stop, a dict the evidence of a death.  What follows is decided in `zasync.job.interruption`.
Nothing here commits.
"""

from __future__ import annotations

from typing import Any

from zasync import threadlocal
from zasync.interfaces import PoisonError
from zasync.job import relations
from zasync.job.progress import progress_of

Cause = str | dict[str, Any] | None

STOPPED = "stopped"
CRASH_LIMIT = 3
CRASHES_KEPT = 5  # of each job, the latest
OTHERS_NAMED = 20  # jobs held by the dispatcher that died

_REPAIRS = frozenset({"handleInterrupt", "resumeCallbacks", "continue_callbacks", "fail"})
_LINKS = frozenset({"take_inner_result", "member_ended"})


def checked_limit(limit: Any) -> int:
    """A number of deaths; ValueError if it is none."""
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ValueError(f"crash_limit is a number of deaths from 1 on, not {limit!r}")
    return limit


def cause_of(job: Any) -> Cause:
    """Why the last run of `job` was interrupted.

    A callback is not held by an agent.  What is left there, and so knows, is the job that ran it:
    the one whose callback it is, or a repair that goes on now.
    """
    if not job.is_callback:
        return job._interruption  # type: ignore[no-any-return]
    around = threadlocal.surroundings.get()
    runner = None if around is None else around.get_job()
    if runner is not None and job._starter is not None and job._starter[0] == runner.oid:
        return runner._interruption  # type: ignore[no-any-return]
    return relations.topmost(job)._interruption  # type: ignore[no-any-return]


def note(job: Any, cause: Cause) -> bool:
    """Keep in the job's record what interrupted it; answers whether that was one more death.

    That of a dispatcher which groups jobs is not counted where the job may have been in a group.
    """
    job._interruption = cause
    if not isinstance(cause, dict):
        return False
    known = [(crash["at"], crash["dispatcher"]) for crash in job._crashes]
    if (cause["at"], cause["dispatcher"]) in known:
        return False
    crash = {
        **cause,
        "progress": progress_of(job),
        "others": tuple(oid for oid in cause["others"] if oid != job.oid)[:OTHERS_NAMED],
    }
    job._crashes = (*job._crashes, crash)[-CRASHES_KEPT:]
    if cause.get("grouped") and not job._alone and not is_last_chance_at_once(job):
        return False  # one of very many; from now on it runs alone, and that will tell
    job._crash_count += 1
    return True


def limit_of(job: Any) -> int:
    """After how many deaths the job is parked: its own limit, else that of its queue."""
    if job.crash_limit is not None:
        return job.crash_limit  # type: ignore[no-any-return]
    queue = job.queue
    return CRASH_LIMIT if queue is None else queue.crash_limit


def is_last_chance(job: Any) -> bool:
    """Whether one more death is too much, so that this run should tell who is to blame."""
    return bool(job._crash_count and job._crash_count >= limit_of(job) - 1)


def is_last_chance_at_once(job: Any) -> bool:
    """Whether the very first death is too much."""
    return limit_of(job) <= 1


def is_repair(job: Any) -> bool:
    """Whether `job` is one of ours that ends, repairs or continues another job.

    Or one that tells it a result.  It is never parked, since that other job would be lost with it.
    If it dies for a callback of that job, then the callback is.
    """
    payload = job._payload
    if payload is None or not relations.is_job(payload.target):
        return False
    return job._names[-1] in _REPAIRS | _LINKS


def park(job: Any) -> None:
    """Have the queue of `job`, which has just ended, remember it for a person to see to."""
    queue = job.queue
    if queue is not None:
        queue.parked.add(job)


def poison_error(job: Any) -> PoisonError:
    """The error that a parked job ends with; its message tells the evidence."""
    lines = [f"{job!r} is parked: its process died {job._crash_count} times while it ran"]
    lines += [_in_words(crash) for crash in job._crashes]
    return PoisonError("\n".join(lines))


def _in_words(crash: dict[str, Any]) -> str:
    progress = crash["progress"]
    reached = "no progress was noted" if progress is None else f"it had reached {progress!r}"
    return (
        f"{crash['at']:%Y-%m-%d %H:%M:%S} UTC: pid {crash['pid']} on {crash['host']},"
        f" dispatcher {crash['dispatcher']}, agent {crash['agent']!r} of queue {crash['queue']!r},"
        f" which held {crash['held'] - 1} other jobs; {reached}"
    )
