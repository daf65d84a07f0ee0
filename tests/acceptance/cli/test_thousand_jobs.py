# SPDX-License-Identifier: ZPL-2.1
"""A client puts 1,000 jobs through ZEO while two workers run them; each is performed once.

The ZEO server is a process in which zasync cannot be imported.
"""

import subprocess
import sys
from typing import Any

import pytest
from BTrees.IOBTree import IOBTree
from BTrees.Length import Length

from tests.support.running import until
from tests.support.zeo import ZeoServer
from zasync.cli.opening import look
from zasync.cli.status import survey
from zasync.interfaces import KEY

from .commands import SECONDS, Desk, connection_to

pytestmark = [pytest.mark.process, pytest.mark.zeo]

JOBS = 1000
CLIENT = """\
import sys
import transaction
import application
from zasync.interfaces import KEY
from zasync.job import Job
from zasync.storage import close_database, open_database

db = open_database(sys.argv[1])
manager = transaction.TransactionManager()
connection = db.open(transaction_manager=manager)
jobs = int(sys.argv[2])
for start in range(0, jobs, 10):
    for attempt in manager.attempts(20):
        with attempt:
            queue = connection.root()[KEY][""]
            for number in range(start, start + 10):
                queue.put(Job(application.count, number))
connection.close()
close_database(db)
print("put", jobs)
"""


def test_each_of_a_thousand_jobs_is_performed_exactly_once(
    desk: Desk, zeo_server: ZeoServer
) -> None:
    assert "zasync cannot be imported here" in zeo_server.log()
    with connection_to(zeo_server.uri) as connection:
        connection.root()["ledger"] = IOBTree({number: Length() for number in range(JOBS)})
        connection.transaction_manager.commit()
    with (
        desk.started("worker", "--db", zeo_server.uri) as one,
        desk.started("worker", "--db", zeo_server.uri) as two,
    ):
        for worker in (one, two):
            worker.says("works queue")
        assert client(desk, zeo_server.uri) == f"put {JOBS}\n"
        with connection_to(zeo_server.uri) as connection:
            until(lambda: counts(connection) == (0, 0, JOBS), "all jobs", SECONDS)
        for worker in (one, two):
            worker.signal()
        assert [one.ends(), two.ends()] == [0, 0]
    with connection_to(zeo_server.uri) as connection:
        performed = [length() for length in connection.root()["ledger"].values()]
        records = list(connection.root()[KEY][""].dispatchers.values())
    assert performed == [1] * JOBS
    assert len(records) == 2


def client(desk: Desk, uri: str) -> str:
    """Put the jobs in a process of their own; answers what it printed."""
    return subprocess.run(
        [sys.executable, "-c", CLIENT, uri, str(JOBS)],
        cwd=desk.directory,
        env=desk.environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=SECONDS,
        check=True,
    ).stdout


def counts(connection: Any) -> tuple[int, int, int]:
    """How many jobs have failed, wait or are performed, and are completed."""
    (queue,) = survey(look(connection))["queues"]
    return queue["failed"], queue["waiting"] + queue["active"], queue["completed"]
