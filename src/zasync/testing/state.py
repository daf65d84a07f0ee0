# SPDX-License-Identifier: ZPL-2.1
"""In words: how a job stands and what the dispatchers do, for whoever waited in vain."""

from __future__ import annotations

from typing import Any

from zasync.dispatcher import registry
from zasync.failure import Failure


def describe_job(job: Any) -> str:
    """The job with its status, its whereabouts and, if it has failed, how."""
    words = [f"{job!r} is in status {job.status!r}"]
    if job.parent is not None:
        words.append(f"held by {type(job.parent).__name__} {getattr(job.parent, 'name', '')!r}")
    if job.begin_after is not None:
        words.append(f"to begin after {job.begin_after.isoformat()}")
    if isinstance(job.result, Failure):
        words.append(f"failed with {job.result.getErrorMessage()!r}")
    return ", ".join(words)


def describe_dispatcher(dispatcher: Any) -> str:
    """The dispatcher with its status, its last poll and what it runs."""
    status = dispatcher.getStatusInfo()["status"]
    last = next(iter(dispatcher.polls), None)
    seen = "none" if last is None else f"{last.utc_timestamp.isoformat()} {dict(last)}"
    return (
        f"dispatcher {dispatcher.UUID} is {status}, has done {dispatcher.polls.total} polls"
        f" (the last: {seen}) and runs {dispatcher.getActiveJobIds()}"
    )


def describe_dispatchers() -> str:
    """All dispatchers of this process."""
    dispatchers = registry.every()
    if not dispatchers:
        return "this process has no dispatcher"
    return "\n".join(describe_dispatcher(each) for each in dispatchers)
