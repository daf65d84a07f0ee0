# SPDX-License-Identifier: ZPL-2.1
"""Dramatiq with Redis."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import RedisBackend

from benchmarks import work
from benchmarks.places import URI
from benchmarks.subjects import TEXT

broker = RedisBroker(url=f"unix://{os.environ[URI]}")
broker.add_middleware(GroupCallbacks(RedisBackend(client=broker.client)))
dramatiq.set_broker(broker)
tasks = {
    function.__name__: dramatiq.actor(actor_name=function.__name__)(function)
    for function in (work.no_op, work.cpu, work.io, work.stamp)
}
put_many = None


@dramatiq.actor
def end() -> None:
    """What follows a fan-out; a group hands over no results."""


def install() -> None:
    """Nothing is needed."""


def put(name: str, number: int) -> None:
    tasks[name].send(number, TEXT)


def fill(name: str, count: int) -> None:
    if name == "fan_out":
        for _ in range(count // work.WIDTH):
            leaves = (tasks["no_op"].message(number, TEXT) for number in range(work.WIDTH))
            group = dramatiq.group(leaves)
            group.add_completion_callback(end.message())
            group.run()
        return
    for number in range(count):
        put(name, number)
