# SPDX-License-Identifier: ZPL-2.1
"""`python -m benchmarks`: measure zasync and its peers, and write what came of it."""

from __future__ import annotations

import dataclasses
import shlex
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks import page, plan, tables
from benchmarks.cases import Selection
from benchmarks.machine import REVISION, machine, versions
from benchmarks.results import Results
from benchmarks.running import estimate, lacking, run
from benchmarks.subjects import SUBJECTS
from benchmarks.targets import checks

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "performance.md"


@dataclasses.dataclass(frozen=True)
class Kind:
    """What belongs to the short or the full run."""

    rounds: int
    seconds: float  # for one measure
    minutes: float  # after which none is begun


KINDS = {"short": Kind(3, 0.5, 6), "full": Kind(5, 2.0, 90)}


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of all commands that measure."""
    for option in reversed(
        [
            click.option("--full", is_flag=True, help="Measure everything, in five rounds."),
            click.option("--only", multiple=True, help="Only this measure (drain, put ...)."),
            click.option("--storage", multiple=True, help="Only where jobs lie there."),
            click.option("--subject", multiple=True, help="Only this system."),
            click.option("--work", multiple=True, help="Only this workload (no_op, cpu ...)."),
            click.option("--peers", multiple=True, help="Of the peers only this one, or 'none'."),
            click.option("--rounds", type=click.IntRange(1), help="3; with --full 5."),
            click.option("--seconds", type=float, help="For one measure: 0.5; with --full 2."),
            click.option("--minutes", type=float, help="Then stop: 6; with --full 90."),
            click.option(
                "--out",
                type=click.Path(path_type=Path, file_okay=False),
                default=ROOT / "build" / "bench",
                help="Where the results go: build/bench.",
            ),
            click.option("--resume", is_flag=True, help="Keep what is there, measure the rest."),
            click.option("--again", is_flag=True, help="Keep what is there, but for these cases."),
        ]
    ):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@click.pass_context
def main(context: click.Context) -> None:
    """Measure zasync and its peers.  README.md beside this program says how to read it."""
    if context.invoked_subcommand is None:
        context.invoke(run_command)


@main.command("run")
@run_options
def run_command(**options: Any) -> None:
    """Measure, print the tables, and write the results as JSON and as a page."""
    results, path = _measured(**options)
    _report(results, path.parent)


@main.command("page")
@run_options
@click.option("--no-run", is_flag=True, help="Only write, from the results that are there.")
def page_command(no_run: bool, **options: Any) -> None:
    """The same, and rewrite docs/performance.md with the figures."""
    if no_run:
        path = _path(options["out"], options["full"])
        results = Results.load(path)
    else:
        results, path = _measured(**options)
    _report(results, path.parent)
    page.rewrite(DOCUMENT, results, _pictures(results))
    click.echo("docs/performance.md is rewritten")


@main.command("report")
@run_options
def report_command(out: Path, full: bool, **_options: Any) -> None:
    """Print the table and write the page, from the results that are there."""
    _report(Results.load(_path(out, full)), out)


@main.command("list")
@run_options
def list_command(full: bool, **options: Any) -> None:
    """Name the cases that would be measured."""
    for case in _selection(**options).of(plan.full() if full else plan.short()):
        click.echo(case.key)


def _measured(
    *, full: bool, out: Path, resume: bool, again: bool, **options: Any
) -> tuple[Results, Path]:
    name = "full" if full else "short"
    kind, path = KINDS[name], _path(out, full)
    rounds = options.pop("rounds") or kind.rounds
    seconds = options.pop("seconds") or kind.seconds
    minutes = options.pop("minutes") or kind.minutes
    cases = _selection(**options).of(plan.full() if full else plan.short())
    if not cases:
        raise click.UsageError("no case fits all of that; see `python -m benchmarks list`")
    keep = (resume or again) and path.exists()
    results = Results.load(path) if keep else Results()
    now = machine(), versions()
    if results.measured and (
        _known(results.versions) != _known(now[1]) or results.seconds != seconds
    ):
        raise click.UsageError(
            "the results that are there are of other versions or other --seconds: start anew"
        )
    if again:
        for case in cases:
            results.measured.pop(case.key, None)
    results.kind, results.seconds = name, seconds
    results.rounds = max(rounds, results.rounds)
    results.command = _command_of_all(results.command, _command(), name)
    results.begun = results.begun or datetime.now(UTC).date().isoformat()
    if not results.machine:
        results.machine, results.versions = now
    results.versions[REVISION] = _revisions(results.versions[REVISION], now[1][REVISION])
    todo = lacking(cases, results, rounds)
    about = estimate(todo, results, seconds)
    click.echo(
        f"{len(todo)} measures, about {about:.0f} minutes; none is begun after {minutes:g}"
        + (", --resume goes on" if about > minutes else ""),
        err=True,
    )
    run(
        cases,
        results,
        path,
        rounds=rounds,
        seconds=seconds,
        minutes=minutes,
        say=lambda line: click.echo(line, err=True),
    )
    return results, path


def _known(versions: dict[str, str]) -> dict[str, str]:
    return {name: version for name, version in versions.items() if name != REVISION}


def _command() -> str:
    """How we were called, without what is only of this machine or of this call."""
    words = [word for word in sys.argv[1:] if word not in ("--resume", "--again")]
    for option in ("--out", "--minutes"):
        while option in words:
            at = words.index(option)
            del words[at : at + 2]
    return shlex.join(["python", "-m", "benchmarks", *words])


def _command_of_all(before: str, now: str, kind: str) -> str:
    """The command of what was measured before and of what is measured now."""
    if before in ("", now):
        return now
    return "python -m benchmarks run" + (" --full" if kind == "full" else "") + page.IN_PIECES


def _revisions(before: str, now: str) -> str:
    """All that were measured, for a run in pieces."""
    return before if now in before.split(", ") else f"{before}, {now}"


def _path(out: Path, full: bool) -> Path:
    return out / ("full.json" if full else "short.json")


def _selection(
    *,
    only: tuple[str, ...],
    storage: tuple[str, ...],
    subject: tuple[str, ...],
    work: tuple[str, ...],
    peers: tuple[str, ...],
    **_others: Any,
) -> Selection:
    named: tuple[str, ...] | None = peers or None
    if peers == ("none",):
        named = ()
    unknown = set(subject + (named or ())) - set(SUBJECTS) - {"ZODB"}
    if unknown:
        raise click.UsageError(f"unknown: {', '.join(sorted(unknown))}")
    return Selection(only, storage, subject, work, named)


def _report(results: Results, out: Path) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    for table in (page.about(results), *tables.tables(results)):
        console.print(_rich(table))
        if table.note:
            console.print(f"  {table.note}\n")
    verdicts = [each.verdict for each in checks(results)]
    counts = {each: verdicts.count(each) for each in ("met", "not met", "not measured")}
    console.print("targets: " + ", ".join(f"{count} {each}" for each, count in counts.items()))
    target = out / f"{results.kind}.html"
    target.write_text(page.as_html(results, _pictures(results)), encoding="utf-8")
    console.print(f"{results.kind}.json and {target.name} are written")


def _pictures(results: Results) -> dict[str, str]:
    from benchmarks.plots import pictures  # only a report needs matplotlib

    return pictures(results)


def _rich(table: tables.Table) -> RichTable:
    made = RichTable(title=table.title, title_justify="left", box=box.SIMPLE)
    for index, heading in enumerate(table.headings):
        made.add_column(heading, justify="left" if index < table.words else "right")
    for row in table.rows:
        made.add_row(*row)
    return made


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and clean up
    main()
