# SPDX-License-Identifier: ZPL-2.1
"""Stored: the index of the demo, and the jobs that fill it.

Reading is parallel and writes nothing but its result.  Merging writes the trees of the catalog,
so it needs the one place of the quota `catalog`, and never conflicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from BTrees.IIBTree import IITreeSet, intersection
from BTrees.IOBTree import IOBTree
from BTrees.OIBTree import OIBTree
from BTrees.OOBTree import OOBTree
from persistent import Persistent

from zasync.demo import jobs
from zasync.failure import Failure
from zasync.job import Job, parallel

QUOTA = "catalog"
SMALLEST_BATCH = 10  # files that are merged in one transaction
MOST_BATCHES = 200


class Meter(Persistent):
    """A plain number: two who count it up at once conflict."""

    value = 0
    rival_came = False


class Catalog(Persistent):
    """Which files each identifier is in, and how often it is found."""

    def __init__(self) -> None:
        self.documents = IOBTree()  # number -> path
        self.postings = OOBTree()  # identifier -> numbers of documents
        self.counts = OIBTree()  # identifier -> how often
        self.unreadable = OOBTree()  # path -> why
        self.meter = Meter()
        self.run: Any = None
        self.broken: Any = None
        self.clash: Any = None
        self.expected = 0

    # The work

    def plan(self, paths: Sequence[str], broken: str) -> Any:
        """The job that indexes the files `paths`, and the one that is broken on purpose."""
        readings = [Job(jobs.read_file, path) for path in paths]
        self.broken = Job(jobs.read_file, broken)
        self.broken.addCallbacks(failure=Job(self.note_unreadable, broken))
        batches = [
            parallel(*batch, postprocess=self.merge_later)
            for batch in _batches([self.broken, *readings])
        ]
        self.clash = Job(jobs.clash, self.meter)
        self.run = parallel(*batches, self.clash, postprocess=self.totals)
        # A batch is itself a job, then one that concludes it, and one that merges it.
        self.expected = len(readings) + 1 + 3 * len(batches) + 1 + 2
        return self.run

    def note_unreadable(self, path: str, failure: Any) -> None:
        """The callback for a file that could not be read."""
        self.unreadable[path] = failure.getErrorMessage()

    def merge_later(self, *readings: Any) -> Any:
        """A batch has been read: have it merged when it is its turn."""
        merge = Job(self.merge, *readings)
        merge.quota_names = (QUOTA,)
        return merge

    def merge(self, *readings: Any) -> int:
        """Take what the jobs `readings` found into the index; answers how many files that is."""
        merged = 0
        for reading in readings:
            (path,) = reading.args
            if isinstance(reading.result, Failure):
                self.unreadable.insert(path, reading.result.getErrorMessage())
                continue
            self._add(path, reading.result)
            merged += 1
        return merged

    def _add(self, path: str, names: dict[str, int]) -> None:
        number = self.documents.maxKey() + 1 if self.documents else 1
        self.documents[number] = path
        for name, count in names.items():
            found = self.postings.get(name)
            if found is None:
                found = self.postings[name] = IITreeSet()
            found.insert(number)
            self.counts[name] = self.counts.get(name, 0) + count

    def totals(self, *parts: Any) -> dict[str, int]:
        """All has been read and merged: what it comes to."""
        return {
            "files": len(self.documents),
            "unreadable": len(self.unreadable),
            "identifiers": len(self.counts),
            "occurrences": sum(self.counts.values()),
            "failed parts": sum(1 for part in parts if isinstance(part.result, Failure)),
        }

    # Questions

    def most_frequent(self, number: int) -> list[tuple[str, int]]:
        """The `number` identifiers that are found most often, and how often."""
        ranked = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return ranked[:number]

    def search(self, *names: str) -> list[str]:
        """The paths of the documents that have all of `names`."""
        sets = [self.postings.get(name) for name in names]
        if not sets or any(found is None for found in sets):
            return []
        numbers = sets[0]
        for found in sets[1:]:
            numbers = intersection(numbers, found)
        return [self.documents[number] for number in numbers]


def _batches(readings: list[Any]) -> Iterable[list[Any]]:
    size = max(SMALLEST_BATCH, -(-len(readings) // MOST_BATCHES))
    rest = iter(readings)
    while batch := list(islice(rest, size)):
        yield batch
