# SPDX-License-Identifier: ZPL-2.1
"""`python -m benchmarks [costs|latency]`: print what a job costs, and how soon it starts."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import counting, latency
from tests.support.postgres import NoPostgres


def main(what: str = "all") -> None:
    logging.basicConfig(level=logging.CRITICAL)
    console = Console()
    if what in ("all", "costs"):
        console.print(costs())
        console.print(f"records that a plain job makes: {counting.records_of_a_plain_job()}")
        console.print(f"growth by an idle dispatcher: {counting.idle()} bytes a day")
    if what in ("all", "latency"):
        console.print(latencies())


def costs() -> Table:
    table = Table(title="what a plain job costs")
    for heading in ("job", "commits", "records", "bytes"):
        table.add_column(heading, justify="left" if heading == "job" else "right")
    for cost in (counting.one_at_a_time(), counting.backlog()):
        table.add_row(cost.what, f"{cost.commits:.2f}", f"{cost.records:.2f}", f"{cost.bytes:.0f}")
    return table


def latencies() -> Table:
    table = Table(title=f"put to start at idle, poll interval {latency.POLL_INTERVAL:.0f} s")
    for heading in ("setting", "jobs", "median ms", "99 % ms"):
        table.add_column(heading, justify="left" if heading == "setting" else "right")
    measures = [latency.in_process, latency.over_zeo, latency.over_postgresql]
    for measured in _all_that_can_be_had(measures):
        table.add_row(
            measured.what, str(measured.jobs), f"{measured.median:.1f}", f"{measured.p99:.1f}"
        )
    return table


def _all_that_can_be_had(measures: list[Callable[[], latency.Latency]]) -> Iterator[Any]:
    for measure in measures:
        try:
            yield measure()
        except NoPostgres as reason:
            print(f"PostgreSQL is left out: {reason}")


if __name__ == "__main__":
    main(*sys.argv[1:])
