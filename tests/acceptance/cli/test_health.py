# SPDX-License-Identifier: ZPL-2.1
"""`zasync health`: one line and an exit code, in bounded time."""

import json
import time
from typing import Any

import pytest

from tests.support.running import until
from tests.support.zeo import ZeoServer

from .commands import Desk

pytestmark = pytest.mark.process


def health(desk: Desk, uri: str, *options: object) -> tuple[int, Any]:
    """Exit code, and what the line says."""
    ended = desk.run("health", "--db", uri, *options)
    assert ended.stderr == ""
    (line,) = ended.stdout.splitlines()
    found = json.loads(line)
    assert ended.returncode == {"healthy": 0, "degraded": 1, "broken": 2}[found["health"]]
    return ended.returncode, found


def kinds(found: Any) -> list[str]:
    return [problem["kind"] for problem in found["problems"]]


def test_jobs_that_nobody_works_break_it_and_a_worker_heals_it(desk: Desk) -> None:
    desk.done("put", "--db", "Data.fs", "application:hold", '"held"')
    code, found = health(desk, "Data.fs")
    assert (code, kinds(found)) == (2, ["no-dispatcher"])
    assert found["problems"][0]["do"] == "start a worker"
    with desk.started("worker", "--db", "Data.fs", "--size", 1) as worker:
        until(lambda: desk.lines("held"), "the job to begin")
        code, found = health(desk, "Data.fs")
        assert (code, kinds(found)) == (0, [])
        (dispatcher,) = found["queues"][0]["dispatchers"]
        assert (dispatcher["places"], dispatcher["taken"]) == (1, 1)
        desk.path("held.go").touch()
        worker.signal()
        assert worker.ends() == 0
    assert health(desk, "Data.fs")[0] == 0, "nothing is to be done, and nobody was to do it"


def test_jobs_without_a_place_are_told(desk: Desk) -> None:
    desk.done("put", "--db", "Data.fs", "application:add", 1)
    with desk.started("worker", "--db", "Data.fs", "--size", 0) as worker:
        worker.says("works queue")
        code, found = health(desk, "Data.fs", "--patience", 0)
        assert (code, kinds(found)) == (2, ["no-places"])
        worker.signal()
        assert worker.ends() == 0


def test_a_database_that_is_not_there_is_broken(desk: Desk) -> None:
    code, found = health(desk, "nowhere.fs")
    assert (code, kinds(found)) == (2, ["unreachable"])
    assert "nowhere.fs" in found["problems"][0]["what"]


@pytest.mark.zeo
def test_a_server_that_says_nothing_any_more_is_broken_in_time(
    desk: Desk, zeo_server: ZeoServer
) -> None:
    desk.done("put", "--db", zeo_server.uri, "application:add", 1)
    zeo_server.freeze()
    try:
        began = time.monotonic()
        code, found = health(desk, zeo_server.uri, "--timeout", 2)
        assert time.monotonic() - began < 15
    finally:
        zeo_server.thaw()
    assert code == 2
    assert kinds(found)[0] in ("timeout", "unreachable")


@pytest.mark.zeo
def test_a_worker_whose_server_says_nothing_any_more_ends_in_time_and_says_what_it_left(
    desk: Desk, zeo_server: ZeoServer
) -> None:
    desk.done("put", "--db", zeo_server.uri, "application:hold", '"held"')
    arguments = ("--db", zeo_server.uri, "--grace", 1, "--poll-interval", 0.2)
    with desk.started("worker", *arguments) as worker:
        until(lambda: desk.lines("held"), "the job to begin")
        zeo_server.freeze()
        try:
            began = time.monotonic()
            worker.signal()
            assert worker.ends() == 1
            assert time.monotonic() - began < 1 + 10
        finally:
            zeo_server.thaw()
        assert "could not be handed back" in worker.output
    desk.path("held.go").touch()
    with desk.started("worker", *arguments) as worker:
        until(lambda: len(desk.lines("held")) == 2, "the job to begin again")
        worker.signal()
        assert worker.ends() == 0
