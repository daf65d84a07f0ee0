# SPDX-License-Identifier: ZPL-2.1
"""A real process is killed between the commits of its two databases; the next one goes on."""

from __future__ import annotations

import signal
import uuid
from pathlib import Path

import pytest

from tests.integration.job.test_two_databases import PUTS, Chain
from tests.support.processes import SECONDS, other_process, wait_for_the_end_of
from tests.support.running import Site, running
from zasync.interfaces import COMPLETED, KEY
from zasync.job import Job
from zasync.job.marker import MARKERS
from zasync.queue import Queue, Queues
from zasync.storage import close_database, open_database

CONFIG = """\
<zodb main>
  <filestorage>
    path {data}
  </filestorage>
</zodb>
<zodb async>
  <filestorage>
    path {queue}
  </filestorage>
</zodb>
"""
UUID = uuid.UUID(int=77)

# Runs a dispatcher on the databases of its first argument, and dies in the middle of a commit.
DIES_BETWEEN = """\
import os, signal, sys, uuid
from tests.support.running import running
from zasync.storage import open_database
from zasync.testing import fail_points

def die():
    os.kill(os.getpid(), signal.SIGKILL)

fail_points.arm("run.half_committed", die)
with running(open_database(sys.argv[1]), uuid=uuid.UUID(int=77)):
    sys.stdin.read()
"""


@pytest.fixture(params=[("a.fs", "b.fs"), ("b.fs", "a.fs")], ids=["data first", "queue first"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    data, queue = request.param
    path = tmp_path / "two.conf"
    path.write_text(CONFIG.format(data=tmp_path / data, queue=tmp_path / queue))
    return f"zconfig://{path}"


def make_queues(config: str) -> None:
    """The layout of `multidb_queue_installer`, and a job that changes the data and puts others."""
    db = open_database(config)
    with db.transaction() as connection:
        root, home = connection.root(), connection.get_connection("async")
        root[KEY] = home.root()[KEY] = Queues()
        home.add(root[KEY])
        root[KEY][""] = Queue()
    with db.transaction() as connection:
        root = connection.root()
        root["ledger"] = Chain()
        connection.add(root["ledger"])
        root["ledger"].queue = root[KEY][""]
        root["job"] = root[KEY][""].put(Job(root["ledger"].puts, "job"))
    close_database(db)


def test_a_job_that_was_killed_between_two_file_storages_has_its_effects_once(config: str) -> None:
    make_queues(config)
    with other_process(DIES_BETWEEN, config) as other:
        assert wait_for_the_end_of(other.pid)
        assert other._process.wait(SECONDS) == -signal.SIGKILL

    db = open_database(config)
    site = Site(db)
    assert site.root["ledger"]["job"] == 1  # the one side is there
    assert site.root["job"].status != COMPLETED  # the other is not
    with running(db, agents=False, uuid=UUID):
        site.completed(site.root["job"])
        site.until(lambda: set(site.root["ledger"]) == PUTS, "the jobs that it put")
        site.until(lambda: not len(site.queue), "an empty queue")

    assert dict(site.sees(lambda: site.root["ledger"])) == dict.fromkeys(PUTS, 1)
    assert site.root["job"].result == "job"
    assert len(list(site.root[MARKERS].present())) <= 4
    site.close()
    close_database(db)
