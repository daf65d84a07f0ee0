# SPDX-License-Identifier: ZPL-2.1
"""`zasync put`, alone over a file and with a worker over ZEO."""

import json
from collections.abc import Iterator

import pytest

from tests.support.zeo import ZeoServer
from zasync.interfaces import KEY

from .commands import Desk, root_of

pytestmark = pytest.mark.process


@pytest.fixture
def served(desk: Desk, zeo_server: ZeoServer) -> Iterator[str]:
    """The URI of a database that a worker works."""
    with desk.started("worker", "--db", zeo_server.uri) as worker:
        worker.says("works queue")
        yield zeo_server.uri


def test_a_job_that_is_put_lies_in_the_queue_with_its_arguments(desk: Desk) -> None:
    printed = desk.done("put", "--db", "Data.fs", "application:add", "1", "second=2")
    with root_of(str(desk.path("Data.fs"))) as root:
        (job,) = root[KEY][""]
        assert (job.callable_name, job.args, job.kwargs) == ("application.add", [1], {"second": 2})
        assert printed == f"put job {job.oid} in queue '' of Data.fs\n"


def test_who_waits_gets_the_result_as_json(desk: Desk, served: str) -> None:
    assert json.loads(desk.done("put", "--db", served, "--wait", "application:add", "-1", 3)) == 2


def test_who_waits_for_a_job_that_fails_gets_its_traceback(desk: Desk, served: str) -> None:
    ended = desk.run("put", "--db", served, "--wait", "application:fail")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "ValueError: no words for it" in ended.stderr
    assert "Traceback" in ended.stderr


def test_a_result_that_is_not_json_is_printed_as_its_repr(desk: Desk, served: str) -> None:
    ended = desk.run("put", "--db", served, "--wait", "application:thing")
    assert (ended.returncode, ended.stdout) == (0, '"(1+2j)"\n')
    assert ended.stderr == "zasync: the result is not JSON; this is its repr\n"


def test_waiting_ends_with_the_timeout_and_the_job_stays(desk: Desk, zeo_server: ZeoServer) -> None:
    ended = desk.run(
        "put", "--db", zeo_server.uri, "--wait", "--timeout", "0.2", "application:add", 1
    )
    assert (ended.returncode, ended.stdout) == (124, "")
    assert "has no result yet; it is pending-status" in ended.stderr
    found = json.loads(desk.done("status", "--db", zeo_server.uri, "--json"))
    assert found["queues"][0]["waiting"] == 1
