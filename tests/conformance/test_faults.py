# SPDX-License-Identifier: ZPL-2.1
"""Servers that die or cut their clients off, commits that wait, and processes that are killed."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.conformance import work
from tests.conformance.places import Place
from tests.support.processes import Other, other_process
from tests.support.running import Site, running, until
from zasync.agent import Agent
from zasync.job import Job

COUNT = 24
SECONDS = 60  # for a server to come back, and for all that waited for it

# A dispatcher whose jobs never end, for the queue of the database in the first argument.
DISPATCHER = """\
import os, sys, uuid
from tests.conformance import work
from tests.support.running import running
from zasync.storage import open_database
os.environ[work.LOST] = "1"
with running(open_database(sys.argv[1]), uuid=uuid.UUID(sys.argv[2]), poll_interval=0.1):
    print("running", flush=True)
    sys.stdin.read()
"""


def patiently(site: Site, look: Callable[[], Any], what: str) -> Any:
    """Wait until `look()` is true in a new transaction, whatever the storage says meanwhile."""

    def attempt() -> Any:
        try:
            return site.sees(look)
        except Exception:  # the storage is away
            site.manager.abort()
            return None

    return until(attempt, what, SECONDS)


def transfers(site: Site, count: int = COUNT) -> list[Any]:
    jobs: list[Any] = site.commit(
        lambda: [
            site.queue.put(Job(work.transfer, number, 10), retry_policy_factory=work.patient)
            for number in range(count)
        ]
    )
    return jobs


def assert_each_took_effect_once(site: Site, jobs: list[Any]) -> None:
    count = len(jobs)
    patiently(
        site,
        lambda: all(job.status == "completed-status" for job in jobs),
        "the completion of all jobs",
    )
    assert patiently(site, lambda: dict(site.root["marks"]), "the marks") == dict.fromkeys(
        range(count), 1
    )
    balances = site.sees(lambda: [account.balance for account in site.root["accounts"]])
    assert balances == [-10 * count, 10 * count]
    assert [job for job in jobs if site.sees(lambda job=job: job.result) not in range(count)] == []


@pytest.mark.where("cut off")
def test_clients_that_are_cut_off_while_jobs_run_do_each_once(client: Site, storage: Place) -> None:
    with running(storage.open(), poll_interval=0.2, size=2):
        jobs = transfers(client)
        for done in range(2, COUNT, 5):
            until(lambda done=done: len(work.begun) > done, "some jobs to begin", SECONDS)
            storage.cut_off()
        assert_each_took_effect_once(client, jobs)


@pytest.mark.where("server")
def test_a_server_that_is_killed_while_jobs_run_does_each_once(
    client: Site, storage: Place
) -> None:
    with running(storage.open(), poll_interval=0.2, size=2):
        jobs = transfers(client)
        for done in (2, 12):
            until(lambda done=done: len(work.begun) > done, "some jobs to begin", SECONDS)
            storage.server.kill()
            storage.server.start()
        assert_each_took_effect_once(client, jobs)


@pytest.mark.where("hold commits")
def test_a_commit_that_must_wait_for_too_long_is_done_later(client: Site, storage: Place) -> None:
    with running(storage.open(), poll_interval=0.2):
        job = client.put(Job(work.wait_at, "lock", 1), retry_policy_factory=work.patient)
        assert work.gate("lock reached").wait(15)
        with storage.hold_commits():
            work.gate("lock").set()
            until(lambda: len(work.begun) > 1, "the second attempt", 30)
        client.completed(job, seconds=60)
    assert client.sees(lambda: dict(client.root["marks"])) == {1: 1}


@pytest.mark.where("forbid writes")
def test_a_server_that_takes_no_writes_for_a_while_only_delays(
    client: Site, storage: Place
) -> None:
    with running(storage.open(), poll_interval=0.2):
        job = client.put(Job(work.wait_at, "write", 1), retry_policy_factory=work.patient)
        assert work.gate("write reached").wait(15)
        with storage.forbid_writes():
            work.gate("write").set()
            until(lambda: len(work.begun) > 1, "the second attempt", SECONDS)
        patiently(client, lambda: job.status == "completed-status", "the job's completion")
    assert patiently(client, lambda: dict(client.root["marks"]), "the marks") == {1: 1}


@pytest.mark.process
@pytest.mark.where("processes")
def test_the_jobs_of_a_process_that_is_killed_are_done_by_another(
    client: Site, storage: Place
) -> None:
    doomed, survivor = uuid.uuid4(), uuid.uuid4()
    client.commit(lambda: register(client, doomed, size=3))
    with other_process(DISPATCHER, storage.uri, str(doomed)) as other:
        assert other.line() == "running"
        jobs = client.commit(
            lambda: [client.queue.put(Job(work.end_elsewhere, number)) for number in range(6)]
        )
        begun = {int(other.line()) for _ in range(3)}
        kill(other)
    client.commit(lambda: register(client, survivor, size=3))
    with running(storage.open(), uuid=survivor, poll_interval=0.2):
        client.completed(*jobs, seconds=60)
    assert len(begun) == 3
    assert client.sees(lambda: dict(client.root["marks"])) == dict.fromkeys(range(6), 1)


def register(site: Site, name: uuid.UUID, size: int) -> None:
    """Make the record of a dispatcher that is soon believed dead."""
    record = site.queue.dispatchers.register(name)
    record.ping_interval = timedelta(seconds=0.3)
    record.ping_death_interval = timedelta(seconds=1.5)
    record["main"] = Agent(size=size)


def kill(other: Other) -> None:
    assert other.pid != os.getpid()
    other.kill()
