# SPDX-License-Identifier: ZPL-2.1
"""The table of a run, and the same as JSON."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.console import Console
from rich.table import Table

from torture.checker import KINDS, Findings, Recovery, percentile

PACKAGES = ("zasync", "ZODB", "ZEO", "RelStorage", "transaction", "persistent", "BTrees", "Twisted")
SHOWN = 10  # findings of each kind in the terminal; the JSON has all


@dataclasses.dataclass
class Result:
    """All that a run has found out."""

    storage: str
    seed: int
    command: str
    seconds: float
    told: dict[str, int]  # what clients were told -> how often
    jobs: int  # effects that were asked for
    attempts: int
    findings: Findings
    recoveries: Sequence[Recovery]  # with the storage up, and nothing else broken meanwhile
    disturbed: Sequence[Recovery]  # the others
    promised: float  # seconds: death interval + ping + poll, and the commits themselves
    happened: dict[str, int]
    required: dict[str, int]
    ended_by_themselves: int = 0
    bad_stops: int = 0
    drained: bool = True

    @property
    def late(self) -> bool:
        """Whether recovery took longer than is promised for 99 of 100."""
        return percentile([each.seconds for each in self.recoveries], 0.99) > self.promised

    @property
    def missed(self) -> list[str]:
        """The kinds of fault of which there were too few."""
        return [k for k, count in self.required.items() if self.happened.get(k, 0) < count]

    @property
    def passed(self) -> bool:
        return not (
            self.findings
            or self.missed
            or self.late
            or self.ended_by_themselves
            or self.bad_stops
            or not self.drained
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "storage": self.storage,
            "seed": self.seed,
            "command": self.command,
            "seconds": round(self.seconds, 1),
            "versions": versions(),
            "jobs": self.jobs,
            "attempts": self.attempts,
            "told": self.told,
            "found": {kind: len(found) for kind, found in self.findings.of.items()},
            "findings": self.findings.of,
            "recovery": {
                "promised": self.promised,
                "undisturbed": _times(self.recoveries),
                "disturbed": _times(self.disturbed),
            },
            "faults": self.happened,
            "required": self.required,
            "ended by themselves": self.ended_by_themselves,
            "bad stops": self.bad_stops,
            "drained": self.drained,
        }


def _times(found: Sequence[Recovery]) -> dict[str, float]:
    times = [each.seconds for each in found]
    return {
        "count": len(times),
        "p50": round(percentile(times, 0.5), 3),
        "p99": round(percentile(times, 0.99), 3),
        "max": round(percentile(times, 1.0), 3),
    }


def versions() -> dict[str, str]:
    found = {"Python": platform.python_version(), "system": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def show(result: Result, console: Console) -> None:
    """Print the table."""
    table = Table(title=f"torture: {result.storage}, seed {result.seed}", show_lines=False)
    table.add_column("")
    table.add_column("number", justify="right")
    table.add_column("what it means")
    table.add_row("jobs", str(result.jobs), "that clients have put, with those that jobs put")
    table.add_row("attempts", str(result.attempts), "at jobs and callbacks")
    told = ", ".join(f"{count} {outcome}" for outcome, count in result.told.items())
    table.add_row("puts", str(sum(result.told.values())), told)
    table.add_section()
    for kind, meaning in KINDS.items():
        table.add_row(kind, _judged(len(result.findings.of[kind])), meaning)
    table.add_row("workers ended", _judged(result.ended_by_themselves), "by themselves, unasked")
    table.add_row("bad stops", _judged(result.bad_stops), "did not end in time when asked to")
    table.add_section()
    for title, found in (("recovery", result.recoveries), ("disturbed", result.disturbed)):
        times = _times(found)
        meaning = f"p50 {times['p50']:.2f} s, p99 {times['p99']:.2f} s, max {times['max']:.2f} s"
        promise = f"; promised: p99 {result.promised:.1f} s" if title == "recovery" else ""
        table.add_row(title, str(times["count"]), meaning + promise)
    table.add_section()
    for kind, required in result.required.items():
        count = result.happened.get(kind, 0)
        table.add_row(kind, str(count) if count >= required else f"[red]{count}", f"≥ {required}")
    console.print(table)
    for kind, found in result.findings.of.items():
        for what in found[:SHOWN]:
            console.print(f"[red]{kind}[/red]: {what}", highlight=False)
    known = ", ".join(f"{name} {number}" for name, number in versions().items())
    console.print(f"{known}; {result.seconds:.0f} s; {result.command}", highlight=False)
    console.print("[green]passed" if result.passed else "[red]FAILED")


def _judged(count: int) -> str:
    return str(count) if not count else f"[red]{count}"
