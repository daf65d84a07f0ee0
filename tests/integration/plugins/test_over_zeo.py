# SPDX-License-Identifier: ZPL-2.1
"""Plugins with requests and workers in different processes, over a ZEO server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support import handlers
from tests.support.chat import Chat
from tests.support.processes import Other, other_process
from tests.support.running import Site, running
from tests.support.servers import HttpServer, LineServer
from tests.support.zeo import ZeoServer
from zasync import plugins
from zasync.plugins.errors import NoBlobs
from zasync.plugins.fetched import Fetched
from zasync.plugins.session import SessionStatus, holder
from zasync.storage import close_database, open_database

pytestmark = [
    pytest.mark.zeo,
    pytest.mark.process,
    pytest.mark.usefixtures("loopback", "hints_only"),
]

WORKER = """\
import sys
from datetime import timedelta
from tests.support.running import running
from zasync.plugins import addresses
from zasync.plugins.session import holder
from zasync.storage import close_database, open_database
addresses.allow_networks("127.0.0.0/8")
holder.LOOK_EVERY = 3600.0
holder.FIRST_PAUSE = 0.05
db = open_database(sys.argv[1], wait=timedelta(seconds=20))
with running(db, poll_interval=0.5):
    print("running", flush=True)
    sys.stdin.read()
close_database(db)
"""


@pytest.fixture
def hints_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outbox is looked at after hints only."""
    monkeypatch.setattr(holder, "LOOK_EVERY", 3600.0)
    monkeypatch.setattr(holder, "FIRST_PAUSE", 0.05)


@pytest.fixture
def site(zeo_server: ZeoServer) -> Iterator[Site]:
    """The database as a process with requests sees it."""
    handlers.reset()
    db = open_database(zeo_server.uri, wait=timedelta(seconds=20))
    site = Site(db)
    yield site
    site.close()
    close_database(db)


@pytest.fixture
def chat(site: Site) -> Chat:
    return Chat(site)


@pytest.fixture
def server() -> Iterator[LineServer]:
    server = LineServer()
    yield server
    server.stop()


def worker(zeo_server: ZeoServer) -> AbstractContextManager[Other]:
    return other_process(WORKER, zeo_server.uri)


def test_a_message_of_another_process_is_sent_by_its_hint(
    zeo_server: ZeoServer, chat: Chat, server: LineServer
) -> None:
    with worker(zeo_server) as other:
        assert other.line() == "running"
        session = chat.open(server)
        chat.until(session, SessionStatus.CONNECTED)
        for number in range(3):
            chat.send(session, str(number))
            server.wait_until(lambda number=number: server.heard[number:] == [str(number)])
        server.say("hello")
        chat.until_heard("hello")
        chat.close(session)
        chat.until(session, SessionStatus.CLOSED)


def test_a_zeo_client_without_blobs_is_named(zeo_server: ZeoServer, site: Site) -> None:
    with running(site.db, poll_interval=0.5):
        job = site.put(plugins.job_for("http_fetch", "http://127.0.0.1/x"))
        site.completed(job)

    assert job.result.type is NoBlobs


@pytest.mark.slow
def test_a_session_whose_worker_is_killed_is_taken_up_by_another(
    zeo_server: ZeoServer, site: Site, chat: Chat, server: LineServer
) -> None:
    with worker(zeo_server) as first:
        assert first.line() == "running"
        session = chat.open(server)
        chat.until(session, SessionStatus.CONNECTED)
        server.say("before")
        chat.until_heard("before")
        chat.send(session, "one")
        site.until(lambda: session.unsent == 0, "the first message to be sent")

        first.kill()
        server.wait_until(lambda: not server.connections)
        chat.send(session, "two", "three")
        site.let_others_die_soon()
        with worker(zeo_server) as second:
            assert second.line() == "running"
            server.wait_until(lambda: server.heard == ["one", "two", "three"])
            server.say("after")
            chat.until_heard("before", "after")
            assert server.accepted == 2
            chat.close(session)
            chat.until(session, SessionStatus.CLOSED)
            assert session.job.result["heard"] == 2


@pytest.mark.slow
def test_a_download_whose_worker_is_killed_is_done_by_another_once(tmp_path: Path) -> None:
    files = HttpServer()
    data = os.urandom(2**20)

    def answer(handler: Any) -> None:
        first = len(files.requests) == 1
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:1000])
        handler.wfile.flush()
        if first:
            files.released.wait(60)
        handler.wfile.write(data[1000:])

    files.answers["/x"] = answer
    with ZeoServer(f"file://{tmp_path}/Data.fs?blobstorage_dir={tmp_path}/blobs") as server:
        db = open_database(server.uri, wait=timedelta(seconds=20))
        site = Site(db)
        with worker(server) as first:
            assert first.line() == "running"
            job = site.put(plugins.job_for("http_fetch", files.url("/x")))
            site.until(lambda: files.requests, "the first request")
            first.kill()
        left = [path.name for path in (tmp_path / "blobs" / "tmp").glob("zasync-fetch-*")]
        assert len(left) == 1
        site.let_others_die_soon()
        with running(db, poll_interval=0.5):
            site.completed(job, seconds=60)
        assert type(job.result) is Fetched
        with job.result.open() as file:
            assert file.read() == data
        assert not list((tmp_path / "blobs" / "tmp").glob("zasync-*"))
        site.close()
        close_database(db)
    files.stop()

    assert len(files.requests) == 2
