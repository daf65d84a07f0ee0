# SPDX-License-Identifier: ZPL-2.1
"""Stored: queues, what waits in them, their quotas, and the dispatchers that work them.

This is the public address of the stored classes, whatever file they lie in.
"""

from zasync.queue.broadcast import Broadcast, BroadcastQueue, OnlyThere
from zasync.queue.memory import ClaimMemory
from zasync.queue.parked import Parked
from zasync.queue.queue import Queue, Queues, getDefaultQueue
from zasync.queue.quota import Quota, Quotas
from zasync.queue.registration import (
    DispatcherAgents,
    Dispatchers,
    LastPing,
    hand_back_one,
)
from zasync.queue.waiting import Line, Waiting

__all__ = [
    "Broadcast",
    "BroadcastQueue",
    "ClaimMemory",
    "DispatcherAgents",
    "Dispatchers",
    "LastPing",
    "Line",
    "OnlyThere",
    "Parked",
    "Queue",
    "Queues",
    "Quota",
    "Quotas",
    "Waiting",
    "getDefaultQueue",
    "hand_back_one",
]

_stored: list[type] = [Queue, Queues, Quota, Quotas, DispatcherAgents, Dispatchers, LastPing]
for _class in [*_stored, Line, Parked, Waiting]:
    _class.__module__ = __name__
