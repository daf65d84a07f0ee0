# SPDX-License-Identifier: ZPL-2.1
"""How the dispatcher of this process does, in words, without asking the storage or the reactor.

`zasync.dispatcher.health` is the look from outside, at the database.
"""

from __future__ import annotations

from typing import Any

from zasync.dispatcher.health import BROKEN, DEGRADED, Document, Problem, verdict
from zasync.foundation import clock


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
