# SPDX-License-Identifier: ZPL-2.1
"""Hints over PostgreSQL's LISTEN and NOTIFY, between databases opened as two processes do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ZODB

from tests.integration.dispatcher import jobs_for_tests as jobs
from tests.support.postgres import PostgresServer
from tests.support.processes import other_process, wait_for_the_end_of
from tests.support.running import Site, running, until
from zasync.job import Job
from zasync.storage import (
    close_database,
    hear_others,
    notices,
    open_database,
    relstorage,
    tell_others,
)
from zasync.storage.uri import normalised

pytestmark = pytest.mark.postgres
NEVER = 3600  # seconds: a poll interval at which nothing is owed to polling
APPLICATION = "zasync notices"

PUT_ONE_AND_LEAVE = """\
import sys
import transaction
from tests.integration.dispatcher import jobs_for_tests as jobs
from zasync.interfaces import KEY
from zasync.job import Job
from zasync.storage import open_database
db = open_database(sys.argv[1])
db.open().root()[KEY][""].put(Job(jobs.note, "farewell"))
transaction.commit()
"""


@pytest.fixture
def name(postgres_server: PostgresServer) -> str:
    return postgres_server.create_database()


@pytest.fixture
def uri(postgres_server: PostgresServer, name: str) -> str:
    return postgres_server.uri(name, keep_history="false")


@pytest.fixture
def client(uri: str) -> Iterator[Site]:
    """What puts."""
    jobs.reset()
    db = open_database(uri)
    site = Site(db)
    yield site
    site.close()
    close_database(db)


@pytest.fixture
def worker_db(client: Site, uri: str) -> Iterator[Any]:
    """The database as the dispatcher's process sees it."""
    db = open_database(uri)
    yield db
    close_database(db)


def sessions(server: PostgresServer, name: str) -> list[int]:
    """The numbers of the server's processes that serve our connections for notices."""
    rows = server.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = %s AND application_name = %s",
        name,
        APPLICATION,
    )
    return [pid for (pid,) in rows]


def put(client: Site, *values: Any) -> Any:
    """Put a job as an application does that tries again when its server has gone."""

    def attempt() -> Any:
        try:
            return client.put(Job(jobs.note, *values))
        except Exception:  # the server has not come back yet
            client.manager.abort()
            return None

    return until(attempt, "the put")


def test_a_put_by_another_process_wakes_the_dispatcher(client: Site, worker_db: Any) -> None:
    with running(worker_db, poll_interval=NEVER):
        for number in range(5):
            client.completed(client.put(Job(jobs.note, number)))


def test_a_process_that_puts_and_ends_at_once_has_told_it(
    client: Site, worker_db: Any, uri: str
) -> None:
    with running(worker_db, poll_interval=NEVER), other_process(PUT_ONE_AND_LEAVE, uri) as other:
        assert wait_for_the_end_of(other.pid)
        until(lambda: jobs.seen == [("farewell",)], "the job of a process that is gone")


def test_what_nobody_told_is_found_by_the_poll(client: Site, worker_db: Any, uri: str) -> None:
    make_storage, _ = relstorage.resolved(relstorage.prepared(normalised(uri), 10))
    silent_db = ZODB.DB(make_storage())
    silent = Site(silent_db)
    with running(worker_db, poll_interval=0.3):
        silent.completed(silent.put(Job(jobs.note, 1)))
    silent.close()
    silent_db.close()


def test_a_listener_that_was_cut_off_comes_back(
    client: Site,
    worker_db: Any,
    postgres_server: PostgresServer,
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "zasync.events")
    with running(worker_db, poll_interval=NEVER):
        client.completed(client.put(Job(jobs.note, 1)))
        before = set(sessions(postgres_server, name))
        assert len(before) == 2
        assert postgres_server.terminate_clients(name, APPLICATION) == 2
        until(lambda: "is back" in caplog.text, "the listener's return")
        client.completed(client.put(Job(jobs.note, 2)))
        assert before.isdisjoint(sessions(postgres_server, name))
    assert "polls find the work" in caplog.text


