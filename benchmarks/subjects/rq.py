# SPDX-License-Identifier: ZPL-2.1
"""RQ with Redis."""

from __future__ import annotations

import os
from collections.abc import Iterable

from redis import Redis
from rq import Queue, get_current_job

from benchmarks import work
from benchmarks.places import URI
from benchmarks.subjects import TEXT

queue = Queue("bench", connection=Redis(unix_socket_path=os.environ[URI]))


def install() -> None:
    """Nothing is needed."""


def put(name: str, number: int) -> None:
    queue.enqueue(getattr(work, name), number, TEXT)


def put_many(name: str, numbers: Iterable[int]) -> None:
    function = getattr(work, name)
    queue.enqueue_many([Queue.prepare_data(function, args=(number, TEXT)) for number in numbers])


def end() -> int:
    """What follows a fan-out: adds up what the jobs before it answered."""
    job = get_current_job()
    return sum(leaf.return_value() for leaf in job.fetch_dependencies())


def fill(name: str, count: int) -> None:
    if name == "fan_out":
        for _ in range(count // work.WIDTH):
            leaves = [
                Queue.prepare_data(work.no_op, args=(number, TEXT)) for number in range(work.WIDTH)
            ]
            queue.enqueue(end, depends_on=queue.enqueue_many(leaves))
        return
    for first in range(0, count, 100):
        put_many(name, range(first, min(first + 100, count)))
