# SPDX-License-Identifier: ZPL-2.1
"""`zasync status`: right numbers, also of a file that another process has open."""

import json
from datetime import datetime

import pytest

from tests.support.running import until
from zasync.interfaces import KEY

from .commands import Desk, root_of

pytestmark = pytest.mark.process


def test_the_numbers_are_those_of_the_database_that_a_worker_has_open(desk: Desk) -> None:
    for call in (["add", 1], ["fail"], ["hold", '"held"'], ["add", 4]):
        desk.done("put", "--db", "Data.fs", f"application:{call[0]}", *call[1:])
    with root_of(str(desk.path("Data.fs"))) as root:
        root[KEY][""].quotas.create("licences", 3)
        root._p_jar.transaction_manager.commit()
    with desk.started("worker", "--db", "Data.fs", "--size", 1) as worker:
        until(lambda: desk.lines("held"), "the third job to begin")
        found = json.loads(desk.done("status", "--db", "Data.fs", "--json"))
        table = desk.done("status", "--db", "Data.fs")
        desk.path("held.go").touch()
        worker.signal()
        assert worker.ends() == 0
    (queue,) = found["queues"]
    assert queue["name"] == ""
    counts = [queue[key] for key in ("waiting", "active", "completed", "failed")]
    assert counts == [1, 1, 2, 1]
    assert queue["quotas"] == [{"name": "licences", "size": 3, "taken": 0}]
    (dispatcher,) = queue["dispatchers"]
    assert dispatcher["state"] == "running"
    assert 0 <= dispatcher["ping_age"] < 60
    assert datetime.fromisoformat(dispatcher["last_ping"]).utcoffset().total_seconds() == 0
    (agent,) = dispatcher["agents"]
    assert (agent["name"], agent["size"], agent["running"]) == ("main", 1, 1)
    assert found["problems"] == []
    assert dispatcher["uuid"] in table
    assert "licences" in table


def test_jobs_that_nobody_works_are_a_problem(desk: Desk) -> None:
    desk.done("put", "--db", "Data.fs", "application:add", 1)
    found = json.loads(desk.done("status", "--db", "Data.fs", "--json"))
    assert found["problems"] == ["jobs wait in queue '', and no dispatcher works it"]
    assert "! jobs wait in queue ''" in desk.done("status", "--db", "Data.fs")
