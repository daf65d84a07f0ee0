# SPDX-License-Identifier: ZPL-2.1
"""Stored: the mappings and the rotating collection that queues and agents are made of.

Whatever must merge is a plain BTree of the BTrees package, so that a ZEO server can merge it
without having zasync installed.  No class here resolves conflicts.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import zope.event
import zope.interface
from BTrees.LOBTree import LOBTree
from BTrees.OOBTree import OOBTree
from persistent import Persistent
from zope.interface.common.mapping import IEnumerableMapping

from zasync.foundation import clock
from zasync.interfaces import ICompletedCollection, ObjectAdded

DAY = 86_400_000_000  # microseconds
DAYS_KEPT = 7
SEQUENCE_BITS = 10  # tell those apart that ended in one microsecond


@zope.interface.implementer(IEnumerableMapping)
class ReadMapping(Persistent):
    """The reading half of a mapping of names to persistent objects."""

    def __init__(self) -> None:
        self._data = OOBTree()

    def __getitem__(self, name: Any) -> Any:
        return self._data[name]

    def get(self, name: Any, default: Any = None) -> Any:
        return self._data.get(name, default)

    def __contains__(self, name: Any) -> bool:
        return name in self._data

    def __iter__(self) -> Iterator[Any]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __bool__(self) -> bool:
        return bool(self._data)

    def keys(self) -> Any:
        return self._data.keys()

    def values(self) -> Any:
        return self._data.values()

    def items(self) -> Any:
        return self._data.items()

    def _add(self, name: Any, item: Any) -> None:
        """Put `item` in under `name`, in the place of what is there, and tell the world."""
        if name in self._data:
            self._take(name)
        item.name = name
        item.parent = self
        self._data[name] = item
        zope.event.notify(ObjectAdded(item, self, name))

    def _take(self, name: Any) -> Any:
        """Take what lies under `name` out and answer it; KeyError if there is nothing."""
        item = self._data.pop(name)
        item.name = item.parent = None
        return item


class Day(Persistent):
    """The jobs that ended on one day, keyed by microseconds << SEQUENCE_BITS, and counts."""

    succeeded = 0
    failed = 0

    def __init__(self) -> None:
        self.jobs = LOBTree()


@zope.interface.implementer(ICompletedCollection)
class CompletedCollection(Persistent):
    """The recently ended jobs, newest first.  Whole days drop out after about a week."""

    def __init__(self) -> None:
        self._days = LOBTree()  # number of the day since 1970 -> Day

    def add(self, job: Any, failed: bool) -> None:
        """Take `job` in as ended now, and let go of what is too old."""
        micros = clock.now_micros()
        day = self._days.get(micros // DAY)
        if day is None:
            self._rotate(micros // DAY - DAYS_KEPT)
            day = self._days[micros // DAY] = Day()
        key = micros << SEQUENCE_BITS
        while key in day.jobs:
            key += 1
        day.jobs[key] = job
        if failed:
            day.failed += 1
        else:
            day.succeeded += 1

    def _rotate(self, oldest: int) -> None:
        for number in list(self._days.keys(max=oldest, excludemax=True)):
            del self._days[number]

    @property
    def succeeded(self) -> int:
        """How many of those kept ended with a value."""
        return sum(day.succeeded for day in self._days.values())

    @property
    def failed(self) -> int:
        """How many of those kept ended with a Failure."""
        return sum(day.failed for day in self._days.values())

    def iter(
        self, start: datetime | timedelta | None = None, stop: datetime | timedelta | None = None
    ) -> Iterator[Any]:
        newest, oldest = _newest(start), _oldest(stop)
        first_day = None if oldest is None else (oldest >> SEQUENCE_BITS) // DAY
        last_day = None if newest is None else (newest >> SEQUENCE_BITS) // DAY
        for number in reversed(self._days.keys(min=first_day, max=last_day)):
            yield from reversed(list(self._days[number].jobs.values(min=oldest, max=newest)))

    def first(self, start: datetime | timedelta | None = None) -> Any:
        for job in self.iter(start):
            return job
        raise ValueError("no job has ended at or before that time", start)

    def last(self, stop: datetime | timedelta | None = None) -> Any:
        oldest = _oldest(stop)
        for day in self._days.values():
            for job in day.jobs.values(min=oldest):
                return job
        raise ValueError("no job has ended at or after that time", stop)

    def __iter__(self) -> Iterator[Any]:
        return self.iter()

    def __len__(self) -> int:
        return self.succeeded + self.failed

    def __bool__(self) -> bool:
        return bool(self._days)


def _newest(start: datetime | timedelta | None) -> int | None:
    """The greatest key of what ended at or before `start`."""
    moment = _bound(start, "start")
    return None if moment is None else (moment + 1 << SEQUENCE_BITS) - 1


def _oldest(stop: datetime | timedelta | None) -> int | None:
    """The least key of what ended at or after `stop`."""
    moment = _bound(stop, "stop")
    return None if moment is None else moment << SEQUENCE_BITS


def _bound(moment: datetime | timedelta | None, name: str) -> int | None:
    if moment is None:
        return None
    if isinstance(moment, timedelta):
        moment = clock.now() - moment
    return clock.to_micros(clock.aware(moment, name))
