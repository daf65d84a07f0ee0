# SPDX-License-Identifier: ZPL-2.1
"""Reads what the checker needs: the application's own objects, and the public API."""

from __future__ import annotations

from typing import Any

import transaction

from torture import application
from torture.checker import JobState, World
from zasync.failure import Failure
from zasync.interfaces import COMPLETED, KEY


def collect(db: Any) -> World:
    """The state of the world, in one transaction.  Commits nothing."""
    manager = transaction.TransactionManager()
    connection = db.open(transaction_manager=manager)
    try:
        manager.begin()
        root = connection.root()
        stored, queue = root[application.ROOT], root[KEY][""]
        quota = queue.quotas[application.QUOTA]
        quota.clean()
        return World(
            jobs={name: _state(job) for name, job in stored["jobs"].items()},
            applied=dict(stored["applied"].items()),
            called=dict(stored["called"].items()),
            concluded=dict(stored["concluded"].items()),
            ledgers=[(book["count"], list(book["ids"])) for book in stored["ledgers"]],
            balances=[account["balance"] for account in stored["accounts"]],
            fortune=application.FORTUNE * application.ACCOUNTS,
            gauge=dict(stored["gauge"].items()),
            places_taken=len(quota),
            waiting=len(queue),
        )
    finally:
        manager.abort()
        connection.close()


def _state(job: Any) -> JobState:
    completed = job.status == COMPLETED
    failed = completed and isinstance(job.result, Failure)
    return JobState(completed, failed, f"{job.status} {job!r}")


def open_jobs(db: Any, done: set[str]) -> int:
    """How many of the application's jobs have not ended; adds the names of the others to `done`."""
    manager = transaction.TransactionManager()
    connection = db.open(transaction_manager=manager)
    try:
        manager.begin()
        root = connection.root()
        jobs = root[application.ROOT]["jobs"]
        for name, job in jobs.items():
            if name not in done and job.status == COMPLETED:
                done.add(name)
        return len(jobs) - len(done) + len(root[KEY][""])
    finally:
        manager.abort()
        connection.close()
