# SPDX-License-Identifier: ZPL-2.1
"""What a plain job may cost, counted and never timed: a change that costs more fails here.

The bounds leave room for a machine that is busy, where a claim finds fewer places free.  How many
polls a burst makes is in `tests/integration/dispatcher/test_polling.py`, what a claim loads in
`tests/integration/queue/test_loads.py`.
"""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import counting
from benchmarks.worker import Commits

pytestmark = pytest.mark.usefixtures("own_tally")


def test_a_job_of_a_backlog_costs_little_more_than_one_commit() -> None:
    put, worked = counting.backlog(jobs=400)

    assert put.commits == 0.01
    assert put.records <= 1.5
    assert worked.commits <= 1.5
    assert put.records + worked.records <= 5.5
    assert put.bytes + worked.bytes <= 2200
    assert worked.loads <= 3.5


def test_a_job_that_comes_alone_costs_a_claim_and_a_commit() -> None:
    alone = counting.one_at_a_time(jobs=50)

    assert alone.commits <= 3.2  # its put, its claim, its end
    assert alone.records <= 13
    assert alone.bytes <= 3700


def test_a_put_makes_one_record() -> None:
    assert counting.records_of_a_plain_job() == 1


def test_an_idle_dispatcher_writes_its_pings_only() -> None:
    assert counting.idle(hours=0.1) <= 1_400_000


def test_a_dispatcher_alone_meets_no_conflict(commits: Commits) -> None:
    counting.backlog(jobs=200)

    assert commits.committed > 200
    assert commits.conflicts == 0


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> Any:
    from ZODB.Connection import Connection

    for name in ("tpc_finish", "commit", "tpc_vote"):
        monkeypatch.setattr(Connection, name, getattr(Connection, name))  # put back at the end
    commits = Commits()
    commits.watch()
    return commits
