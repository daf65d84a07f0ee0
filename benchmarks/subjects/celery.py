# SPDX-License-Identifier: ZPL-2.1
"""Celery with Redis as its broker; results are kept for the fan-out only, which needs them."""

from __future__ import annotations

import os

from celery import Celery, chord

from benchmarks import work
from benchmarks.places import URI
from benchmarks.subjects import TEXT

_url = f"redis+socket://{os.environ[URI]}"
app = Celery("bench", broker=_url, backend=_url)
tasks = {
    function.__name__: app.task(name=function.__name__, ignore_result=True)(function)
    for function in (work.no_op, work.cpu, work.io, work.stamp)
}
leaf = app.task(name="leaf")(work.no_op)


@app.task(name="end", ignore_result=True)
def end(results: list[int]) -> int:
    """What follows a fan-out."""
    return sum(results)


put_many = None


def install() -> None:
    """Nothing is needed."""


def put(name: str, number: int) -> None:
    tasks[name].delay(number, TEXT)


def fill(name: str, count: int) -> None:
    if name == "fan_out":
        for _ in range(count // work.WIDTH):
            chord(leaf.s(number, TEXT) for number in range(work.WIDTH))(end.s())
        return
    for number in range(count):
        put(name, number)
