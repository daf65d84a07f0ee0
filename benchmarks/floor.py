# SPDX-License-Identifier: ZPL-2.1
"""`python -m benchmarks.floor`: the smallest queue that ZODB allows, as a yardstick for ours.

One thread, one record a job, two trees, and two commits for each hundred jobs.  It is no queue to
use: who dies amid a hundred loses track of them, nobody is told of an error, and a second worker
would be in the way of the first.  What a real queue does beyond this is what it is slower by.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import transaction
from BTrees.LOBTree import LOBTree

from benchmarks import work
from benchmarks.places import URI
from benchmarks.subjects import TEXT
from zasync.storage import close_database, open_database

EACH = 100  # jobs in one transaction
WARM = 5  # transactions, or pairs of them, that do not count


class Floor:
    """The queue as one process sees it."""

    def __init__(self, db: Any) -> None:
        self._manager = transaction.TransactionManager()
        self._connection = db.open(transaction_manager=self._manager)
        root = self._connection.root()
        if "waiting" not in root:
            root["waiting"], root["done"] = LOBTree(), LOBTree()
            self._manager.commit()
        self._waiting, self._done = root["waiting"], root["done"]

    def put(self, numbers: range) -> None:
        """In one transaction."""
        self._manager.begin()
        for number in numbers:
            self._waiting[number] = work.Record(work.no_op, number, TEXT)
        self._manager.commit()

    def perform(self, count: int) -> int:
        """Claim, call and settle so many jobs, in two transactions; answers how many it found."""
        self._manager.begin()
        claimed = list(itertools.islice(self._waiting.items(), count))
        self._connection.prefetch([job for _, job in claimed])
        for number, job in claimed:
            del self._waiting[number]
            job.status = "active"
        self._manager.commit()
        self._manager.begin()
        for number, job in claimed:
            job.result = job.function(*job.arguments)
            job.status = "completed"
            self._done[number] = job
        self._manager.commit()
        return len(claimed)


def main(seconds: str) -> None:
    """Put for so many seconds, then perform, from a storage opened anew, at most as long."""
    db = open_database(os.environ[URI])
    floor, first = Floor(db), itertools.count(step=EACH)

    def put() -> int:
        number = next(first)
        floor.put(range(number, number + EACH))
        return EACH

    figures = measured("put", put, float(seconds))
    close_database(db)
    db = open_database(os.environ[URI])
    floor = Floor(db)
    figures |= measured("drain", lambda: floor.perform(EACH), float(seconds))
    close_database(db)
    print(json.dumps(figures | {"commits": 2 / EACH}), flush=True)


def measured(name: str, once: Callable[[], int], seconds: float) -> dict[str, float]:
    """How many jobs a second `once`, which answers how many they were, comes to."""
    for _ in range(WARM):
        once()
    begin, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - begin < seconds:
        found = once()
        count += found
        if not found:
            break
    elapsed, cpu = time.perf_counter() - begin, time.process_time() - cpu
    return {f"{name}_rate": count / elapsed, f"{name}_cpu_ms": cpu / max(1, count) * 1000}


if __name__ == "__main__":
    main(*sys.argv[1:])
