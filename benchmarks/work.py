# SPDX-License-Identifier: ZPL-2.1
"""What the measured jobs do.  The first four are the same for zasync and for every peer.

Each counts itself, so that whoever measures sees the jobs of any system in the same way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from persistent import Persistent

from benchmarks import tally

CPU_SECONDS = 0.001
IO_SECONDS = 0.02
AWAITED_SECONDS = 1.0
WRITES = 10
WIDTH = 100  # of a fan-out
QUOTAS = 100
OTHERS = {
    "later": "scheduled for later",
    "refused": "that the agent's filter refuses",
    "full": f"behind {QUOTAS} full quotas",
}


def no_op(number: int, text: str) -> int:
    """The smallest job, with two small arguments."""
    tally.mine().count()
    return number


def cpu(number: int, text: str) -> int:
    """A millisecond of work for the processor."""
    until = time.thread_time() + CPU_SECONDS
    while time.thread_time() < until:
        pass
    tally.mine().count()
    return number


def io(number: int, text: str) -> int:
    """Waits, as for an answer over a network."""
    time.sleep(IO_SECONDS)
    tally.mine().count()
    return number


def stamp(number: int, text: str) -> int:
    """Notes when it was started."""
    tally.mine().start(number)
    return number


def refused(number: int, text: str) -> None:
    """Never called: `accepted` refuses it."""
    raise AssertionError("a job was performed that the filter of its agent refuses")


def accepted(job: Any) -> bool:
    """The filter of an agent."""
    return job.callable is not refused


# What needs a ZODB


class Item(Persistent):
    """An object that belongs to one job."""


class Counter(Persistent):
    """An object that all jobs change."""

    value = 0


class Record(Persistent):
    """A job of the smallest queue that ZODB allows (`floor.py`)."""

    status = "waiting"
    result: Any = None

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.function = function
        self.arguments = arguments


def write_ten(item: Item, number: int) -> int:
    """Write ten attributes of the job's own object."""
    for index in range(WRITES):
        setattr(item, f"field{index}", number)
    tally.mine().count()
    return number


def increment(counter: Counter, number: int) -> int:
    """Change the object that all others change too."""
    counter.value += 1
    tally.mine().count()
    return number


def total(*jobs: Any) -> int:
    """The end of a fan-out: adds up what its jobs answered."""
    return sum(job.result for job in jobs)


async def wait(number: int) -> int:
    """Waits for a second on the event loop."""
    await asyncio.sleep(AWAITED_SECONDS)
    tally.mine().count()
    return number
