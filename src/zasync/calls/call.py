# SPDX-License-Identifier: ZPL-2.1
"""Stored: one call, which says of whom and what its job is, and asks the job for all else.

It is written when it is put and when it is asked for again, never by what runs the job.
"""

from __future__ import annotations

import dataclasses
import enum
from datetime import datetime
from typing import Any

from persistent import Persistent

from zasync.failure import Failure
from zasync.foundation import clock
from zasync.interfaces import ACTIVE, ASSIGNED, BadStatusError
from zasync.job import relations


class CallState(enum.StrEnum):
    """How far a call is."""

    NEW = "new"  # its job waits in a queue
    ACCEPTED = "accepted"  # a worker has taken it
    RESOLVED = "resolved"  # it has a result


class CallOutcome(enum.StrEnum):
    """How a call was resolved."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclasses.dataclass(frozen=True)
class Progress:
    """What `zasync.local.set_progress` told last; each is None if it was not told."""

    text: str | None = None
    done: float | None = None
    total: float | None = None


class Call(Persistent):
    """A job that `owner` (None: the application itself) has asked for.  `Calls.put` makes it."""

    retried = 0
    """How often it was asked for again."""

    def __init__(
        self, register: Any, call_id: str, job: Any, owner: str | None, label: str
    ) -> None:
        self._register = register
        self._id = call_id
        self._job = job
        self._owner = owner
        self._label = label
        self._put_at = clock.now_micros()

    @property
    def id(self) -> str:
        """A text of random letters and digits that nobody can guess; fit for a URL."""
        return self._id

    @property
    def owner(self) -> str | None:
        """Who has asked, as the application names him; None for the application itself."""
        return self._owner

    @property
    def label(self) -> str:
        """What it is, for people."""
        return self._label

    @property
    def job(self) -> Any:
        """The job that does it; another one after `retry`."""
        return self._job

    @property
    def register(self) -> Any:
        """The Calls that it was put with."""
        return self._register

    @property
    def put_at(self) -> datetime:
        """When it was first asked for; in UTC."""
        return clock.from_micros(self._put_at)

    @property
    def state(self) -> CallState:
        """How far it is."""
        if relations.has_result(self._job):
            return CallState.RESOLVED
        return CallState.ACCEPTED if self._job.status in (ASSIGNED, ACTIVE) else CallState.NEW

    @property
    def outcome(self) -> CallOutcome | None:
        """How it was resolved; None until it is."""
        if self.state is not CallState.RESOLVED:
            return None
        if not self._job.failed:
            return CallOutcome.SUCCEEDED
        return CallOutcome.CANCELLED if self._job.cancelled else CallOutcome.FAILED

    @property
    def progress(self) -> Progress:
        """How far its job says that it is."""
        return Progress(self._job.progress, *(self._job.progress_numbers or (None, None)))

    @property
    def result(self) -> Any:
        """What the job has answered; None until then, and if it failed."""
        return self._job.result if self.outcome is CallOutcome.SUCCEEDED else None

    @property
    def failure(self) -> Failure | None:
        """The Failure of a call that failed or was cancelled."""
        if self.outcome in (CallOutcome.FAILED, CallOutcome.CANCELLED):
            return self._job.result  # type: ignore[no-any-return]
        return None

    def cancel(self, reason: str | None = None) -> bool:
        """Cancel its job; False if it is resolved already.  The caller commits."""
        return bool(self._job.cancel(reason))

    def retry(self) -> Any:
        """Ask for a call that failed or was cancelled again, under the same id; answers the job.

        BadStatusError for any other.  The caller commits.
        """
        if self.outcome not in (CallOutcome.FAILED, CallOutcome.CANCELLED):
            raise BadStatusError(
                f"call {self._id} cannot be asked for again: it is"
                f" {self.outcome or self.state}, and must have failed or been cancelled"
            )
        self._job = self._register.put_again(self)
        self.retried += 1
        return self._job

    def is_over(self, cutoff: int) -> bool:
        """Whether nobody needs to know of it any more: it ended at `cutoff` (microseconds)."""
        job = self._job
        return relations.has_result(job) and job._active_end <= cutoff

    def __repr__(self) -> str:
        return f"<zasync.calls.Call {self._id} ({self._label})>"
