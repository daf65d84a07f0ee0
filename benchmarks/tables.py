# SPDX-License-Identifier: ZPL-2.1
"""The results as tables: rows of text, for the terminal, the page and the documentation alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from benchmarks.cases import EVERY, Case
from benchmarks.figures import Summary
from benchmarks.places import DURABILITY, EXPLAINED
from benchmarks.results import Results
from benchmarks.subjects import SUBJECTS
from benchmarks.targets import checks, speed, written
from benchmarks.work import OTHERS

OF_THE_MACHINE = " †"  # behind a target that a faster machine meets more easily
NAMES = {
    "filestorage": "FileStorage",
    "zeo": "ZEO",
    "sqlite": "RelStorage/SQLite",
    "postgresql": "RelStorage/PostgreSQL",
    "peer-postgresql": "PostgreSQL",
    "peer-sqlite": "SQLite",
    "redis": "Redis",
    "redis-aof": "Redis, append-only file",
    "none": "-",
}
WORKS = {
    "no_op": "no-op",
    "write_ten": "10 writes",
    "cpu": "1 ms CPU",
    "io": "20 ms sleep",
    "increment": "one hot counter",
    "fan_out": "fan-out/fan-in of 100",
}


@dataclasses.dataclass(frozen=True)
class Table:
    """A title, headings, and rows of text; the first columns are words, the others figures."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    words: int = 1  # columns to be read, not compared
    note: str = ""  # to be read below it


def tables(run: Results) -> list[Table]:
    """All that have rows."""
    made = [
        targets(run),
        drains(run, "no_op"),
        ratios(run),
        workloads(run),
        puts(run),
        latencies(run),
        backlogs(run),
        costs(run),
        systems(run),
        durability(run),
        missing(run),
    ]
    return [table for table in made if table.rows]


def targets(run: Results) -> Table:
    rows = [
        (each.what, each.target + OF_THE_MACHINE * each.is_of_the_machine, each.value, each.verdict)
        for each in checks(run)
    ]
    said, mark = speed(run), OF_THE_MACHINE.strip()
    note = f"{mark} easier on a faster machine"
    if said:
        note += f"; of what the machine that it was set for does, this one does: {said}"
    return Table("Targets", ("what", "target", "measured", ""), rows, note=note)


def drains(run: Results, work: str) -> Table:
    """Jobs a second, the fastest first."""
    found = [
        (summary.median, _drain_row(run, case, key, summary))
        for case, key in run.each("drain")
        if case.work == work and (summary := run.summary(key))
    ]
    if work == "no_op":
        found += [
            (summary.median, _drain_row(run, case, key, summary, "drain_cpu_ms"))
            for case, key in run.each("floor")
            if (summary := run.summary(key, "drain_rate"))
        ]
    found.sort(reverse=True)
    headings = ("system", "place", "durability", "jobs/s", "CPU ms/job", "server's", "PSS MB")
    return Table(
        f"Drain, {WORKS[work]} jobs, all waiting at the start",
        (*headings, "commits/job", "conflicts"),
        [row for _rate, row in found],
        3,
    )


def _drain_row(
    run: Results, case: Case, key: str, rate: Summary, cpu: str = "cpu_ms"
) -> tuple[str, ...]:
    conflicts = run.summary(key, "conflicts")
    return (
        label(case),
        NAMES[case.storage],
        DURABILITY[case.storage],
        spread(rate, ""),
        _figure(run, key, cpu),
        _figure(run, key, "server_cpu_ms"),
        _figure(run, key, "pss_mb"),
        _figure(run, key, "commits"),
        "-" if conflicts is None else written(conflicts.median * 100, "%"),
    )


