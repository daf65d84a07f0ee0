# SPDX-License-Identifier: ZPL-2.1
"""Dispatchers and producers over a real ZEO server, which cannot import zasync."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from BTrees.IOBTree import IOBTree

from tests.integration.dispatcher import jobs_for_tests as jobs
from tests.support.running import Site, running, until
from tests.support.zeo import ZeoServer
from zasync.job import Job
from zasync.storage import close_database, open_database

pytestmark = pytest.mark.zeo


@pytest.fixture
def client(zeo_server: ZeoServer) -> Iterator[Site]:
    """A producer with a connection of its own to the server."""
    jobs.reset()
    db = open_database(zeo_server.uri)
    site = Site(db)
    yield site
    for gate in jobs.gates.values():
        gate.set()
    site.close()
    close_database(db)


@pytest.fixture
def worker_db(client: Site, zeo_server: ZeoServer) -> Iterator[Any]:
    """The database as the dispatcher's process sees it."""
    db = open_database(zeo_server.uri, wait=timedelta(seconds=2))
    yield db
    close_database(db)


def test_a_put_by_another_client_wakes_the_dispatcher(client: Site, worker_db: Any) -> None:
    with running(worker_db, poll_interval=3600):
        for number in range(5):
            job = client.put(Job(jobs.note, number))
            client.completed(job, seconds=10)


def test_the_tap_is_taken_out_when_the_dispatcher_stops(client: Site, worker_db: Any) -> None:
    adapter = worker_db._mvcc_storage
    with running(worker_db):
        assert worker_db.storage._db is not adapter
    assert worker_db.storage._db is adapter


def test_work_goes_on_after_the_server_was_killed_and_started_again(
    client: Site, worker_db: Any, zeo_server: ZeoServer
) -> None:
    with running(worker_db, poll_interval=0.1):
        first = [client.put(Job(jobs.note, number)) for number in range(5)]
        client.completed(*first)
        zeo_server.kill()
        zeo_server.start()

        def put_again() -> Any:
            try:
                return client.put(Job(jobs.note, "after"))
            except Exception:  # not reconnected yet
                client.manager.abort()
                return None

        after = until(put_again, "the reconnection")
        client.completed(after, seconds=30)
    assert after.result == "after"


def test_two_dispatchers_share_the_work_and_nothing_is_done_twice(
    client: Site, worker_db: Any, zeo_server: ZeoServer
) -> None:
    second_db = open_database(zeo_server.uri)
    client.commit(lambda: client.root.__setitem__("marks", IOBTree()))
    with running(worker_db), running(second_db):
        put = client.commit(
            lambda: [client.queue.put(Job(jobs.leave_a_mark, number)) for number in range(100)]
        )
        client.completed(*put, seconds=60)
    close_database(second_db)
    marks = client.root["marks"]
    assert sorted(marks) == list(range(100))
    assert set(marks.values()) == {1}
