# SPDX-License-Identifier: ZPL-2.1
"""Jobs that kill their process: parked after three deaths, while all others are done, once."""

from __future__ import annotations

import functools
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


def sqlite(desk: Desk) -> str:
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
    """Whether all jobs, and what repairs them, end before the process does."""
    from tests.support.running import until

    manager = connection.transaction_manager

    def over() -> str | None:
        manager.begin()
        queue = connection.root()[KEY][""]
        held = sum(len(agent) for each in queue.dispatchers.values() for agent in each.values())
        if not len(queue) and not held and all(job.status == COMPLETED for job in jobs):
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


@pytest.mark.parametrize("how", ["exit", "SIGSEGV"])
def test_one_poison_among_a_hundred_good_jobs(
    desk: Desk, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_poison(desk, sqlite(desk), how, monkeypatch)


@pytest.mark.zeo
def test_the_same_over_zeo(
    desk: Desk, zeo_server: ZeoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_poison(desk, zeo_server.uri, "SIGKILL", monkeypatch)


def one_poison(desk: Desk, uri: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = sqlite(desk)
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
