# SPDX-License-Identifier: ZPL-2.1
"""Jobs that kill their process: parked after three deaths, while all others are done, once."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from BTrees.IOBTree import IOBTree
from BTrees.Length import Length

from tests.support.zeo import ZeoServer
from zasync.cli.opening import install_queues
from zasync.interfaces import COMPLETED, KEY, PoisonError
from zasync.job import Job

from .commands import Desk, Started, connection_to

pytestmark = pytest.mark.process

GOOD = 100
LIVES = 10  # processes that are started, at most


@pytest.fixture(params=["sqlite", pytest.param("zeo", marks=pytest.mark.zeo)])
def uri(request: pytest.FixtureRequest, desk: Desk) -> str:
    """A database that several processes share."""
    if request.param == "zeo":
        server: ZeoServer = request.getfixturevalue("zeo_server")
        return str(server.uri)
    return f"sqlite:///?data_dir={desk.path('data')}"


@contextmanager
def application(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The application's module, as the worker imports it."""
    monkeypatch.syspath_prepend(str(desk.directory))
    import application

    yield application


def lives(desk: Desk, uri: str, connection: Any, jobs: list[Any]) -> list[int]:
    """Start a worker again whenever it has died, until all `jobs` are completed.

    Answers the exit codes of those that died.
    """
    codes = []
    for _ in range(LIVES):
        with desk.started("worker", "--db", uri, "--poll-interval", 0.5) as worker:
            if ended(worker, connection, jobs):
                worker.signal()
                assert worker.ends() == 0
                return codes
            codes.append(worker.ends())
    raise AssertionError(f"{LIVES} processes died: {codes}")


def ended(worker: Started, connection: Any, jobs: list[Any]) -> bool:
    """Whether all jobs end before the process does."""
    from tests.support.running import until

    manager = connection.transaction_manager

    def over() -> str | None:
        manager.begin()
        if all(job.status == COMPLETED for job in jobs):
            return "jobs"
        return None if worker.process.poll() is None else "process"

    return bool(until(over, "an end", 60) == "jobs")


def put(connection: Any, number: int, poison: Any) -> list[Any]:
    """Commit `number` good jobs with `poison` in their midst; answers all."""
    import application

    manager = connection.transaction_manager
    manager.begin()
    root = connection.root()
    install_queues(root)
    root["ledger"] = IOBTree({each: Length() for each in range(number)})
    made = [Job(application.count, each) for each in range(number)]
    made.insert(number // 2, poison)
    jobs = [root[KEY][""].put(job) for job in made]
    manager.commit()
    return jobs


@pytest.mark.parametrize("how", ["exit", "SIGSEGV", "SIGKILL"])
def test_one_poison_among_a_hundred_good_jobs(
    desk: Desk, uri: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with application(desk, monkeypatch) as app, connection_to(uri) as connection:
        jobs = put(connection, GOOD, Job(app.die, how))
        poison = jobs[GOOD // 2]

        codes = lives(desk, uri, connection, jobs)

        connection.transaction_manager.begin()
        assert len(codes) == len(desk.lines("deaths")) == 3, codes
        assert [length() for length in connection.root()["ledger"].values()] == [1] * GOOD
        assert not any(job.failed for job in jobs if job is not poison)
        assert list(connection.root()[KEY][""].parked) == [poison]
        assert poison.result.check(PoisonError)
        assert [str(crash["pid"]) for crash in poison.crashes] == desk.lines("deaths")
        assert {crash["host"] for crash in poison.crashes} == {os.uname().nodename}
        assert {crash["progress"] for crash in poison.crashes} == {"the last line"}


def test_a_callback_that_kills_is_parked_and_what_follows_goes_on(
    desk: Desk, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with application(desk, monkeypatch) as app, connection_to(uri) as connection:
        job = Job(app.add, 1)
        poison = job.addCallback(functools.partial(app.callback_that_dies, how="SIGKILL"))
        job.addCallback(app.add)
        handler = poison.addCallbacks(failure=app.thing)
        jobs = put(connection, 20, job)

        codes = lives(desk, uri, connection, jobs)

        connection.transaction_manager.begin()
        assert codes == [-9] * 3
        assert poison.result.check(PoisonError)
        assert [crash["progress"] for crash in poison.crashes] == ["the last line"] * 3
        assert (job.result, job.callbacks[1].result) == (1, 1)
        assert handler.status == COMPLETED
        queue = connection.root()[KEY][""]
        assert list(queue.parked) == [poison]
        assert len(queue) == 0


def test_the_parked_are_shown_put_back_and_discarded(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///?data_dir={desk.path('data')}"
    with application(desk, monkeypatch) as app, connection_to(uri) as connection:
        one, two = Job(app.die, "exit"), Job(app.die, "exit")
        one.crash_limit = two.crash_limit = 1
        put(connection, 1, one)
        lives(desk, uri, connection, [one])
        connection.transaction_manager.begin()
        connection.root()[KEY][""].put(two)
        connection.transaction_manager.commit()
        lives(desk, uri, connection, [two])
        oids = [two.oid, one.oid]
    db = ["--db", uri]

    found = json.loads(desk.done("parked", *db, "--json"))["parked"]
    assert [each["oid"] for each in found] == oids
    assert found[0]["crashes"][0]["progress"] == "the last line"
    shown = desk.done("parked", *db)
    assert "application.die('exit')" in shown
    assert "at 'the last line'" in shown
    status = desk.done("status", *db)
    assert "2 jobs of queue '' are parked" in status

    assert f"discarded job {oids[0]}" in desk.done("parked", *db, "--discard", oids[0])
    assert "no job" in desk.run("parked", *db, "--discard", oids[0]).stderr
    assert "put job" in desk.done("parked", *db, "--put-back", oids[1])
    assert "No job is parked" in desk.done("parked", *db, "--queue", "")
    assert json.loads(desk.done("status", *db, "--json"))["queues"][0]["waiting"] == 1
    assert "put back 0 jobs" in desk.done("parked", *db, "--put-back", "all")
    assert "'all'" in desk.run("parked", *db, "--put-back", "some").stderr
    assert "not both" in desk.run("parked", *db, "--put-back", 1, "--discard", 1).stderr
    assert desk.run("parked", *db, "--queue", "none").returncode != 0