def ratios(run: Results) -> Table:
    """How many times faster zasync drains no-ops than each peer, in the same rounds."""
    ours: dict[str, list[str]] = {}  # storage -> keys, in the order of _MODES
    for case, _key in run.each("drain"):
        if case.subject == "zasync" and case.work == "no_op" and case.processes == 1:
            ours[case.storage] = [
                dataclasses.replace(case, mode=mode, rounds=EVERY).key for mode in _MODES
            ]
    rows = []
    for peer, peer_key in run.each("drain"):
        if peer.subject != "zasync" and peer.work == "no_op":
            cells = [
                " / ".join(
                    "-" if ratio is None else written(ratio.median, "x")
                    for ratio in (run.ratio(key, peer_key) for key in keys)
                )
                for keys in ours.values()
            ]
            rows.append((label(peer), NAMES[peer.storage], DURABILITY[peer.storage], *cells))
    return Table(
        "zasync's drain rate to that of each peer, no-op jobs",
        ("peer", "place", "durability", *(NAMES[storage] for storage in ours)),
        rows if ours else [],
        3,
        "Each: default mode / group settle.",
    )


_MODES = ("default", "batch")


def workloads(run: Results) -> Table:
    """The other jobs."""
    rows = []
    for work in WORKS:
        for case, key in run.each("drain"):
            rate = run.summary(key)
            if case.work == work != "no_op" and rate:
                head = (WORKS[work], label(case), NAMES[case.storage], DURABILITY[case.storage])
                rows.append(
                    (*head, spread(rate, ""), _figure(run, key, "cpu_ms"), _reruns(run, key))
                )
    headings = ("job", "system", "place", "durability", "jobs/s", "CPU ms/job", "runs again")
    return Table("Drain, other jobs", headings, rows, 4)


def _reruns(run: Results, key: str) -> str:
    found = run.summary(key, "reruns")
    return "-" if found is None else written(found.median * 100, "%")


def puts(run: Results) -> Table:
    rows = []
    for case, key in run.each("raw"):
        what = "raw commits" if case.processes == 1 else f"raw commits, {case.processes} clients"
        rows.append(_put_row(run, case, key, what, "-"))
    for case, key in run.each("floor"):
        rows.append(_put_row(run, case, key, label(case), "100", "put_"))
    for case, key in run.each("put"):
        each = "1" if case.amount == 1 else f"{case.amount:g}"
        rows.append(_put_row(run, case, key, label(case), each))
    headings = ("system", "at once", "place", "durability", "per second", "CPU ms")
    return Table("Put, and what the storages commit", headings, rows, 4)


def _put_row(
    run: Results, case: Case, key: str, what: str, each: str, figures: str = ""
) -> tuple[str, ...]:
    rate = run.summary(key, f"{figures}rate")
    place = (NAMES[case.storage], DURABILITY[case.storage])
    return (
        what,
        each,
        *place,
        "-" if rate is None else spread(rate, ""),
        _figure(run, key, f"{figures}cpu_ms"),
    )


def latencies(run: Results) -> Table:
    rows = []
    for case, key in sorted(run.each("latency"), key=lambda each: each[0].amount):
        gap = "10 ms" if case.amount < 1 else f"{case.amount:g} s"
        figures = (_figure(run, key, "median_ms"), _figure(run, key, "p99_ms"))
        place = (NAMES[case.storage], DURABILITY[case.storage])
        rows.append((label(case), gap, *place, *figures, _figure(run, key, "jobs")))
    headings = ("system", "gap", "place", "durability", "median ms", "99 % ms", "jobs a round")
    return Table("Put to start, with a worker at rest", headings, rows, 4)


def backlogs(run: Results) -> Table:
    rows = []
    ordered = sorted(
        run.each("backlog"), key=lambda each: (each[0].mode, each[0].others, each[0].amount)
    )
    for case, key in ordered:
        rate = run.summary(key)
        if rate is not None:
            waiting = f"{case.amount:,.0f} {OTHERS.get(case.others, '')}".strip()
            figures = (_figure(run, key, "cpu_ms"), _figure(run, key, "rss_mb"))
            rows.append((f"zasync, {mode_name(case)}", waiting, spread(rate, ""), *figures))
    headings = ("system", "waiting behind", "jobs/s", "CPU ms/job", "RSS MB")
    return Table("Backlog, FileStorage, no-op jobs", headings, rows, 2)


