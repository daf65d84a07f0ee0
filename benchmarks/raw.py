# SPDX-License-Identifier: ZPL-2.1
"""`python -m benchmarks.raw`: how many tiny transactions a storage takes, without any queue."""

from __future__ import annotations

import json
import os
import sys
import time

import transaction

from benchmarks.places import URI
from benchmarks.work import Counter
from zasync.storage import close_database, open_database

WARM = 20  # commits that do not count


def make(count: str) -> None:
    """Make one object for each process that is to commit."""
    db = open_database(os.environ[URI])
    with db.transaction() as connection:
        for number in range(int(count)):
            connection.root()[f"raw{number}"] = Counter()
    close_database(db)
    print("{}")


def commit(number: str, seconds: str) -> None:
    """Change one's own object, and commit, again and again."""
    db = open_database(os.environ[URI])
    manager = transaction.TransactionManager()
    counter = db.open(transaction_manager=manager).root()[f"raw{number}"]

    def once() -> None:
        manager.begin()
        counter.value += 1
        manager.commit()

    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(WARM):
        once()
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < float(seconds):
        once()
        count += 1
    print(json.dumps({"rate": count / (time.perf_counter() - begin)}), flush=True)


if __name__ == "__main__":
    {"make": make, "commit": commit}[sys.argv[1]](*sys.argv[2:])
