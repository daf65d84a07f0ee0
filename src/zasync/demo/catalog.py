# SPDX-License-Identifier: ZPL-2.1
"""Stored: the index of the demo, and the jobs that fill it.

Reading is parallel and writes nothing but its result.  Merging writes the trees of the catalog,
so it needs the one place of the quota `catalog`, and never conflicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from BTrees.IOBTree import IOBTree
from BTrees.OOBTree import OOBTree
from persistent import Persistent

from zasync.demo import jobs
from zasync.failure import Failure
from zasync.job import Job, parallel

QUOTA = "catalog"
SMALLEST_BATCH = 20  # files that are merged in one transaction
MOST_BATCHES = 200


class Meter(Persistent):
    """A plain number: two who count it up at once conflict."""

    value = 0
    rival_came = False


class Catalog(Persistent):
    """Which files each identifier is in, and how often it is found."""

    def __init__(self) -> None:
        self.documents = IOBTree()  # number -> path
        # Identifier -> how often, numbers of documents.  Tuples lie in the records of the tree;
        # a persistent set each would make tens of thousands of small records.
        self.names = OOBTree()
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
            so_far, numbers = self.names.get(name, (0, ()))
            self.names[name] = so_far + count, (*numbers, number)

    def totals(self, *parts: Any) -> dict[str, int]:
        """All has been read and merged: what it comes to."""
        return {
            "files": len(self.documents),
            "unreadable": len(self.unreadable),
            "identifiers": len(self.names),
            "occurrences": sum(count for count, _ in self.names.values()),
            "failed parts": sum(1 for part in parts if isinstance(part.result, Failure)),
        }

    # Questions

    def how_often(self, name: str) -> int:
        """How often `name` is found."""
        count, _ = self.names.get(name, (0, ()))
        return int(count)

    def most_frequent(self, number: int) -> list[tuple[str, int]]:
        """The `number` identifiers that are found most often, and how often."""
        counts = [(name, count) for name, (count, _) in self.names.items()]
        return sorted(counts, key=lambda item: (-item[1], item[0]))[:number]

    def search(self, *names: str) -> list[str]:
        """The paths of the documents that have all of `names`."""
        found = [set(self.names[name][1]) if name in self.names else set() for name in names]
        return [self.documents[number] for number in sorted(set.intersection(*found))]


def _batches(readings: list[Any]) -> Iterable[list[Any]]:
    size = max(SMALLEST_BATCH, -(-len(readings) // MOST_BATCHES))
    rest = iter(readings)
    while batch := list(islice(rest, size)):
        yield batch
