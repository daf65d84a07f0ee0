# SPDX-License-Identifier: ZPL-2.1
"""Procrastinate on PostgreSQL: the worker asynchronous, puts synchronous, as its guide has it."""

from __future__ import annotations

import os
from collections.abc import Iterable

from procrastinate import App, PsycopgConnector

from benchmarks import work
from benchmarks.places import URI
from benchmarks.subjects import TEXT

app = App(connector=PsycopgConnector(conninfo=os.environ[URI]))
tasks = {
    function.__name__: app.task(name=function.__name__)(function)
    for function in (work.no_op, work.cpu, work.io, work.stamp)
}


def install() -> None:
    app.open()
    if not app.check_connection():
        app.schema_manager.apply_schema()


def put(name: str, number: int) -> None:
    tasks[name].defer(number=number, text=TEXT)


def put_many(name: str, numbers: Iterable[int]) -> None:
    tasks[name].batch_defer(*({"number": number, "text": TEXT} for number in numbers))


def fill(name: str, count: int) -> None:
    if name == "fan_out":
        raise NotImplementedError("it has no way to wait for several jobs")
    for first in range(0, count, 1000):
        put_many(name, range(first, min(first + 1000, count)))
