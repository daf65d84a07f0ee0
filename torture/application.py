# SPDX-License-Identifier: ZPL-2.1
"""The application that is tortured: what it stores, and its jobs.

Stored is only what any application might store: trees, mappings and counters under ROOT, and the
jobs that its clients have put.  Each job notes in `applied` which attempt has done it, so that a
job that was done twice, or never, is seen afterwards.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from BTrees.OOBTree import OOBTree, OOTreeSet
from persistent.mapping import PersistentMapping

from torture.lines import Lines
from zasync import local
from zasync.job import Job, RetryCommonForever, parallel
from zasync.queue import Queue, Queues

ROOT = "torture"
LEDGERS = 4
ACCOUNTS = 8
FORTUNE = 1000  # in each account at the beginning
QUOTA, PLACES = "gauge", 1

lines: Lines | None = None  # where attempts are written down outside of the database


def install(root: Any) -> None:
    """Make the stored objects of the application, and the queue.  Does not commit."""
    queues = root["zasync"] = Queues()
    queue = queues[""] = Queue()
    queue.crash_limit = 1000  # processes do not die of these jobs, however often they do under them
    queue.quotas.create(QUOTA, size=PLACES)
    stored = root[ROOT] = OOBTree()
    for name in ("jobs", "applied", "called", "concluded", "gauge"):
        stored[name] = OOBTree()
    ledgers = [PersistentMapping(count=0, ids=OOTreeSet()) for _ in range(LEDGERS)]
    stored["ledgers"] = tuple(ledgers)
    accounts = [PersistentMapping(balance=FORTUNE) for _ in range(ACCOUNTS)]
    stored["accounts"] = tuple(accounts)


def open_lines(path: Path) -> None:
    """Say where this process writes down its attempts."""
    global lines
    lines = Lines(path)


class Stubborn(RetryCommonForever):
    """Retries whatever is not the job's own fault, and soon: this is a test."""

    first_wait = 0.2
    wait_step = 0.2
    longest_wait = 1.0


class Intended(Exception):
    """The error of a job that is meant to fail."""


# Jobs


def ledger(name: str, number: int, seconds: float) -> str:
    """Enter the name in a ledger, and count it."""
    with attempt(name) as stored:
        pause(seconds)
        book = stored["ledgers"][number]
        book["ids"].insert(name)
        book["count"] += 1
    return name


def bank(name: str, giver: int, taker: int, amount: int, seconds: float) -> str:
    """Move money from one account to another."""
    with attempt(name) as stored:
        stored["accounts"][giver]["balance"] -= amount
        pause(seconds)
        stored["accounts"][taker]["balance"] += amount
    return name


def chain(name: str, number: int, length: int, seconds: float) -> str:
    """Put the next link of the chain in the same transaction."""
    with attempt(f"{name}/{number}") as stored:
        pause(seconds)
        if number + 1 < length:
            put(
                local.getQueue(),
                stored,
                f"{name}/{number + 1}",
                chain_link(name, number + 1, length, seconds),
            )
    return f"{name}/{number}"


def chain_link(name: str, number: int, length: int, seconds: float) -> Job:
    return Job(chain, name, number, length, seconds)


def member(name: str, seconds: float) -> str:
    """One of the jobs that a fan-in waits for."""
    with attempt(name):
        pause(seconds)
    return name


def fan_in(*jobs: Any) -> str:
    """Note which members there were; called once all have ended."""
    names = tuple(job.result for job in jobs)
    name = names[0].rpartition("/")[0]
    with attempt(f"{name}/in") as stored:
        stored["concluded"][name] = (*stored["concluded"].get(name, ()), names)
    return name


def gauge(name: str, seconds: float) -> str:
    """Hold a place in the quota for a while."""
    with attempt(name) as stored:
        enter = time.monotonic()
        pause(seconds)
        stored["gauge"][name] = (enter, time.monotonic())
    return name


def answer(name: str, fails: bool, seconds: float) -> str:
    """A job whose callbacks matter; one that `fails` leaves nothing behind but its failure."""
    with attempt(name):
        pause(seconds)
        if fails:
            raise Intended(name)
    return name


def called(name: str, result: Any) -> str:
    """A callback."""
    with attempt(name, "called"):
        pass
    return name


# What they are made of


@contextmanager
def attempt(name: str, where: str = "applied") -> Iterator[Any]:
    """Write down, outside and inside of the database, that the job `name` is done here."""
    token = secrets.token_hex(4)
    stored = local.getJob()._p_jar.root()[ROOT]
    write("enter", name, token)
    try:
        yield stored
        stored[where][name] = (*stored[where].get(name, ()), token)
    finally:
        write("leave", name, token)


def write(what: str, name: str, token: str) -> None:
    if lines is not None:
        lines.write(what=what, job=name, attempt=token, pid=os.getpid())


def pause(seconds: float) -> None:
    time.sleep(seconds)


def put(queue: Any, stored: Any, name: str, job: Any) -> Any:
    """Put a job and keep it under its name; the caller commits."""
    stored["jobs"][name] = job
    return queue.put(job, retry_policy_factory=Stubborn)


def fan(name: str, seconds: list[float]) -> Any:
    """A job that fans out into one member for each of `seconds`, and in again."""
    members = [Job(member, f"{name}/{n}", each) for n, each in enumerate(seconds)]
    for job in members:
        job.retry_policy_factory = Stubborn
    return parallel(*members, postprocess=fan_in)
