# SPDX-License-Identifier: ZPL-2.1
"""Dramatiq with Redis."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks import work
from benchmarks.places import URI
from benchmarks.subjects import TEXT

dramatiq.set_broker(RedisBroker(url=f"unix://{os.environ[URI]}"))
tasks = {
    function.__name__: dramatiq.actor(actor_name=function.__name__)(function)
    for function in (work.no_op, work.cpu, work.io, work.stamp)
}
put_many = None


def install() -> None:
    """Nothing is needed."""


def put(name: str, number: int) -> None:
    tasks[name].send(number, TEXT)


def fill(name: str, count: int) -> None:
    for number in range(count):
        put(name, number)
