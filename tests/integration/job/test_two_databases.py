# SPDX-License-Identifier: ZPL-2.1
"""The queue lies in a database of its own; a process dies between its two commits, or near them.

Whatever the order of the storages' sort keys: each effect is committed once, together with the
end of its job, and what a job put, answered or waits for is not lost.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import ConflictError

from tests.integration.job.test_death_at_any_commit import (
    EXPECTED,
    Ledger,
    Scenario,
    a_job_that_returns_jobs,
    a_job_with_callbacks,
    a_plain_job,
    an_expired_job,
    work_until_done,
)
from tests.support.two import QUEUES, TwoBench
from zasync.interfaces import COMPLETED
from zasync.job import Job
from zasync.testing.faults import Killed, Point

ORDERS = pytest.mark.parametrize(
    "order", [("main", QUEUES), (QUEUES, "main")], ids=["data first", "queue first"]
)


class Chain(Ledger):
    """Its methods put further jobs."""

    queue: Any = None

    def puts(self, name: str) -> str:
        self.note(name)
        self["left"] = self.get("left", 0) + 1
        self.queue.put(Job(self.note, f"{name} next"))
        job = self.queue.put(Job(self.note, f"{name} with a callback"))
        job.addCallback(Job(self.note, f"{name} callback"))
        return name


def a_job_that_puts_others(bench: Any) -> list[Any]:
    book = bench.root["ledger"] = Chain()
    book.queue = bench.queue
    bench.commit()
    return [bench.queue.put(Job(book.puts, "job"))]


PUTS = {"job", "left", "job next", "job with a callback", "job callback"}
SCENARIOS = pytest.mark.parametrize(
    "scenario",
    [
        a_plain_job,
        a_job_with_callbacks,
        a_job_that_returns_jobs,
        a_job_that_puts_others,
        an_expired_job,
    ],
    ids=lambda scenario: scenario.__name__,
)


def put(bench: TwoBench, scenario: Scenario) -> list[bytes]:
    jobs = scenario(bench)
    assert bench.agent is not None
    bench.commit()
    return [job._p_oid for job in jobs]


def ends_well(bench: TwoBench, scenario: Scenario, oids: list[bytes]) -> None:
    bench.begin()
    jobs = [bench.home.get(oid) for oid in oids]
    assert {job.status for job in jobs} == {COMPLETED}, jobs
    expected = PUTS if scenario is a_job_that_puts_others else EXPECTED[scenario]
    assert dict(bench.root["ledger"]) == dict.fromkeys(expected, 1)
    assert list(bench.agent) == []
    assert len(bench.queue) == 0


@ORDERS
@SCENARIOS
@pytest.mark.parametrize("point", [Point.VOTE, Point.BEFORE_FINISH, Point.AFTER_FINISH])
def test_a_death_at_any_commit_loses_and_repeats_nothing(
    scenario: Scenario, point: str, order: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    for number in itertools.count():
        bench = TwoBench(order)
        oids = put(bench, scenario)
        fault = bench.storage.fail(point, Killed(), skip=number)
        try:
            work_until_done(bench)
        except Killed:
            bench.restart()
            work_until_done(bench)
        ends_well(bench, scenario, oids)
        bench.close()
        if fault.times:
            break
    assert number > 1
    taken_over = "had committed its changes in main" in caplog.text
    assert taken_over == ((scenario is not an_expired_job and point != Point.VOTE) or taken_over)
    if point == Point.BEFORE_FINISH:
        assert taken_over


@ORDERS
@SCENARIOS
@pytest.mark.parametrize(
    ("point", "error"),
    [
        (Point.AFTER_FINISH, ClientDisconnected("after")),
        (Point.BEFORE_FINISH, ClientDisconnected("before")),
        (Point.VOTE, ConflictError()),
    ],
    ids=["disconnected after", "disconnected before", "conflict"],
)
def test_an_error_of_any_commit_loses_and_repeats_nothing(
    scenario: Scenario, point: str, error: Exception, order: tuple[str, ...]
) -> None:
    for number in itertools.count():
        bench = TwoBench(order)
        oids = put(bench, scenario)
        fault = bench.storage.fail(point, error, skip=number)
        try:
            work_until_done(bench)
        except type(error):  # of the claim's commit, which is the caller's
            bench.manager.abort()
            bench.restart()
            work_until_done(bench)
        ends_well(bench, scenario, oids)
        bench.close()
        if fault.times:
            return
