# SPDX-License-Identifier: ZPL-2.1
"""Several threads put calls at once, over a real FileStorage, while a dispatcher does them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import ZODB
from ZODB.FileStorage import FileStorage
from ZODB.POSException import ConflictError

from tests.integration.dispatcher import jobs_for_tests as jobs
from tests.support.running import Site, running
from zasync.calls import Calls, CallState, Counts
from zasync.foundation.attempts import OwnManager

THREADS = 4
EACH = 250


def produce(db: Any, number: int, ids: list[str], conflicts: list[int], start: Any) -> None:
    manager = OwnManager()
    connection = db.open(transaction_manager=manager)
    start.wait(30)
    for count in range(EACH):
        while True:
            manager.begin()
            calls = connection.root()["calls"]
            call = calls.put(jobs.note, number, count, owner=f"user {number}")
            try:
                manager.commit()
                break
            except ConflictError:
                conflicts[number] += 1
                manager.abort()
        ids.append(call.id)
    manager.abort()
    connection.close()


def test_producers_in_threads_rarely_conflict_and_no_call_is_lost_or_doubled(
    tmp_path: Path,
) -> None:
    """Each put of the 1,000 is one call; how many commits conflict is told with -s."""
    jobs.reset()
    db = ZODB.DB(FileStorage(str(tmp_path / "Data.fs")), pool_size=20)
    site = Site(db)
    site.root["calls"] = Calls()
    site.manager.commit()
    site.root["calls"].put(jobs.note, "opens the hour")
    site.manager.commit()
    ids: list[list[str]] = [[] for _ in range(THREADS)]
    conflicts = [0] * THREADS
    start = threading.Barrier(THREADS)
    threads = [
        threading.Thread(target=produce, args=(db, number, ids[number], conflicts, start))
        for number in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    print(f"{sum(conflicts)} of {THREADS * EACH + sum(conflicts)} commits conflicted")
    site.manager.begin()
    calls = site.root["calls"]
    assert len({each for some in ids for each in some}) == THREADS * EACH
    assert len(calls) == len(site.queue) == THREADS * EACH + 1
    assert sum(conflicts) < THREADS * EACH // 10
    for number in range(THREADS):
        mine = [call.id for call in calls.owned_by(f"user {number}")]
        assert sorted(mine) == sorted(ids[number])

    with running(db, size=3):
        site.until(lambda: calls.counts() == Counts(0, 0, THREADS * EACH + 1, 0), "all calls", 100)
        done = sorted(each for each in jobs.seen if len(each) == 2)
    assert done == sorted((number, count) for number in range(THREADS) for count in range(EACH))
    assert all(call.state is CallState.RESOLVED for call in calls)
    site.close()
    db.close()
