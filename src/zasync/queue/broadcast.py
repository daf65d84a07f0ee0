# SPDX-License-Identifier: ZPL-2.1
"""Stored: a queue whose jobs are performed by every active dispatcher."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import zope.component

from zasync.foundation import clock
from zasync.foundation.errors import why_unreadable
from zasync.interfaces import IUUID, AbortedError
from zasync.job import Group, Job, Payload, RetryCommonFourTimes, bookkeeping, record, relations
from zasync.job.adapting import as_job
from zasync.job.record import Place
from zasync.job.states import Move
from zasync.queue.queue import Queue


class OnlyThere(RetryCommonFourTimes):
    """The default policy of a copy: no other dispatcher can take it over."""

    interruption_limit = 0


class Broadcast(Group):
    """The job that stands for all copies; its result is a mapping of UUID to result."""

    def __init__(self, copies: dict[UUID, Any]) -> None:
        super().__init__(*copies.values(), one_by_one=False)
        self._uuids = tuple(uuid.int for uuid in copies)

    def conclude(self) -> Any:
        """The conclusion's callable: UUID -> result (a Failure where there was none)."""
        return {
            UUID(int=uuid): copy.result for uuid, copy in zip(self._uuids, self.args, strict=True)
        }


class BroadcastQueue(Queue):
    """A job that is put here is performed once by each dispatcher active at that moment."""

    def put(
        self,
        item: Any,
        begin_after: datetime | None = None,
        begin_by: timedelta | None = None,
        failure_log_level: int | None = None,
        retry_policy_factory: Any = None,
    ) -> Any:
        """Put a copy for each active dispatcher; answers the job, which stands for all of them.

        It is ACTIVE until all copies have ended; its result is a mapping of UUID to the copy's
        result.  A copy whose dispatcher dies ends with an AbortedError.
        """
        job = as_job(item)
        if not _is_for_all(job):
            return super().put(job, begin_after, begin_by, failure_log_level, retry_policy_factory)
        uuid = zope.component.queryUtility(IUUID)
        self._prepare(job, uuid, begin_after, begin_by, failure_log_level, retry_policy_factory)
        whole = Broadcast(
            {
                uuid: _copy(job, uuid)
                for uuid, record in self.dispatchers.items()
                if record.activated
            }
        )
        for waiting in (whole, job):
            waiting.parent = self
            waiting.start(clock.current().token())
        whole.wait_for(whole.perform_members())
        job.wait_for(whole)
        return job

    def put_many(self, items: Iterable[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Put each of `items`; what is refused leaves those before it put."""
        return [self.put(item, *args, **kwargs) for item in items]

    def _admit(self, job: Any, move: Move, place: Place) -> None:
        super()._admit(job, move, place)
        if job._only_for is not None:
            record = self.dispatchers.get(UUID(int=job._only_for))
            if record is None or not record.activated:
                self._give_up(job)

    def dispatcher_left(self, uuid: UUID) -> None:
        """Fail the copies that wait for the dispatcher `uuid`."""
        for job in list(self):
            if why_unreadable(job) is None and job._only_for == uuid.int:
                self._give_up(job)

    def _give_up(self, job: Any) -> None:
        """Have some other dispatcher fail `job`, whose own one is gone."""
        self.remove(job)
        job.parent = self
        failing = Job(job.fail, AbortedError("the dispatcher of this copy has gone"))
        bookkeeping.put_resumption(self, failing)


def _is_for_all(job: Any) -> bool:
    """Whether `job` is to be copied: not a copy, a group, or one that continues another job."""
    if job._only_for is not None or isinstance(job, Group):
        return False
    return job._payload is None or not relations.is_job(job._payload.target)


def _copy(job: Any, uuid: UUID) -> Any:
    """A new job like `job`, without its callbacks, that only the dispatcher `uuid` may run."""
    kind: Any = type(job)
    copy = kind.__new__(kind)
    state = record.unpacked(job.__getstate__())
    copy.__setstate__({**state, "_extras": None, "_policy": None})
    if job._payload is not None:
        copy._payload = Payload(job._payload.target, [], dict(job.kwargs))
    copy.args = [copy if arg is job else arg for arg in job.args]
    copy._only_for = uuid.int
    if copy.retry_policy_factory is None:
        copy.retry_policy_factory = OnlyThere
    return copy


OnlyThere.__module__ = Broadcast.__module__ = BroadcastQueue.__module__ = "zasync.queue"
