# SPDX-License-Identifier: ZPL-2.1
"""The proxy: what a client of a real ZEO server sees of each fault, and what the server has."""

from __future__ import annotations

import shutil
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ZEO.Exceptions import ClientDisconnected

from tests.support.proxy import TO_CLIENT, TO_SERVER, PostgresFrames, Proxy, ZeoFrames, zeo_call
from tests.support.running import until
from tests.support.zeo import ZeoServer
from zasync.storage import close_database, open_database

pytestmark = pytest.mark.zeo
FINISH, VOTE = zeo_call("tpc_finish"), zeo_call("vote")


@pytest.fixture
def proxy(zeo_server: ZeoServer) -> Iterator[Proxy]:
    directory = Path(tempfile.mkdtemp(prefix="proxy-"))  # a socket's path must be short
    with Proxy(zeo_server.address, directory=directory) as proxy:
        yield proxy
    shutil.rmtree(directory)


@pytest.fixture
def db(proxy: Proxy) -> Iterator[Any]:
    db = open_database(proxy.zeo_uri, wait=timedelta(seconds=15))
    yield db
    close_database(db)


@pytest.fixture
def stored(zeo_server: ZeoServer) -> Iterator[Callable[[], Any]]:
    """What another client, which is not behind the proxy, finds in the database."""
    other = open_database(zeo_server.uri)

    def look() -> Any:
        other.storage.ping()  # all that the server has told before has come when it answers
        with other.transaction() as connection:
            return connection.root().get("value")

    yield look
    close_database(other)


def store(db: Any, value: Any) -> None:
    with db.transaction() as connection:
        connection.root()["value"] = value


class Storing:
    """A thread that stores a value, and what became of that."""

    def __init__(self, db: Any, value: Any) -> None:
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(db, value), daemon=True)
        self._thread.start()

    def _run(self, db: Any, value: Any) -> None:
        try:
            store(db, value)
        except Exception as error:
            self.error = error

    def ends(self, seconds: float = 15) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()


def test_it_leads_to_the_server(db: Any, stored: Callable[[], Any]) -> None:
    store(db, "through")
    assert stored() == "through"


def test_cut_after_the_server_has_finished_the_client_is_in_doubt_and_the_data_is_there(
    proxy: Proxy, db: Any, stored: Callable[[], Any]
) -> None:
    cut = proxy.cut_at(FINISH, forward=True)
    with pytest.raises(ClientDisconnected):
        store(db, "in doubt")
    assert cut.done.wait(15)
    assert stored() == "in doubt"


@pytest.mark.parametrize("message", [FINISH, VOTE], ids=["tpc_finish", "vote"])
def test_cut_before_the_server_has_the_message_the_client_is_in_doubt_and_it_is_not_there(
    proxy: Proxy, db: Any, stored: Callable[[], Any], message: Any
) -> None:
    cut = proxy.cut_at(message, forward=False)
    with pytest.raises(ClientDisconnected):
        store(db, "lost")
    assert cut.done.is_set()
    assert stored() is None


def test_a_cut_happens_once_and_the_client_connects_again(
    proxy: Proxy, db: Any, stored: Callable[[], Any]
) -> None:
    proxy.cut_at(FINISH, forward=False)
    with pytest.raises(ClientDisconnected):
        store(db, 1)
    db.storage.ping()  # waits for the connection
    store(db, 2)
    assert stored() == 2


def test_a_cut_that_is_taken_back_does_not_happen(proxy: Proxy, db: Any) -> None:
    cut = proxy.cut_at(FINISH, forward=False)
    assert proxy.cancel(cut)
    store(db, 1)
    assert not cut.taken.is_set()
    assert not proxy.cancel(cut)


def test_all_connections_can_be_cut_at_once(proxy: Proxy, db: Any) -> None:
    assert proxy.cut() == 1
    until(lambda: answers(db), "the client to notice, and to connect again")
    store(db, 1)


def answers(db: Any) -> bool:
    try:
        db.storage.ping()
    except ClientDisconnected:
        return False
    return True


