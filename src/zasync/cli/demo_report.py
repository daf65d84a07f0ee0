# SPDX-License-Identifier: ZPL-2.1
"""How the report of the demo looks."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from zasync.demo.report import HITS, Latency, Report


def show(report: Report, jobs: int, seconds: float, idle: Latency | None, console: Console) -> None:
    """Print the report; `jobs` were done in `seconds`, and `idle` was measured, just now."""
    console.print(Rule("Report", align="left"))
    console.print(_facts(report, jobs, seconds, idle))
    console.print("\nThe file that is broken on purpose made its job fail:", style="bold")
    console.print(Text(report.traceback))
    console.print(Text(f"Its callback handled that, and noted: {report.handled}"))
    console.print("\nThe ten most frequent identifiers:", style="bold")
    console.print(_table(report.top))
    names = " and ".join(report.query)
    console.print(Text(f"\n{len(report.hits)} files have {names}:", style="bold"))
    for path in report.hits[:HITS]:
        console.print(Text(f"  {_printable(path)}"))
    if len(report.hits) > HITS:
        console.print(f"  ... and {len(report.hits) - HITS} more")


def _facts(report: Report, jobs: int, seconds: float, idle: Latency | None) -> Table:
    totals = report.totals
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_row("files", f"{totals['files']} indexed, {totals['unreadable']} could not be read")
    table.add_row(
        "index", f"{totals['identifiers']} identifiers, {totals['occurrences']} occurrences"
    )
    table.add_row("jobs", f"{report.succeeded} succeeded, {report.failed} failed")
    if jobs:
        rate = jobs / max(seconds, 0.001)
        table.add_row("speed", f"{jobs} jobs in {seconds:.1f} s: {rate:.0f} jobs per second")
    table.add_row("start latency", f"{_latency(report.latency)}, all put at once")
    table.add_row("", f"{_latency(idle)}, put one by one while idle")
    end = "then succeeded" if report.clash_succeeded else "and failed"
    table.add_row("conflict", f"1 job conflicted on purpose: {report.attempts} attempts, {end}")
    return table


def _latency(latency: Latency | None) -> str:
    if latency is None:
        return "not measured"
    median, ninety_fifth = latency.median * 1000, latency.ninety_fifth * 1000
    return f"median {median:.0f} ms, 95th percentile {ninety_fifth:.0f} ms"


def _table(top: list[tuple[str, int]]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(justify="right")
    table.add_column()
    for name, count in top:
        table.add_row(str(count), Text(name))
    return table


def _printable(path: str) -> str:
    """A path whose name may be no proper text."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def command_name() -> str:
    """How to call this command again: by its path, if it is not on the PATH."""
    called = Path(sys.argv[0])
    if shutil.which("zasync") or called.name != "zasync":
        return "zasync"
    called = called.absolute()
    here = Path.cwd()
    return shlex.quote(str(called.relative_to(here) if called.is_relative_to(here) else called))


def show_next(uri: str, top: list[tuple[str, int]], console: Console) -> None:
    """Print commands to try on the database that is left."""
    db = f"--db {shlex.quote(uri)}"
    zasync = command_name()
    name = shlex.quote(json.dumps(top[0][0])) if top else "'\"len\"'"
    console.print("\nNext, on the database that this leaves:", style="bold")
    for command in (
        f"{zasync} status {db}",
        f"{zasync} put {db} zasync.demo.jobs:how_often {name}",
        f"{zasync} worker {db}",
    ):
        console.print(Text(f"  {command}"))
