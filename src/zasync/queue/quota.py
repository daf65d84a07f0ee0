# SPDX-License-Identifier: ZPL-2.1
"""Stored: quotas, limits on how many jobs of a queue run at once over all dispatchers.

The holders of a quota lie in its own record as plain state, so that two claims that take the last
place conflict.  A container that merges would let both have it.  Nobody gives a place back: a
holder that no longer needs it says so in its own record, and claims look there (`clean`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import zope.interface
from persistent import Persistent

from zasync.foundation import clock
from zasync.foundation.containers import ReadMapping
from zasync.interfaces import FullError, IQuota, IQuotas
from zasync.job import relations


@zope.interface.implementer(IQuota)
class Quota(Persistent):
    """At most `size` jobs at once."""

    parent: Any = None
    name: Any = None
    _holders: tuple[tuple[Any, int], ...] = ()  # job, token of its hold

    def __init__(self, size: int = 1) -> None:
        self.size = size

    @property
    def size(self) -> int:
        """The limit.  Lowering it leaves running jobs alone."""
        return self._size

    @size.setter
    def size(self, size: int) -> None:
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise ValueError(f"the size of a quota is a number of jobs, not {size!r}")
        self._size = size

    @property
    def filled(self) -> bool:
        """Whether no place is free, counting places whose jobs have ended since the last clean."""
        return len(self._holders) >= self._size

    def add(self, job: Any) -> None:
        """Give `job` a place; it keeps it until it has its result, or is to run later.

        ValueError for what is no job, or a job that does not name this quota; FullError if there
        is no place.
        """
        if not relations.is_job(job):
            raise ValueError("only a job can hold a place in a quota", job)
        if self.name not in job.quota_names:
            raise ValueError(f"the job does not name the quota {self.name!r}", job)
        if job._quota_hold is None:
            job._quota_hold = clock.current().token()
        if self.has(job):
            return
        if self.filled:
            self.clean()
        if self.filled:
            raise FullError(f"quota {self.name!r} of size {self._size} is full")
        self._holders = (*self._holders, (job, job._quota_hold))

    def has(self, job: Any) -> bool:
        """Whether `job` holds a place."""
        return any(holder is job and token == job._quota_hold for holder, token in self._holders)

    def clean(self) -> None:
        """Forget the holders that have ended, were taken out, or are to run later.

        Also those that waited, put back, when the name was taken from their quota_names.
        """
        held = tuple(
            (job, token)
            for job, token in self._holders
            if job._quota_hold == token and self.name in job.quota_names
        )
        if len(held) != len(self._holders):
            self._holders = held

    def __len__(self) -> int:
        return len(self._holders)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        return (job for job, _ in self._holders)


@zope.interface.implementer(IQuotas)
class Quotas(ReadMapping):
    """The quotas of one queue by name."""

    def __init__(self, parent: Any) -> None:
        super().__init__()
        self.parent = parent

    def create(self, name: str, size: int = 1) -> Quota:
        """Make the quota `name`; ValueError if there is one."""
        if name in self._data:
            raise ValueError(f"there is a quota {name!r} already; set its size instead")
        quota = Quota(size)
        self._add(name, quota)
        return quota

    def remove(self, name: str) -> None:
        """Take the quota `name` out; KeyError if there is none.  Jobs that name it ignore it."""
        self._take(name)

    def check_known(self, names: tuple[str, ...]) -> None:
        """ValueError('unknown quota name', name) for the first that this queue does not have."""
        for name in names:
            if name not in self._data:
                raise ValueError("unknown quota name", name)

    def without_place(self, names: tuple[str, ...], job: Any) -> list[str]:
        """Those of the quotas `names` in which `job` cannot have a place now."""
        full = []
        for name in names:
            quota = self._data.get(name)
            if quota is None or quota.has(job):
                continue
            if quota.filled:
                quota.clean()
                if quota.filled:
                    full.append(name)
        return full

    def take_places(self, job: Any) -> None:
        """Give `job` a place in each quota that it names and that exists."""
        for name in job.quota_names:
            quota = self._data.get(name)
            if quota is not None:
                quota.add(job)
