# SPDX-License-Identifier: ZPL-2.1
"""What `zasync.dispatcher.health` concludes from a database."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from tests.support.bench import Bench
from tests.support.clocks import StandingClock
from zasync.dispatcher.health import EXIT_CODES, survey
from zasync.foundation import clock
from zasync.interfaces import KEY, PoisonError
from zasync.job import Job

pytestmark = pytest.mark.usefixtures("standing_clock")


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def refuse(job: Any) -> bool:
    return False


def kinds(bench: Bench) -> tuple[str, list[str]]:
    """The verdict, and the kinds of the problems."""
    bench.begin()
    found = survey(bench.root)
    json.dumps(found)
    for problem in found["problems"]:
        assert problem["what"]
        assert problem["do"]
    return found["health"], [problem["kind"] for problem in found["problems"]]


def put(bench: Bench, *args: Any) -> Any:
    job = bench.queue.put(Job(*(args or (len, "abc"))))
    bench.commit()
    return job


def ping(bench: Bench) -> None:
    bench.record.ping()
    bench.commit()


def test_all_is_well_while_jobs_are_new_and_a_dispatcher_lives(bench: Bench) -> None:
    assert bench.record.activated
    job = put(bench)
    assert kinds(bench) == ("healthy", [])
    (queue,) = survey(bench.root)["queues"]
    assert queue["waiting"] == 1
    assert queue["oldest_due"]["job"] == job.oid
    assert queue["oldest_due"]["callable"] == "builtins.len"
    (dispatcher,) = queue["dispatchers"]
    assert dispatcher["state"] == "running"
    assert dispatcher["places"] == 100


def test_exit_codes_follow_the_verdict() -> None:
    assert EXIT_CODES == {"healthy": 0, "degraded": 1, "broken": 2}


def test_a_database_without_queues_is_told(bench: Bench) -> None:
    del bench.root[KEY]
    bench.commit()
    assert kinds(bench) == ("degraded", ["no-queues"])


def test_due_jobs_without_any_dispatcher_are_told_at_once(bench: Bench) -> None:
    assert kinds(bench) == ("healthy", [])
    put(bench)
    assert kinds(bench) == ("broken", ["no-dispatcher"])


def test_a_stopped_dispatcher_takes_nothing(bench: Bench) -> None:
    bench.record.deactivate()
    put(bench)
    assert kinds(bench) == ("broken", ["no-dispatcher"])


def test_a_job_that_is_not_due_needs_nobody(bench: Bench, standing_clock: StandingClock) -> None:
    bench.queue.put(Job(len, "abc"), begin_after=standing_clock.now() + timedelta(hours=1))
    bench.commit()
    assert kinds(bench) == ("healthy", [])


def test_the_last_dispatcher_that_dies_breaks_the_queue(
    bench: Bench, standing_clock: StandingClock
) -> None:
    assert bench.record.activated
    put(bench)
    standing_clock.move(seconds=61)
    assert kinds(bench) == ("broken", ["dead-dispatcher", "no-dispatcher"])


def test_a_dead_one_among_others_is_a_smaller_problem(
    bench: Bench, standing_clock: StandingClock
) -> None:
    assert bench.record.activated
    other = bench.queue.dispatchers.register(uuid.uuid4())
    other.activate()
    bench.commit()
    standing_clock.move(seconds=61)
    ping(bench)
    assert kinds(bench) == ("degraded", ["dead-dispatcher"])


def test_pings_of_nobody_say_that_the_storage_does_not_commit(
    bench: Bench, standing_clock: StandingClock
) -> None:
    assert bench.record.activated
    standing_clock.move(seconds=31)
    assert kinds(bench) == ("degraded", ["not-committing"])
    ping(bench)
    assert kinds(bench) == ("healthy", [])


def wait_for_nothing(bench: Bench, standing_clock: StandingClock) -> None:
    """Let the job that lies there be due for longer than is good."""
    standing_clock.move(seconds=31)
    ping(bench)


def test_jobs_without_any_place_are_told(bench: Bench, standing_clock: StandingClock) -> None:
    bench.agent.size = 0
    put(bench)
    wait_for_nothing(bench, standing_clock)
    assert kinds(bench) == ("broken", ["no-places"])


def test_jobs_that_no_filter_takes_are_told(bench: Bench, standing_clock: StandingClock) -> None:
    bench.agent.filter = refuse
    job = put(bench)
    assert kinds(bench) == ("healthy", [])
    wait_for_nothing(bench, standing_clock)
    assert kinds(bench) == ("degraded", ["not-taken"])
    (problem,) = survey(bench.root)["problems"]
    assert f"builtins.len (job {job.oid})" in problem["what"]


def test_jobs_whose_code_is_unknown_are_told(bench: Bench, standing_clock: StandingClock) -> None:
    assert bench.record.activated
    job = put(bench)
    job._names = tuple(name.replace("builtins", "nowhere_to_be_found") for name in job._names)
    bench.commit()
    wait_for_nothing(bench, standing_clock)
    assert kinds(bench) == ("degraded", ["unknown-callable"])


def test_jobs_behind_a_full_quota_or_busy_agents_only_wait(
    bench: Bench, standing_clock: StandingClock
) -> None:
    bench.queue.quotas.create("one", 1)
    for _ in range(2):
        job = Job(len, "abc")
        job.quota_names = ("one",)
        bench.queue.put(job)
    assert bench.agent.claimJob() is not None
    bench.commit()
    wait_for_nothing(bench, standing_clock)
    assert kinds(bench) == ("healthy", [])
    put(bench)
    bench.agent.size = 1
    bench.commit()
    wait_for_nothing(bench, standing_clock)
    assert kinds(bench) == ("healthy", [])


def test_jobs_that_run_for_too_long_are_told_as_their_dispatcher_says(
    bench: Bench, standing_clock: StandingClock
) -> None:
    bench.agent.size = 2
    ping = bench.record.last_ping
    ping.overdue = ((17, "main", "main", clock.now_micros()),)
    bench.commit()
    standing_clock.move(seconds=5)
    assert kinds(bench) == ("degraded", ["overdue"])
    (dispatcher,) = survey(bench.root)["queues"][0]["dispatchers"]
    assert dispatcher["overdue"] == [
        {"job": 17, "database": "main", "agent": "main", "seconds": 5.0}
    ]
    bench.agent.size = 1
    assert survey(bench.root)["health"] == "broken", "no other place is left"


def test_parked_jobs_are_told(bench: Bench) -> None:
    job = bench.stored(abs, 1)
    job.fail(PoisonError("died three times"))
    bench.queue.parked.add(job)
    assert [problem["kind"] for problem in survey(bench.root)["problems"]] == ["parked"]