@pytest.mark.parametrize("end", ["kill", "restart"])
def test_a_listener_comes_back_with_its_server(
    client: Site, worker_db: Any, postgres_server: PostgresServer, end: str
) -> None:
    with running(worker_db, poll_interval=NEVER):
        client.completed(client.put(Job(jobs.note, "before")))
        getattr(postgres_server, end)()
        postgres_server.start()
        after = put(client, "after")
        until(lambda: ("after",) in jobs.seen, "the job that was put after", 30)
        client.completed(after)


def test_a_frozen_server_holds_up_nobody(
    client: Site, worker_db: Any, postgres_server: PostgresServer
) -> None:
    client.put(Job(jobs.note, 1))
    postgres_server.freeze()
    try:
        done = threading.Event()
        ringing = threading.Thread(target=lambda: (ring(client.db), done.set()))
        ringing.start()
        assert done.wait(5)
        ringing.join(5)
    finally:
        postgres_server.thaw()


def ring(db: Any) -> None:
    from zasync.foundation import wakeup

    wakeup.ring(db)


@pytest.fixture
def heard() -> Iterator[Callable[[Any], threading.Event]]:
    """`heard(db)` is an event that is set when another process puts into `db`."""
    stops = []

    def start(db: Any) -> threading.Event:
        event = threading.Event()
        stops.append(hear_others(db, event.set))
        until(event.is_set, "the connection")  # each new connection wakes once
        event.clear()
        return event

    yield start
    for stop in stops:
        stop()


def test_each_hears_the_others_of_its_database_but_not_itself(
    client: Site, worker_db: Any, postgres_server: PostgresServer, heard: Any
) -> None:
    elsewhere = open_database(postgres_server.uri(postgres_server.create_database()))
    own, other, stranger = heard(client.db), heard(worker_db), heard(elsewhere)

    ring(client.db)

    assert other.wait(15)
    ring(worker_db)
    assert own.wait(15)
    own.clear()
    other.clear()
    ring(client.db)
    assert other.wait(15)
    assert not own.is_set()
    assert not stranger.is_set()
    close_database(elsewhere)


def test_who_has_stopped_is_not_woken(client: Site, worker_db: Any, heard: Any) -> None:
    stopped: list[int] = []
    stop = hear_others(worker_db, lambda: stopped.append(1))
    other = heard(worker_db)
    stop()
    stopped.clear()

    ring(client.db)

    assert other.wait(15)
    assert stopped == []


def test_nothing_is_connected_before_there_is_something_to_say(
    client: Site, postgres_server: PostgresServer, name: str, uri: str
) -> None:
    before = len(sessions(postgres_server, name))
    db = open_database(uri)
    tell_others(db)
    assert len(sessions(postgres_server, name)) == before
    ring(db)
    until(lambda: len(sessions(postgres_server, name)) == before + 1, "the connection")
    close_database(db)
    until(lambda: len(sessions(postgres_server, name)) == before, "its end")


def test_a_database_that_was_closed_rings_no_more(client: Site, uri: str) -> None:
    db = open_database(uri)
    close_database(db)
    ring(db)
    assert not [each for each in threading.enumerate() if each.name == "zasync notices unnamed"]


def test_without_psycopg2_the_polls_find_the_work(
    client: Site, uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notices, "find_spec", lambda name: None)
    with caplog.at_level(logging.INFO, "zasync.events"):
        db = open_database(uri)
    assert "psycopg2 is not installed" in caplog.text
    close_database(db)


def test_other_storages_have_no_notices(tmp_path: Any) -> None:
    db = open_database(str(tmp_path / "Data.fs"))
    hear_others(db, lambda: None)()
    assert db not in notices._lines
    close_database(db)