def test_a_black_hole_tells_nobody_and_delivers_late(
    proxy: Proxy, db: Any, stored: Callable[[], Any]
) -> None:
    store(db, "before")
    proxy.black_hole()
    storing = Storing(db, "late")
    assert not storing.ends(0.5)
    assert stored() == "before"
    proxy.heal()
    assert storing.ends()
    assert storing.error is None
    assert stored() == "late"


def test_in_a_one_way_hole_the_server_hears_and_the_client_does_not(
    proxy: Proxy, db: Any, stored: Callable[[], Any]
) -> None:
    store(db, "before")
    finishing = proxy.cut_at(FINISH, forward=False)  # it never gets that far
    proxy.black_hole(TO_CLIENT)
    storing = Storing(db, "late")
    assert not storing.ends(0.5)
    assert not finishing.taken.is_set()
    proxy.cancel(finishing)
    proxy.heal()
    assert storing.ends()
    assert stored() == "late"


def test_whoever_connects_to_a_black_hole_waits_for_it_to_heal(proxy: Proxy) -> None:
    proxy.black_hole()
    opened: list[Any] = []
    opening = threading.Thread(
        target=lambda: opened.append(open_database(proxy.zeo_uri, wait=timedelta(seconds=15)))
    )
    opening.start()
    opening.join(0.5)
    assert not opened
    proxy.heal()
    opening.join(15)
    close_database(opened[0])


def test_a_client_of_a_half_open_connection_learns_of_it_when_that_is_cut(
    proxy: Proxy, db: Any, stored: Callable[[], Any]
) -> None:
    assert proxy.drop_clients_quietly() == 1
    storing = Storing(db, "into the void")
    assert not storing.ends(0.5)
    proxy.cut()
    assert storing.ends()
    assert isinstance(storing.error, ClientDisconnected)
    assert stored() is None


def test_a_slow_network_is_slow_and_works(proxy: Proxy, db: Any, stored: Callable[[], Any]) -> None:
    proxy.slow_down(delay=0.05)
    begin = time.monotonic()
    store(db, "slowly")
    assert time.monotonic() - begin > 0.1, "at least the calls of vote and finish"
    proxy.slow_down(pace=20000)
    store(db, "byte by byte")
    proxy.heal()
    assert stored() == "byte by byte"


def test_while_the_server_is_away_nobody_gets_through(
    proxy: Proxy, zeo_server: ZeoServer, db: Any
) -> None:
    zeo_server.kill()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(proxy.address)
        client.settimeout(15)
        assert client.recv(1) == b""
    zeo_server.start()
    db.storage.ping()
    store(db, 1)


def test_a_closed_proxy_listens_no_more(zeo_server: ZeoServer) -> None:
    proxy = Proxy(zeo_server.address)
    host, port = proxy.address
    proxy.close()
    with pytest.raises(OSError, match="refused"), socket.create_connection((host, port)):
        pass
    until(lambda: not any(t.name == "proxy accepts" for t in threading.enumerate()))


def test_messages_of_zeo_are_found_however_the_bytes_arrive() -> None:
    messages = [struct.pack(">I", len(body)) + body for body in (b"M5", b"x" * 70000, b"")]
    stream, frames = b"".join(messages), ZeoFrames(TO_SERVER)
    parts = [stream[at : at + 1000] for at in range(0, len(stream), 1000)]
    assert [frame for part in parts for frame in frames.feed(part)] == messages


def test_messages_of_postgresql_are_found_from_the_first_one_on() -> None:
    def typed(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack(">I", len(body) + 4) + body

    ssl = struct.pack(">II", 8, 80877103)
    start = struct.pack(">II", 8 + 9, 196608) + b"user\0me\0\0"
    query = typed(b"Q", b"COMMIT\0")
    frames = PostgresFrames(TO_SERVER)
    assert list(frames.feed(ssl)) == [ssl]
    assert list(frames.feed(start + query[:3])) == [start]
    assert list(frames.feed(query[3:])) == [query]

    answers = PostgresFrames(TO_CLIENT)
    assert list(answers.feed(b"N")) == [b"N"]
    ready = typed(b"Z", b"I")
    assert list(answers.feed(ready + ready)) == [ready, ready]
