# SPDX-License-Identifier: ZPL-2.1
"""`python -m benchmarks`: print what a job costs, and how soon it starts."""

from __future__ import annotations

import logging

from rich.console import Console
from rich.table import Table

from benchmarks import counting, latency


def main() -> None:
    logging.basicConfig(level=logging.CRITICAL)
    console = Console()
    console.print(costs())
    console.print(f"records that a plain job makes: {counting.records_of_a_plain_job()}")
    console.print(f"growth of the database by an idle dispatcher: {counting.idle()} bytes a day")
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
    for measured in (latency.in_process(), latency.over_zeo()):
        table.add_row(
            measured.what, str(measured.jobs), f"{measured.median:.1f}", f"{measured.p99:.1f}"
        )
    return table


if __name__ == "__main__":
    main()
