# SPDX-License-Identifier: ZPL-2.1
"""What zasync wants to reach, and whether a run shows that it does."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from benchmarks.figures import Summary
from benchmarks.results import Results
from benchmarks.work import OTHERS

# The machine for which the absolute rates were set: what its FileStorage committed, and what the
# prototypes of a queue, in the shape of `floor.py`, reached there with two commits per 100 jobs.
REFERENCE_COMMITS = 3570  # tiny transactions a second
REFERENCE_DRAIN = {"filestorage": 20_600, "zeo": 6_470, "postgresql": 6_990}  # jobs a second
REFERENCE_PUT = 57_400  # jobs a second, 100 per transaction

# The ancestor runs on Python 2.7 only, so these are its best figures from a run of its own on that
# machine.
ANCESTOR_BEST, ANCESTOR_50000 = 262.0, 3.7  # jobs a second
ANCESTOR_LATENCY = 2870.0  # ms, its defaults

AT_LEAST, AT_MOST = "≥", "≤"

RAW, FLOOR = "raw/ZODB/filestorage", "floor/ZODB/filestorage"
SMALLEST = "to the smallest possible queue"  # of `floor.py`
FILE, FILE_BATCH = "drain/zasync/filestorage/no-op/default", "drain/zasync/filestorage/no-op/batch"
ZEO = "drain/zasync/zeo/no-op/default"
POSTGRESQL_BATCH = "drain/zasync/postgresql/no-op/batch"
PROCRASTINATE = "drain/procrastinate/peer-postgresql/no-op/default"
CELERY = "drain/celery/redis/no-op/default"
DRAMATIQ = "drain/dramatiq/redis/no-op/default"
HUEY = "drain/huey/redis/no-op/default"
BACKLOG = "backlog/zasync/filestorage/no-op/default"
COST = "cost/zasync/filestorage/default"


@dataclasses.dataclass(frozen=True)
class Check:
    """One bound, and what was measured."""

    what: str
    sense: str
    bound: float
    unit: str  # "/s", "ms", "MB", "x" for a ratio ...
    found: Summary | None

    @property
    def is_of_the_machine(self) -> bool:
        """Whether a faster machine meets it more easily."""
        return self.unit in ("/s", "ms")

    @property
    def met(self) -> bool | None:
        """None if it was not measured."""
        if self.found is None:
            return None
        if self.sense == AT_LEAST:
            return self.found.median >= self.bound
        return self.found.median <= self.bound

    @property
    def verdict(self) -> str:
        return {True: "met", False: "not met", None: "not measured"}[self.met]

    @property
    def target(self) -> str:
        return f"{self.sense} {written(self.bound, self.unit)}"

    @property
    def value(self) -> str:
        """The median, and the extremes of several rounds."""
        if self.found is None:
            return "-"
        text = written(self.found.median, self.unit)
        if self.found.rounds > 1:
            low, high = (written(end, "") for end in (self.found.least, self.found.most))
            text += f" ({low} to {high})"
        return text


def checks(results: Results) -> list[Check]:
    """All targets, in the order of their table."""
    return [*_rates(results), *_puts(results), *_latencies(results), *_lean(results)]


def _rates(run: Results) -> Iterator[Check]:
    best = "drain, default mode, FileStorage"
    yield Check(f"{best}: to raw commits", AT_LEAST, 0.43, "x", run.ratio(FILE, RAW))
    yield Check(f"{best}: to Procrastinate (10)", AT_LEAST, 2, "x", run.ratio(FILE, PROCRASTINATE))
    yield Check(f"{best}: to Celery (prefork 2)", AT_LEAST, 1.2, "x", run.ratio(FILE, CELERY))
    group = "drain, group settle"
    yield from _absolute(run, f"{group}, FileStorage", "filestorage", 10_000)
    yield Check(
        f"{group}, FileStorage: to Dramatiq (2 x 8)",
        AT_LEAST,
        2,
        "x",
        run.ratio(FILE_BATCH, DRAMATIQ),
    )
    yield Check(
        f"{group}, FileStorage: to Huey (Redis)", AT_LEAST, 3.5, "x", run.ratio(FILE_BATCH, HUEY)
    )
    yield from _absolute(run, f"{group}, ZEO", "zeo", 2_500)
    yield from _absolute(run, f"{group}, PostgreSQL", "postgresql", 2_500)
    yield Check(
        f"{group}, PostgreSQL: to Procrastinate (10)",
        AT_LEAST,
        3,
        "x",
        run.ratio(POSTGRESQL_BATCH, PROCRASTINATE),
    )
    one = "drain, default mode, ZEO"
    yield Check(
        f"{one}, 1 dispatcher: to raw commits", AT_LEAST, 0.6, "x", run.ratio(ZEO, "raw/ZODB/zeo")
    )
    yield Check(f"{one}, 4 dispatchers: to one", AT_LEAST, 1.1, "x", run.ratio(f"{ZEO}/x4", ZEO))
    yield Check(
        f"{one}, 4 dispatchers: commits that conflict",
        AT_MOST,
        5,
        "%",
        _times(run.summary(f"{ZEO}/x4", "conflicts"), 100),
    )


def _absolute(run: Results, what: str, storage: str, rate: int) -> Iterator[Check]:
    """A rate of group settle, and the part of what is possible that it meant where it was set."""
    key = f"drain/zasync/{storage}/no-op/batch"
    yield Check(what, AT_LEAST, rate, "/s", run.summary(key))
    yield Check(
        f"{what}: {SMALLEST}",
        AT_LEAST,
        rate / REFERENCE_DRAIN[storage],
        "x",
        run.ratio(key, f"floor/ZODB/{storage}", "rate", "drain_rate"),
    )


def _puts(run: Results) -> Iterator[Check]:
    put = "put/zasync/filestorage"
    yield Check(
        "put, one per transaction, FileStorage: to raw commits",
        AT_LEAST,
        0.6,
        "x",
        run.ratio(f"{put}/1", RAW),
    )
    what, rate = "put, 100 per transaction, FileStorage", 25_000
    yield Check(what, AT_LEAST, rate, "/s", run.summary(f"{put}/100"))
    yield Check(
        f"{what}: {SMALLEST}",
        AT_LEAST,
        rate / REFERENCE_PUT,
        "x",
        run.ratio(f"{put}/100", FLOOR, "rate", "put_rate"),
    )


def _latencies(run: Results) -> Iterator[Check]:
    places = {"filestorage": ("in process", 3, 10), "zeo": ("ZEO", 6, 20)}
    places["postgresql"] = ("PostgreSQL", 10, 30)
    for storage, (name, median, p99) in places.items():
        key = f"latency/zasync/{storage}/0.01"
        what = f"put to start at idle, {name}"
        yield Check(f"{what}, median", AT_MOST, median, "ms", run.summary(key, "median_ms"))
        yield Check(f"{what}, 99 %", AT_MOST, p99, "ms", run.summary(key, "p99_ms"))
    yield Check(
        "put to start at idle, PostgreSQL, median: to Procrastinate's",
        AT_MOST,
        1,
        "x",
        run.ratio(
            "latency/zasync/postgresql/0.01",
            "latency/procrastinate/peer-postgresql/0.01",
            "median_ms",
        ),
    )


def _lean(run: Results) -> Iterator[Check]:
    few, many, most = (f"{BACKLOG}/{waiting}" for waiting in (100, 50000, 200000))
    yield Check(
        "cost per job, 200,000 waiting to 100 waiting", AT_MOST, 1.15, "x", run.ratio(few, most)
    )
    for others, waiting in (("later", 100000), ("refused", 50000), ("full", 50000)):
        yield Check(
            f"cost per job, {waiting:,} {OTHERS[others]} to 100 waiting",
            AT_MOST,
            1.15,
            "x",
            run.ratio(few, f"{BACKLOG}/{waiting}/{others}"),
        )
    yield Check("records written for a plain job", AT_MOST, 4, "", run.summary(COST, "records"))
    yield Check("bytes written for a plain job", AT_MOST, 1536, "", run.summary(COST, "bytes"))
    yield Check(
        "memory of a worker, 50,000 waiting", AT_MOST, 60, "MB", run.summary(many, "rss_mb")
    )
    yield Check(
        "memory, 50,000 waiting to 100 waiting",
        AT_MOST,
        1.1,
        "x",
        run.ratio(many, few, "rss_mb"),
    )
    yield Check("an idle dispatcher", AT_MOST, 0.5, "% of a core", _idle(run))
    yield Check(
        "drain to the ancestor's best", AT_LEAST, 6, "x", _to_ancestor(run, FILE, ANCESTOR_BEST)
    )
    yield Check(
        "drain to the ancestor's, 50,000 waiting",
        AT_LEAST,
        500,
        "x",
        _to_ancestor(run, many, ANCESTOR_50000),
    )
    soon = run.summary("latency/zasync/filestorage/0.01", "median_ms")
    yield Check(
        "put to start at idle, the ancestor's to ours",
        AT_LEAST,
        500,
        "x",
        None if soon is None else soon.inverse().times(ANCESTOR_LATENCY),
    )


def speed(run: Results) -> str:
    """How fast this machine is, to the one of the absolute targets; "" if it was not measured."""
    found = (
        ("raw commits", run.summary(RAW), REFERENCE_COMMITS),
        (
            "jobs by the smallest possible queue",
            run.summary(FLOOR, "drain_rate"),
            REFERENCE_DRAIN["filestorage"],
        ),
    )
    said = [
        f"{rate.median:,.0f} of {there:,} {what} a second ({rate.median / there:.2f}x)"
        for what, rate, there in found
        if rate is not None
    ]
    return ", ".join(said)


def _idle(run: Results) -> Summary | None:
    return run.summary("idle/zasync/filestorage", "cpu_percent")


def _to_ancestor(run: Results, key: str, rate: float) -> Summary | None:
    """Both relative to what the machine of their run commits."""
    return _times(run.ratio(key, RAW), REFERENCE_COMMITS / rate)


def _times(found: Summary | None, factor: float) -> Summary | None:
    return None if found is None else found.times(factor)


def written(value: float, unit: str) -> str:
    """A figure as a person reads it."""
    if abs(value) >= 100:
        text = f"{value:,.0f}"
    elif abs(value) >= 10:
        text = f"{value:.1f}"
    else:
        text = f"{value:.2f}"
    space = "" if unit in ("x", "%", "/s", "") else " "
    return f"{text}{space}{unit}"
