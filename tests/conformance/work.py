# SPDX-License-Identifier: ZPL-2.1
"""What the jobs of the conformance tests do; importable, since jobs are kept by name.

Each effect leaves a mark of its own in the database, so that a doubled or lost one shows.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from BTrees.IOBTree import IOBTree
from persistent import Persistent

import zasync.foundation.clock
import zasync.local
from zasync.job import RetryCommonForever

LOST = "ZASYNC_TEST_NEVER_ENDS"  # in the environment of a process whose jobs never end

gates: dict[str, threading.Event] = {}
begun: list[int] = []
crowds: list[int] = []  # how many were at the same place at once
_crowd = 0
_lock = threading.Lock()


def reset() -> None:
    for gate in gates.values():
        gate.set()
    gates.clear()
    begun.clear()
    crowds.clear()


def gate(name: str) -> threading.Event:
    return gates.setdefault(name, threading.Event())


class Account(Persistent):
    """Two jobs that change it at once conflict."""

    balance = 0


def open_accounts(root: Any) -> None:
    root["accounts"] = [Account(), Account()]
    root["marks"] = IOBTree()


class Patient(RetryCommonForever):
    """Tries on for ever, and does not wait long for a storage that is away."""

    first_wait = wait_step = 0.02


def patient(job: Any) -> Patient:
    return Patient(job)


def here() -> Any:
    return zasync.local.getJob()._p_jar.root()


def mark(number: int) -> int:
    """Count in the database how often this took effect."""
    marks = here()["marks"]
    marks[number] = marks.get(number, 0) + 1
    return number


def mark_at_gate(name: str, number: int) -> int:
    """Say that it has come to the gate, and leave the mark once that is open."""
    gate(f"{name} reached").set()
    assert gate(name).wait(60)
    return mark(number)


def mark_end(number: int, result: Any) -> int:
    """As a callback, whatever the result is."""
    return mark(number)


def transfer(number: int, amount: int) -> int:
    """Move money from one account to the other."""
    begun.append(number)
    debit, credit = here()["accounts"]
    debit.balance -= amount
    credit.balance += amount
    return mark(number)


def mark_result(number: int, result: Any) -> None:
    """A callback."""
    mark(number + result)


def go_alone(number: int) -> int:
    """Note how many are in here at once."""
    global _crowd
    with _lock:
        _crowd += 1
        crowds.append(_crowd)
    try:
        return mark(number)
    finally:
        with _lock:
            _crowd -= 1


def size_of(text: bytes) -> int:
    return len(text)


def wait_at(name: str, number: int) -> int:
    """Say that it has begun, wait at a gate, and leave a mark."""
    begun.append(number)
    gate(f"{name} reached").set()
    assert gate(name).wait(30)
    return mark(number)


def end_elsewhere(number: int) -> int:
    """Leave a mark, unless this process is one whose jobs never end."""
    if os.environ.get(LOST):
        print(f"{number}\n", end="", flush=True)  # in one piece, for other threads print too
        threading.Event().wait()
    return mark(number)


def only_later(number: int) -> float:
    """Answer when it was run, in seconds since 1970."""
    mark(number)
    return zasync.foundation.clock.now().timestamp()
