# SPDX-License-Identifier: ZPL-2.1
"""Huey, on Redis if the place is a socket, else on SQLite."""

from __future__ import annotations

import os

from huey import RedisHuey, SqliteHuey, chord

from benchmarks import work
from benchmarks.places import URI
from benchmarks.subjects import TEXT

_place = os.environ[URI]
huey = (
    RedisHuey("bench", url=f"unix://{_place}")
    if _place.endswith(".sock")
    else SqliteHuey("bench", filename=_place)
)
tasks = {
    function.__name__: huey.task(name=function.__name__)(function)
    for function in (work.no_op, work.cpu, work.io, work.stamp)
}
put_many = None


@huey.task(name="end")
def end(results: list[int]) -> int:
    """What follows a fan-out."""
    return sum(results)


def install() -> None:
    """Nothing is needed."""


def put(name: str, number: int) -> None:
    tasks[name](number, TEXT)


def fill(name: str, count: int) -> None:
    if name == "fan_out":
        for _ in range(count // work.WIDTH):
            leaves = [tasks["no_op"].s(number, TEXT) for number in range(work.WIDTH)]
            huey.enqueue(chord(leaves, end.s()))
        return
    for number in range(count):
        put(name, number)
