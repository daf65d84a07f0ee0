# SPDX-License-Identifier: ZPL-2.1
"""Stored: the jobs of a queue that ended with a ParkedError, until somebody sees to them.

Processes died under them too often (PoisonError), say.  Being parked is only to be remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import zope.interface
from BTrees.LOBTree import LOBTree
from persistent import Persistent

from zasync.foundation.errors import why_unreadable
from zasync.interfaces import IParked
from zasync.job import relations

PUT_BACK_AT_ONCE = 100
SEQUENCE_BITS = 10  # tell those apart that ended in one microsecond


@zope.interface.implementer(IParked)
class Parked(Persistent):
    """The parked jobs of one queue.  See `zasync.interfaces.IParked`."""

    _count = 0

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._jobs = LOBTree()  # when it ended, microseconds << SEQUENCE_BITS -> job

    def add(self, job: Any) -> None:
        """Remember `job`, which has just ended."""
        key = job._active_end << SEQUENCE_BITS
        while key in self._jobs:
            key += 1
        self._jobs[key] = job
        self._count += 1

    def _key(self, job: Any) -> int:
        """Where `job` lies; LookupError if it does not."""
        if relations.is_job(job) and job._active_end is not None:
            first = job._active_end << SEQUENCE_BITS
            for key, parked in self._jobs.items(first, first + (1 << SEQUENCE_BITS)):
                if parked is job:
                    return int(key)
        raise LookupError("the job is not parked in this queue", job)

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        return self._count > 0

    def __iter__(self) -> Iterator[Any]:
        return iter(reversed(self._jobs.values()))

    def __contains__(self, job: Any) -> bool:
        try:
            self._key(job)
        except LookupError:
            return False
        return True

    def discard(self, job: Any) -> None:
        """Forget `job`.  LookupError if it is not parked here."""
        del self._jobs[self._key(job)]
        self._count -= 1

    def put_back(self, job: Any) -> Any:
        """Put a NEW job with the same call and options, and forget `job`; answers the new one.

        It has no callbacks: those of `job` were called with the failure.  A parked callback is
        put with the result that it was to get.  LookupError if `job` is not parked here,
        ValueError if the queue does not have its quotas any more.
        """
        key = self._key(job)
        again = self._queue.put(job.again())
        del self._jobs[key]
        self._count -= 1
        return again

    def put_back_all(
        self, filter: Callable[[Any], Any] | None = None, limit: int = PUT_BACK_AT_ONCE
    ) -> int:
        """Put back those that `filter(job)` allows, oldest first, at most `limit` of them.

        Answers how many those were.  The caller commits, and calls again until that is 0.  Those
        that cannot be read in this process are left.
        """
        chosen: list[Any] = []
        for job in self._jobs.values():
            if len(chosen) >= limit:
                break
            if why_unreadable(job) is None and (filter is None or filter(job)):
                chosen.append(job)
        for job in chosen:
            self.put_back(job)
        return len(chosen)
