# SPDX-License-Identifier: ZPL-2.1
"""A process dies at each of its commits, before or after it takes effect; others go on.

Whatever the point, each effect is committed once, each callback is called once, and nothing waits
for ever.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from persistent.mapping import PersistentMapping
from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import ConflictError

from tests.support.bench import Bench
from zasync.interfaces import COMPLETED
from zasync.job import Job, NeverRetry, parallel, serial
from zasync.testing.faults import Killed, Point

Scenario = Callable[[Bench], list[Any]]


class Ledger(PersistentMapping):
    """Counts what was committed, by name."""

    def note(self, name: str, *args: Any) -> str:
        self[name] = self.get(name, 0) + 1
        return name

    def returns_job(self, name: str) -> Any:
        self.note(name)
        return Job(self.note, f"{name} inner")

    def returns_deep_job(self, name: str) -> Any:
        self.note(name)
        return Job(self.returns_job, f"{name} deep")

    def fails(self, name: str, *args: Any) -> None:
        self.note(name)
        raise ValueError(name)


def ledger(bench: Bench) -> Any:
    if "ledger" not in bench.root:
        bench.root["ledger"] = Ledger()
        bench.commit()
    return bench.root["ledger"]


def a_job_with_callbacks(bench: Bench) -> list[Any]:
    book = ledger(bench)
    job = bench.queue.put(Job(book.note, "job"))
    job.addCallback(Job(book.note, "first")).addCallback(Job(book.note, "chained"))
    job.addCallbacks(Job(book.note, "success"), Job(book.note, "not this")).addCallback(
        Job(book.note, "after the pair")
    )
    job.addCallback(Job(book.fails, "failing")).addCallbacks(failure=Job(book.note, "handler"))
    return [job]


def a_plain_job(bench: Bench) -> list[Any]:
    return [bench.queue.put(Job(ledger(bench).note, "job"))]


def a_job_that_returns_jobs(bench: Bench) -> list[Any]:
    book = ledger(bench)
    job = bench.queue.put(Job(book.returns_deep_job, "outer"))
    job.addCallback(Job(book.note, "callback"))
    return [job]


def a_callback_that_returns_a_job(bench: Bench) -> list[Any]:
    book = ledger(bench)
    job = bench.queue.put(Job(book.note, "job"))
    job.addCallback(Job(_ignore, book)).addCallback(Job(book.note, "chained"))
    job.addCallback(Job(book.note, "last"))
    return [job]


def _ignore(book: Any, result: Any) -> Any:
    return book.returns_job("callback")


def groups(bench: Bench) -> list[Any]:
    book = ledger(bench)
    inner = parallel(Job(book.note, "a"), Job(book.note, "b"), postprocess=_count)
    group = bench.queue.put(serial(Job(book.note, "first"), inner, Job(book.note, "last")))
    group.addCallback(Job(book.note, "callback"))
    return [group, inner, *group.args, *inner.args]


def _count(*jobs: Any) -> int:
    return len(jobs)


def an_expired_job(bench: Bench) -> list[Any]:
    from datetime import timedelta

    from zasync.foundation import clock

    book = ledger(bench)
    job = bench.queue.put(Job(book.note, "never"), begin_by=timedelta(seconds=1))
    job.addCallback(Job(book.note, "callback"))
    bench.commit()
    clock.current().move(seconds=5)  # type: ignore[attr-defined]
    return [job]


EXPECTED = {
    a_plain_job: {"job"},
    a_job_with_callbacks: {"job", "first", "chained", "success", "after the pair", "handler"},
    a_job_that_returns_jobs: {"outer", "outer deep", "outer deep inner", "callback"},
    a_callback_that_returns_a_job: {"job", "callback", "callback inner", "chained", "last"},
    groups: {"first", "a", "b", "last", "callback"},
    an_expired_job: {"callback"},
}
SCENARIOS = pytest.mark.parametrize("scenario", EXPECTED, ids=lambda scenario: scenario.__name__)


def work_until_done(bench: Bench) -> None:
    while bench.work():
        pass


def ends_well(bench: Bench, scenario: Scenario, oids: list[bytes]) -> None:
    bench.begin()
    jobs = [bench.connection.get(oid) for oid in oids]
    assert {job.status for job in jobs} == {COMPLETED}, jobs
    assert dict(bench.root["ledger"]) == dict.fromkeys(EXPECTED[scenario], 1)
    assert list(bench.agent) == []
    assert len(bench.queue) == 0


def put(bench: Bench, scenario: Scenario) -> list[bytes]:
    jobs = scenario(bench)
    assert bench.agent is not None
    bench.commit()
    return [job._p_oid for job in jobs]


@SCENARIOS
def test_without_a_fault_each_effect_is_there_once(bench: Bench, scenario: Scenario) -> None:
    oids = put(bench, scenario)

    work_until_done(bench)

    ends_well(bench, scenario, oids)


@SCENARIOS
@pytest.mark.parametrize("point", [Point.BEFORE_FINISH, Point.AFTER_FINISH])
def test_a_death_at_any_commit_loses_and_repeats_nothing(scenario: Scenario, point: str) -> None:
    for number in itertools.count():
        bench = Bench()
        oids = put(bench, scenario)
        fault = bench.storage.fail(point, Killed(), skip=number)
        try:
            work_until_done(bench)
        except Killed:
            bench.restart()
            work_until_done(bench)
        ends_well(bench, scenario, oids)
        bench.close()
        if fault.times:  # there are not so many commits
            assert number > 1
            return


@SCENARIOS
@pytest.mark.slow
def test_two_deaths_at_any_commits_lose_and_repeat_nothing(scenario: Scenario) -> None:
    for first in itertools.count():
        for second in itertools.count(first % 16, 16):  # some of all pairs
            bench = Bench()
            oids = put(bench, scenario)
            fault = bench.storage.fail(Point.AFTER_FINISH, Killed(), skip=first)
            try:
                work_until_done(bench)
            except Killed:
                bench.restart()
            point = (Point.AFTER_FINISH, Point.BEFORE_FINISH)[second % 2]
            again = bench.storage.fail(point, Killed(), skip=second)
            try:
                work_until_done(bench)
            except Killed:
                bench.restart()
                work_until_done(bench)
            ends_well(bench, scenario, oids)
            bench.close()
            if again.times or fault.times:
                break
        if fault.times:
            return


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
    scenario: Scenario, point: str, error: Exception
) -> None:
    for number in itertools.count():
        bench = Bench()
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


def test_work_that_must_not_run_twice_fails_when_it_is_interrupted(bench: Bench) -> None:
    book = ledger(bench)
    job = bench.queue.put(Job(book.note, "job"), retry_policy_factory=NeverRetry)
    job.addCallbacks(failure=Job(book.note, "told"))
    assert bench.agent is not None
    bench.commit()
    oid = job._p_oid
    bench.storage.fail(
        Point.BEFORE_FINISH, Killed(), skip=1
    )  # the start is committed, the end is not

    with pytest.raises(Killed):
        work_until_done(bench)
    bench.restart()
    work_until_done(bench)

    bench.begin()
    assert bench.connection.get(oid).status == COMPLETED
    assert dict(bench.root["ledger"]) == {"told": 1}
