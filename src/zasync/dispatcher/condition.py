# SPDX-License-Identifier: ZPL-2.1
"""How the dispatcher of this process does, in words, without asking the storage or the reactor.

`zasync.dispatcher.health` is the look from outside, at the database.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from zasync.dispatcher.health import BROKEN, DEGRADED, Document, Problem, verdict
from zasync.foundation import clock

OVERDUE_TOLD = 20  # jobs at most that the database is told of


def status_info(dispatcher: Any) -> dict[str, Any]:
    """What `Dispatcher.getStatusInfo` answers."""
    now = clock.now()
    last = next(iter(dispatcher.polls), None)
    age = dispatcher.pulse.age()
    overdue = [each.key for each in dispatcher.running() if dispatcher.is_overdue(each)]
    return {
        "status": _status(dispatcher),
        "uuid": dispatcher.UUID,
        "uptime": None if not dispatcher.activated else now - dispatcher.activated,
        "poll interval": timedelta(seconds=dispatcher.poll_interval),
        "time since last poll": None if last is None else now - last.utc_timestamp,
        "time since last ping": None if age is None else timedelta(seconds=age),
        "begins jobs": bool(dispatcher.activated) and dispatcher.may_begin(),
        "overdue": overdue,
        "capacity": {
            "size": sum(pool.size for pool in dispatcher.pools()),
            "running": len(dispatcher.getActiveJobIds()),
            "overdue": len(overdue),
        },
    }


def _status(dispatcher: Any) -> str:
    if not dispatcher.activated:
        return "STOPPED"
    if dispatcher.seconds_without_poll() > dispatcher.stuck_after:
        return "STUCK"
    return "RUNNING" if len(dispatcher.polls) else "STARTING"


def overdue_report(dispatcher: Any, queue_name: str) -> tuple[tuple[int, str, str, int], ...]:
    """The overdue jobs of a queue, for `LastPing.overdue`; the longest running first."""
    found = [
        (*tracked.key, pool.agent_name, tracked.since_micros)
        for pool in dispatcher.pools()
        if pool.queue_name == queue_name
        for tracked in pool.busy
        if dispatcher.is_overdue(tracked)
    ]
    return tuple(sorted(found, key=lambda each: each[3])[:OVERDUE_TOLD])


def health(dispatcher: Any) -> Document:
    """A JSON-able document: 'health', 'problems', and what they were concluded from.

    Durations are in seconds.  A dispatcher that is stopped is no problem: somebody wanted it.
    """
    info = dispatcher.getStatusInfo()
    problems = [] if info["status"] == "STOPPED" else list(_problems(dispatcher, info))
    return {
        "uuid": str(dispatcher.UUID),
        "at": clock.now().isoformat(),
        "health": verdict(problems),
        "status": info["status"],
        "seconds_since_poll": dispatcher.seconds_without_poll(),
        "seconds_since_ping": dispatcher.pulse.age(),
        "begins_jobs": info["begins jobs"],
        "capacity": info["capacity"],
        "overdue": [
            {"job": oid, "database": database, **_overdue(dispatcher, oid, database)}
            for oid, database in info["overdue"]
        ],
        "problems": [problem.to_document() for problem in problems],
    }


def _overdue(dispatcher: Any, oid: int, database: str) -> Document:
    try:
        info = dispatcher.getJobInfo(oid, database)
    except KeyError:  # ended and forgotten meanwhile
        return {}
    span = info["running for"]
    return {
        "call": info["call"],
        "queue": info["queue"],
        "agent": info["agent"],
        "seconds": None if span is None else span.total_seconds(),
    }


def _problems(dispatcher: Any, info: dict[str, Any]) -> list[Problem]:
    found = []
    if info["status"] == "STUCK":
        found.append(
            Problem(
                "stuck",
                BROKEN,
                f"no poll has been completed for {dispatcher.seconds_without_poll():.0f} s",
                "the storage does not answer or the reactor's thread is blocked: look in the log"
                " for where it is; restart the process if the storage is well",
            )
        )
    if dispatcher.pulse.is_late():
        found.append(
            Problem(
                "not-committing",
                BROKEN,
                f"the storage has not committed a ping for {dispatcher.pulse.age() or 0:.0f} s"
                + ("" if info["begins jobs"] else "; no job is begun"),
                "see whether the storage's server runs, can be reached, and has space to write",
            )
        )
    capacity = info["capacity"]
    if info["overdue"]:
        all_taken = capacity["overdue"] >= capacity["size"]
        found.append(
            Problem(
                "overdue",
                BROKEN if all_taken else DEGRADED,
                f"{capacity['overdue']} of {capacity['size']} places are taken by jobs that run"
                " for too long",
                "the log says where they are; a thread cannot be ended, so if they hang, restart"
                " the process",
            )
        )
    return found
