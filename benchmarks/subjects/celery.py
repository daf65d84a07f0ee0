# SPDX-License-Identifier: ZPL-2.1
"""Celery with Redis as its broker, and without a result backend."""

from __future__ import annotations

import os

from celery import Celery

from benchmarks import work
from benchmarks.places import URI
from benchmarks.subjects import TEXT

app = Celery("bench", broker=f"redis+socket://{os.environ[URI]}")
tasks = {
    function.__name__: app.task(name=function.__name__)(function)
    for function in (work.no_op, work.cpu, work.io, work.stamp)
}
put_many = None


def install() -> None:
    """Nothing is needed."""


def put(name: str, number: int) -> None:
    tasks[name].delay(number, TEXT)


def fill(name: str, count: int) -> None:
    for number in range(count):
        put(name, number)
