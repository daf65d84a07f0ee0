# SPDX-License-Identifier: ZPL-2.1
"""Compares what clients were told with what the database says.  Knows nothing of how zasync works.

It gets the clients' history, the application's own objects and the states of its jobs (`World`),
and the lines that attempts have written outside of the database.  Pure: it reads no files.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LOST, DOUBLED, PHANTOM, BOOKS, LIMIT, CALLBACKS, STUCK, WRONG = (
    "lost",
    "doubled",
    "phantom",
    "books wrong",
    "limits broken",
    "callbacks not once",
    "stuck",
    "wrong result",
)
KINDS = {
    LOST: "acknowledged, or there with its client's data, and without its effect",
    DOUBLED: "its effect was committed more than once",
    PHANTOM: "there although its client was refused, or only half there",
    BOOKS: "the sums of the application's own objects are wrong",
    LIMIT: "more jobs at once than the quota has places, or places taken for ever",
    CALLBACKS: "a callback was not committed exactly once",
    STUCK: "not ended when everything had been healed for long",
    WRONG: "ended with a failure, or without one, where the opposite is right",
}
"""What can be found, and what it means.  Each must be found no time."""

Event = Mapping[str, Any]


@dataclasses.dataclass
class JobState:
    """What the public API says about a job: whether it has ended, and whether with a Failure."""

    completed: bool
    failed: bool = False
    status: str = ""


@dataclasses.dataclass
class World:
    """What the database says at the end."""

    jobs: dict[str, JobState]
    applied: dict[str, Sequence[str]]  # name of a job -> the attempts that it was done by
    called: dict[str, Sequence[str]]  # the same of callbacks
    concluded: dict[str, Sequence[Sequence[str]]]  # name of a fan -> members, for each conclusion
    ledgers: Sequence[tuple[int, Sequence[str]]]  # count, names
    balances: Sequence[int]
    fortune: int  # the sum that the balances had in the beginning
    gauge: dict[str, tuple[float, float]]
    places_taken: int = 0  # in the quota, when all jobs have ended
    waiting: int = 0  # jobs in the queue, likewise


class Findings:
    """What is wrong, by kind."""

    def __init__(self) -> None:
        self.of: dict[str, list[str]] = {kind: [] for kind in KINDS}

    def add(self, kind: str, what: str) -> None:
        self.of[kind].append(what)

    def __bool__(self) -> bool:
        return any(self.of.values())


def check(
    history: Iterable[Event],
    world: World,
    attempts: Sequence[Event],
    deaths: Sequence[Event],
    *,
    places: int,
) -> Findings:
    """Find all that is wrong.

    `history` are the clients' lines, `attempts` those of the jobs, `deaths` those of killed
    processes; `places` is the size of the quota that jobs of the kind *gauge* run under.
    """
    findings = Findings()
    orders = list(history)
    for order in orders:
        _check_order(order, world, findings)
    _check_doubles(world, findings)
    _check_strangers(orders, world, findings)
    _check_books(world, findings)
    _check_concluded(orders, world, findings)
    gauges = {order["name"] for order in orders if order["kind"] == "gauge"}
    _check_limit(gauges, attempts, deaths, places, findings)
    if world.places_taken:
        findings.add(LIMIT, f"{world.places_taken} places are taken and no job runs")
    if world.waiting:
        findings.add(STUCK, f"{world.waiting} jobs wait in the queue")
    return findings


# Jobs


def _check_order(order: Event, world: World, findings: Findings) -> None:
    name, outcome = order["name"], order["outcome"]
    there = name in world.jobs
    done = [effect for effect in order["effects"] if world.applied.get(effect)]
    called = [callback for callback in order["callbacks"] if world.called.get(callback)]
    if outcome == "refused" and (there or done or called):
        findings.add(PHANTOM, f"{name} was refused")
        return
    if not there:
        if outcome == "ok":
            findings.add(LOST, f"{name}: its client's data is gone")
        elif done or called:
            findings.add(PHANTOM, f"{name} was done, and its client's data is not there")
        return
    if not _has_ended(order, world):
        findings.add(STUCK, f"{name}: {world.jobs[name].status}")
        return
    for effect in order["effects"]:
        if not world.applied.get(effect):
            findings.add(LOST, effect)
    for callback in order["callbacks"]:
        count = len(world.called.get(callback, ()))
        if count != 1:
            findings.add(CALLBACKS, f"{callback}: {count}")
    if world.jobs[name].failed != bool(order.get("fails")):
        findings.add(WRONG, f"{name}: failed is {world.jobs[name].failed}")


def _has_ended(order: Event, world: World) -> bool:
    """Whether the job, and those that it has put in its turn, are completed."""
    parts = [world.jobs[name] for name in order["effects"] if name in world.jobs]
    return all(job.completed for job in [world.jobs[order["name"]], *parts])


def _check_doubles(world: World, findings: Findings) -> None:
    for name, tokens in world.applied.items():
        if len(tokens) > 1:
            findings.add(DOUBLED, f"{name}: by {', '.join(tokens)}")


def _check_strangers(orders: Sequence[Event], world: World, findings: Findings) -> None:
    """Effects that nobody has asked for."""
    known = {effect for order in orders for effect in order["effects"]}
    for name in world.applied:
        if name not in known:
            findings.add(PHANTOM, f"{name} was never put")


def _check_books(world: World, findings: Findings) -> None:
    entered = [name for _, names in world.ledgers for name in names]
    for number, (count, names) in enumerate(world.ledgers):
        if count != len(names):
            findings.add(BOOKS, f"ledger {number} has {len(names)} names and counts {count}")
    applied = {name for name in world.applied if name.startswith("ledger-")}
    if set(entered) != applied or len(entered) != len(applied):
        findings.add(BOOKS, f"{len(entered)} names in ledgers, {len(applied)} jobs done")
    if sum(world.balances) != world.fortune:
        findings.add(BOOKS, f"the balances sum up to {sum(world.balances)}, not {world.fortune}")


def _check_concluded(orders: Sequence[Event], world: World, findings: Findings) -> None:
    """Each fan-in was done once, after all members."""
    for order in orders:
        name = order["name"]
        if order["kind"] != "fan" or name not in world.jobs:
            continue
        conclusions = world.concluded.get(name, ())
        members = [effect for effect in order["effects"] if effect != f"{name}/in"]
        if len(conclusions) > 1:
            findings.add(DOUBLED, f"{name} was concluded {len(conclusions)} times")
        if conclusions and list(conclusions[0]) != members:
            findings.add(BOOKS, f"{name} was concluded with {conclusions[0]}")


# Limits


def _check_limit(
    gauges: set[str],
    attempts: Sequence[Event],
    deaths: Sequence[Event],
    places: int,
    findings: Findings,
) -> None:
    """At no instant more attempts than places that run and could still be committed."""
    changes: list[tuple[float, int, str]] = []
    for name, begin, end in running(attempts, deaths):
        if name in gauges:
            changes += [(begin, 1, name), (end, -1, name)]
    inside: set[str] = set()
    for moment, change, name in sorted(changes):  # those who leave go first
        if change > 0:
            inside.add(name)
            if len(inside) > places:
                findings.add(LIMIT, f"{', '.join(sorted(inside))} at {moment:.3f}")
        else:
            inside.discard(name)


def running(
    attempts: Sequence[Event], deaths: Sequence[Event]
) -> Iterable[tuple[str, float, float]]:
    """The time during which each attempt ran and could still be committed.

    That ends when it says so, when its process dies, or when the job's next attempt begins: by
    then the former one is superseded, whatever it thinks.
    """
    died = {death["pid"]: death["t"] for death in deaths}
    left = {line["attempt"]: line["t"] for line in attempts if line["what"] == "leave"}
    entered = _by_job(attempts)
    for name, lines in entered.items():
        for line, later in zip(lines, [*lines[1:], None], strict=True):
            ends = [left.get(line["attempt"]), died.get(line["pid"]), later and later["t"]]
            end = min((end for end in ends if end is not None), default=float("inf"))
            yield name, line["t"], max(line["t"], end)


def _by_job(attempts: Sequence[Event]) -> dict[str, list[Event]]:
    entered: dict[str, list[Event]] = defaultdict(list)
    for line in sorted(attempts, key=lambda line: line["t"]):
        if line["what"] == "enter":
            entered[line["job"]].append(line)
    return entered


# Recovery


@dataclasses.dataclass(frozen=True)
class Recovery:
    """A job that ran in a process when that died, and how long it took until it ran again."""

    job: str
    death: float
    seconds: float

    def is_disturbed(self, windows: Sequence[tuple[float, float]]) -> bool:
        """Whether something else was broken meanwhile."""
        end = self.death + self.seconds
        return any(begin <= end and self.death <= last for begin, last in windows)


def recoveries(
    attempts: Sequence[Event], deaths: Sequence[Event], applied: Mapping[str, Sequence[str]]
) -> list[Recovery]:
    """For each job whose last attempt before a death was in that process: the time to the next."""
    found = []
    entered = _by_job(attempts)
    moments = {name: [line["t"] for line in lines] for name, lines in entered.items()}
    for death in deaths:
        for name, lines in entered.items():
            at = bisect.bisect_right(moments[name], death["t"])
            if not 0 < at < len(lines):
                continue
            last, following = lines[at - 1], lines[at]
            if last["pid"] == death["pid"] and last["attempt"] not in applied.get(name, ()):
                found.append(Recovery(name, death["t"], following["t"] - death["t"]))
    return found


def percentile(values: Sequence[float], part: float) -> float:
    """The value that so large a part of them does not exceed; 0 if there are none."""
    ordered = sorted(values)
    return ordered[max(0, round(part * len(ordered)) - 1)] if ordered else 0.0