def costs(run: Results) -> Table:
    """What is counted, and what was measured once."""
    rows = [
        row
        for case, key in run.each("cost", "idle", "import", "async")
        for row in _cost(run, case, key)
    ]
    return Table("Counted, or measured once", ("what", "figure"), rows)


_COSTS = {
    "commits": "commits per job, after the put",
    "records": "records written per job, all its life",
    "bytes": "bytes written per job, all its life",
    "loads": "records loaded per job",
    "put_records": "records written by its put",
    "put_bytes": "bytes written by its put",
    "single_commits": "one at a time: commits per job, after the put",
    "single_records": "one at a time: records written per job",
    "single_bytes": "one at a time: bytes written per job",
    "made_records": "records that a plain job makes",
    "idle_bytes_a_day": "growth of the database by an idle dispatcher, bytes a day",
    "cpu_percent": "processor of an idle dispatcher, % of a core",
    "rss_mb": "memory (RSS), MB",
    "zodb_ms": "import of ZODB and FileStorage, ms",
    "put_ms": "the same with what puts jobs, ms",
    "work_ms": "the same with what performs jobs, ms",
    "seconds": "seconds until all have ended",
    "threads": "threads at the end",
}


def _cost(run: Results, case: Case, key: str) -> Iterator[tuple[str, ...]]:
    before = {
        "cost": f"{mode_name(case)}, a backlog",
        "idle": "idle",
        "import": "",
        "async": f"{case.amount:,.0f} coroutines that await a second each",
    }[case.measure]
    for figure, name in _COSTS.items():
        found = run.summary(key, figure)
        if found is not None:
            head = mode_name(case) if figure.startswith(("single", "made")) else before
            yield ": ".join(filter(None, (head, name))), written(found.median, "")


def systems(run: Results) -> Table:
    """Who took part, with which settings."""
    names = {case.subject for case, _key in run.each("drain", "put", "latency")}
    rows = [
        (subject.title, run.versions.get(subject.package, "-"), subject.about)
        for name, subject in SUBJECTS.items()
        if name in names
    ]
    return Table("Systems, and the settings of their workers", ("system", "version", ""), rows, 3)


def durability(run: Results) -> Table:
    """What the words in the column of that name mean."""
    places = {run.case(key).storage for key in run.measured}
    rows = [
        (DURABILITY[place], explained) for place, explained in EXPLAINED.items() if place in places
    ]
    return Table("Durability of what was acknowledged", ("", "place"), rows, 2)


def missing(run: Results) -> Table:
    """What could not be measured, and why."""
    return Table("Not measured", ("case", "why"), sorted(run.missing.items()), 2)


def label(case: Case) -> str:
    """Who, in words."""
    if case.measure == "floor":
        return "smallest possible queue"
    if case.subject == "ZODB":
        return "ZODB"
    if case.subject != "zasync":
        return SUBJECTS[case.subject].title
    if case.measure not in ("drain", "backlog"):
        return "zasync"
    several = f", {case.processes} processes" if case.processes > 1 else ""
    return f"zasync, {mode_name(case)}{several}"


def mode_name(case: Case) -> str:
    return "group settle" if case.mode == "batch" else "default mode"


def spread(found: Summary, unit: str) -> str:
    """The median, and the extremes if there were several rounds."""
    text = written(found.median, unit)
    if found.rounds > 1:
        text += f" ({written(found.least, '')} to {written(found.most, '')})"
    return text


def _figure(run: Results, key: str, figure: str) -> str:
    found = run.summary(key, figure)
    return "-" if found is None else written(found.median, "")


def as_markdown(table: Table, headings: Sequence[str] | None = None) -> str:
    """As a table of Markdown, without the title."""
    heads = table.headings if headings is None else headings
    rule = ["---" if index < table.words else "--:" for index in range(len(heads))]
    lines = [heads, rule, *table.rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
