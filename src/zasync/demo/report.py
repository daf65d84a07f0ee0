# SPDX-License-Identifier: ZPL-2.1
"""What is told when the demo has ended, read from the database that it leaves."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from zasync.demo.catalog import Catalog
from zasync.failure import Failure

TOP = 10
HITS = 5
_TRACEBACK_LINES = 12
# Identifiers that any larger library has, yet not in every file.
_SAMPLE_QUERY = ("threading", "Lock")


@dataclasses.dataclass(frozen=True)
class Latency:
    """How long jobs waited from their put to their start, in seconds."""

    median: float
    ninety_fifth: float

    @classmethod
    def of(cls, jobs: Sequence[Any]) -> Latency | None:
        """That of `jobs`; None if there are none."""
        waits = [
            max(0.0, (job.active_start - job.begin_after).total_seconds())
            for job in jobs
            if job.active_start and job.begin_after
        ]
        if len(waits) < 2:
            return None
        return cls(statistics.median(waits), statistics.quantiles(waits, n=20)[-1])


@dataclasses.dataclass(frozen=True)
class Report:
    """What came of a run."""

    succeeded: int
    failed: int
    totals: dict[str, int]
    latency: Latency | None
    traceback: str
    handled: str
    attempts: int
    clash_succeeded: bool
    top: list[tuple[str, int]]
    query: tuple[str, ...]
    hits: list[str]


def completed(queue: Any) -> Iterator[Any]:
    """The collections of completed jobs, one for each agent that has worked the queue."""
    for record in queue.dispatchers.values():
        for agent in record.values():
            yield agent.completed


def make_report(catalog: Catalog, queue: Any) -> Report:
    """Read what is to be told."""
    collections = list(completed(queue))
    query = _sample_query(catalog)
    clash = catalog.clash
    return Report(
        succeeded=sum(collection.succeeded for collection in collections),
        failed=sum(collection.failed for collection in collections),
        totals=catalog.run.result,
        latency=Latency.of([job for collection in collections for job in collection]),
        traceback=_last_lines(catalog.broken.result),
        handled=catalog.unreadable.get(catalog.broken.args[0], ""),
        attempts=1 + clash.getRetryPolicy().data.get("conflicts", 0),
        clash_succeeded=not isinstance(clash.result, Failure),
        top=catalog.most_frequent(TOP),
        query=query,
        hits=catalog.search(*query),
    )


def _sample_query(catalog: Catalog) -> tuple[str, ...]:
    if catalog.search(*_SAMPLE_QUERY):
        return _SAMPLE_QUERY
    return tuple(name for name, _ in catalog.most_frequent(2)) or _SAMPLE_QUERY


def _last_lines(failure: Any) -> str:
    lines = failure.getTraceback().rstrip().splitlines()
    if len(lines) > _TRACEBACK_LINES:
        lines = [lines[0], "  ...", *lines[-_TRACEBACK_LINES:]]
    return "\n".join(lines)
