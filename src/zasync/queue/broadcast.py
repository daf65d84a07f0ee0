# SPDX-License-Identifier: ZPL-2.1
"""Stored: a queue whose jobs are performed by every active dispatcher."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from zasync.foundation import clock
from zasync.interfaces import AbortedError
from zasync.job import Group, Job, RetryCommonFourTimes, performance
from zasync.job.performance import as_job
from zasync.queue.queue import Queue, _check_new


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
        """Put a copy for each active dispatcher; answers the job that stands for all of them.

        That job is ACTIVE until all copies have ended; its result is a mapping of UUID to the
        copy's result.  A copy whose dispatcher dies ends with an AbortedError.
        """
        job = as_job(item)
        if isinstance(job, Group) or job._only_for is not None or not self._may_copy(job):
            return super().put(job, begin_after, begin_by, failure_log_level, retry_policy_factory)
        _check_new(job)
        job.check_storable(self._p_jar)
        copies = {
            uuid: self._copy(job, uuid, failure_log_level, retry_policy_factory)
            for uuid, record in self.dispatchers.items()
            if record.activated
        }
        for copy in copies.values():
            copy.begin_after, copy.begin_by = begin_after, begin_by
        return self._launch(copies)

    def _may_copy(self, job: Any) -> bool:
        """Whether `job` is work, not one of our own that continues another job."""
        names = job._names
        return not (names[0] == "method" and names[1].startswith("zasync."))

    def _copy(self, job: Any, uuid: UUID, level: int | None, factory: Any) -> Any:
        copy = Job(job.callable, *job.args, **job.kwargs)
        copy._only_for = uuid.int
        copy.quota_names = job.quota_names
        copy.failure_log_level = job.failure_log_level if level is None else level
        copy.retry_policy_factory = factory or job.retry_policy_factory or OnlyThere
        return copy

    def _launch(self, copies: dict[UUID, Any]) -> Broadcast:
        group = Broadcast(copies)
        group.parent = self
        group._begin_after = clock.now_micros()
        group.start(clock.current().token())
        group.wait_for(group.perform_members())
        return group

    def putBack(self, job: Any) -> None:
        super().putBack(job)
        if job._only_for is not None:
            record = self.dispatchers.get(UUID(int=job._only_for))
            if record is None or not record.activated:
                self._give_up(job)

    def dispatcher_left(self, uuid: UUID) -> None:
        """Fail the copies that wait for the dispatcher `uuid`."""
        for job in [job for job in self if job._only_for == uuid.int]:
            self._give_up(job)

    def _give_up(self, job: Any) -> None:
        """Have some other dispatcher fail `job`, whose own one is gone."""
        self.remove(job)
        job.parent = self
        failing = Job(job.fail, AbortedError("the dispatcher of this copy has gone"))
        performance.put_resumption(self, failing)


OnlyThere.__module__ = Broadcast.__module__ = BroadcastQueue.__module__ = "zasync.queue"
