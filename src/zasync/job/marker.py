# SPDX-License-Identifier: ZPL-2.1
"""Stored, in a database that is not the queue's: which runs have committed there.

A run whose transaction changes such a database leaves a `Marker` in it, in the same transaction.
It lies in a slot that only one runner writes and that is used again, so that there are few, and
no two runs conflict.  Who writes and reads them is in `zasync.job.two_databases`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from BTrees.OOBTree import OOBTree
from persistent import Persistent

MARKERS = "zasync.markers"  # where they lie in the root of a database of users' data
FENCES = 64
KEPT = 2 * 24 * 60 * 60 * 1_000_000  # microseconds for which a slot without a runner is kept
REMOVED_AT_ONCE = 2  # more than one, so that there can be fewer in time


class Marker(NamedTuple):
    """That the transaction of a run took effect in the database in which this lies."""

    database: str  # of the job
    oid: int
    token: int
    suspension: int | None  # what the job's record says if that transaction suspended the run
    waiting: bool  # whether the job waits for an inner job since
    changed: tuple[str, ...]  # the databases other than the queue's that it changed
    carried: bytes  # what it wrote into the queue's database, see `zasync.job.carrying`
    lost: tuple[str, ...]  # what it wrote there and is not in `carried`
    written: int  # microseconds since 1970


class Slot(Persistent):
    """The place of one marker."""

    marker: Any = None


class Fence(Persistent):
    """Read by every commit of a run with its token, written by whoever takes a job over."""

    def touch(self) -> None:
        """Have the transactions fail that have read this and are not committed."""
        self._p_changed = True


class Markers(Persistent):
    """The slots and fences of one database.  Its own record is not written after its start."""

    def __init__(self) -> None:
        self._fences = tuple(Fence() for _ in range(FENCES))
        self._slots = OOBTree()  # name -> Slot

    def fence(self, token: int) -> Fence:
        """The fence of the attempts with this token, and of a few others."""
        return self._fences[token % FENCES]

    def present(self) -> Iterator[Marker]:
        """All markers."""
        for slot in self._slots.values():
            yield slot.marker

    def marker(self, name: str) -> Marker | None:
        """What lies in the slot `name`, if anything."""
        slot = self._slots.get(name)
        return None if slot is None else slot.marker

    def write(self, name: str, marker: Marker, is_known: Callable[[Marker], bool]) -> None:
        """Put `marker` into the slot `name`.

        A new slot takes the place of some that nobody has used for long and that `is_known`
        says are not needed; so those of runners that never come back do not pile up.
        """
        if name not in self._slots:
            self._remove_old(marker.written - KEPT, is_known)
            self._slots[name] = Slot()
        self._slots[name].marker = marker

    def _remove_old(self, before: int, is_known: Callable[[Marker], bool]) -> None:
        removed = 0
        for name, slot in list(self._slots.items()):
            if removed == REMOVED_AT_ONCE:
                return
            old = slot.marker
            if old.written < before and is_known(old):
                slot.marker = None  # so that its runner, if it comes back now, conflicts
                del self._slots[name]
                removed += 1


def markers_in(connection: Any) -> Markers:
    """The markers of a database, made if need be; making them writes its root."""
    root = connection.root()
    found = root.get(MARKERS)
    if found is None:
        found = root[MARKERS] = Markers()
    return found  # type: ignore[no-any-return]


for _stored in (Marker, Slot, Fence, Markers):
    _stored.__module__ = "zasync.job"
