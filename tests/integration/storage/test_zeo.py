# SPDX-License-Identifier: ZPL-2.1
"""Opening databases of real ZEO servers, in whose processes zasync cannot be imported."""

import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import ZODB

from tests.support.databases import make_newer
from tests.support.zeo import ZeoServer
from zasync.storage import (
    BadConfiguration,
    NewerDatabase,
    StorageError,
    StorageUnreachable,
    close_database,
    open_database,
)

pytestmark = pytest.mark.zeo
A_SECOND = timedelta(seconds=1)


class ReadOnlyServer(ZeoServer):
    def _configuration(self, directory: Path) -> Path:
        config = super()._configuration(directory)
        text = config.read_text()
        config.write_text(text.replace("</zeo>", "read-only true\n</zeo>"))
        return config


class FreshServer(ZeoServer):
    """A server whose database has not even a root object when it starts."""

    def start(self) -> None:
        super().start()
        self.end()
        for path in self._file.path.parent.glob("Data.fs*"):
            path.unlink()
        config = self._configuration(self._directory)
        self._process = self._spawn(config, self._directory)
        self._await_readiness(self._process)


class Rendezvous(dict[str, ZODB.DB]):
    """A multi-database that waits for others at the moment before the root object is made."""

    def __init__(self, barrier: threading.Barrier) -> None:
        super().__init__()
        self._barrier = barrier
        self._has_met = False

    def __setitem__(self, name: str, db: ZODB.DB) -> None:
        super().__setitem__(name, db)
        if not self._has_met:
            self._has_met = True
            self._barrier.wait(20)


@pytest.fixture
def mute_port() -> Iterator[int]:
    """A port at which somebody listens and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def unreachable(uri: str) -> str:
    begin = time.monotonic()
    with pytest.raises(StorageUnreachable) as caught:
        open_database(uri, wait=A_SECOND)
    assert time.monotonic() - begin < 8, "not ZEO's own thirty seconds"
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_server_of_these_tests_cannot_import_zasync(zeo_server: ZeoServer):
    assert "zasync cannot be imported here" in zeo_server.log()


def test_two_clients_share_a_database(zeo_server: ZeoServer):
    one = open_database(zeo_server.uri)
    with one.transaction() as connection:
        connection.root()["shared"] = 1
    two = open_database(zeo_server.uri)
    with two.transaction() as connection:
        assert connection.root()["shared"] == 1

    close_database(one)
    close_database(two)


def test_a_server_that_is_not_there_is_named(tmp_path: Path):
    message = unreachable(f"zeo://{tmp_path}/zeo.sock")

    assert f"no ZEO server answered at {tmp_path}/zeo.sock" in message


def test_a_port_at_which_nobody_listens_is_named():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        assert f"no ZEO server answered at 127.0.0.1:{port}" in unreachable(
            f"zeo://127.0.0.1:{port}"
        )


def test_a_server_that_speaks_another_language_is_named(mute_port: int):
    assert f"127.0.0.1:{mute_port}" in unreachable(f"zeo://127.0.0.1:{mute_port}")


def test_a_frozen_server_is_given_up_in_time(zeo_server: ZeoServer):
    zeo_server.freeze()
    try:
        assert zeo_server.address in unreachable(zeo_server.uri)
    finally:
        zeo_server.thaw()


def test_a_limit_in_the_uri_rules_over_that_of_the_caller(tmp_path: Path):
    begin = time.monotonic()
    with pytest.raises(StorageUnreachable):
        open_database(f"zeo://{tmp_path}/zeo.sock?wait_timeout=1", wait=timedelta(seconds=60))

    assert time.monotonic() - begin < 8


def test_a_client_that_may_not_wait_is_told_the_same(tmp_path: Path):
    assert f"{tmp_path}/zeo.sock" in unreachable(f"zeo://{tmp_path}/zeo.sock?wait=0")


def test_a_storage_that_the_server_does_not_have_is_told_as_the_server_tells_it(
    zeo_server: ZeoServer,
):
    message = unreachable(f"{zeo_server.uri}?storage=catalog")

    assert f"the ZEO server at {zeo_server.address} refuses" in message
    assert "unknown storage: catalog" in message


def test_a_server_for_readers_only_is_refused(tmp_path: Path):
    with ReadOnlyServer(f"{tmp_path}/Data.fs") as server:
        with pytest.raises(BadConfiguration) as caught:
            open_database(server.uri, wait=A_SECOND)
        assert f"the ZEO server at {server.address} is read-only" in str(caught.value)

        with pytest.raises(BadConfiguration, match="is read-only"):
            open_database(f"{server.uri}?read_only_fallback=1")
        close_database(open_database(f"{server.uri}?read_only=1", writable=False))


@pytest.mark.parametrize("option", ["debug", "server_sync", "no_such"])
def test_an_option_that_zeo_does_not_know_is_named(option: str):
    with pytest.raises(BadConfiguration, match=f"does not know: {option}$"):
        open_database(f"zeo://localhost:1?{option}=1")


def test_clients_that_come_first_to_a_new_database_at_once_all_get_it(tmp_path: Path):
    clients = 4
    barrier = threading.Barrier(clients)
    opened: list[ZODB.DB] = []

    with FreshServer(f"{tmp_path}/Data.fs") as server:

        def come() -> None:
            opened.append(open_database(server.uri, databases=Rendezvous(barrier)))

        threads = [threading.Thread(target=come) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

        assert len(opened) == clients
        for db in opened:
            assert list(db.databases) == ["unnamed"]
            close_database(db)


def test_the_database_of_a_newer_zasync_is_refused_and_its_server_goes_on(zeo_server: ZeoServer):
    db = open_database(zeo_server.uri)
    make_newer(db)
    close_database(db)

    with pytest.raises(NewerDatabase, match="schema 2"):
        open_database(zeo_server.uri)
    close_database(open_database(zeo_server.uri, allow_newer=True))


def test_a_client_stays_open_while_its_server_is_killed_and_comes_back(zeo_server: ZeoServer):
    db = open_database(zeo_server.uri)
    with db.transaction() as connection:
        connection.root()["kept"] = 1

    zeo_server.kill()
    assert not zeo_server.is_running()
    zeo_server.start()

    with db.transaction() as connection:
        assert connection.root()["kept"] == 1
    zeo_server.restart()
    db.storage.ping()  # waits for the connection, as reading does and writing does not
    with db.transaction() as connection:
        connection.root()["kept"] = 2
    close_database(db)


@pytest.mark.parametrize("fault", ["corrupt", "stale"])
def test_a_cache_file_that_cannot_be_trusted_shows_nothing_old(
    zeo_server: ZeoServer, tmp_path: Path, fault: str
):
    (tmp_path / "cache").mkdir()
    uri = f"{zeo_server.uri}?client=jobs&var={tmp_path}/cache"
    keep(uri, 1)
    (cache,) = (tmp_path / "cache").glob("*.zec")
    if fault == "corrupt":
        with cache.open("r+b") as file:
            file.seek(4)
            file.write(b"\xff" * 4096)
    keep(zeo_server.uri, 2)  # by a client that does not use the cache

    db = open_database(uri)
    with db.transaction() as connection:
        assert connection.root()["kept"] == 2
    close_database(db)


def keep(uri: str, value: int) -> None:
    db = open_database(uri)
    with db.transaction() as connection:
        connection.root()["kept"] = value
    close_database(db)


def test_a_server_that_was_restored_from_an_older_backup_is_told(
    zeo_server: ZeoServer, tmp_path: Path
):
    keep(zeo_server.uri, 1)
    backup = (tmp_path / "Data.fs").read_bytes()
    (tmp_path / "cache").mkdir()
    uri = f"{zeo_server.uri}?client=jobs&var={tmp_path}/cache"
    keep(uri, 2)
    zeo_server.end()
    for path in tmp_path.glob("Data.fs*"):
        path.unlink()
    (tmp_path / "Data.fs").write_bytes(backup)
    zeo_server.start()

    with pytest.raises(StorageError, match=r"delete its persistent cache file") as caught:
        open_database(uri, wait=A_SECOND)

    assert zeo_server.address in str(caught.value)
    (cache,) = (tmp_path / "cache").glob("*.zec")
    cache.unlink()
    keep(uri, 3)


def test_clients_do_not_use_the_same_ids_for_new_objects_after_their_server_was_killed(
    zeo_server: ZeoServer,
):
    one, two = open_database(zeo_server.uri), open_database(zeo_server.uri)
    one.storage.new_oid()  # fetches many
    zeo_server.kill()
    zeo_server.start()
    for db in (one, two):
        db.storage.ping()

    taken = [{db.storage.new_oid() for _ in range(150)} for db in (one, two)]

    assert not taken[0] & taken[1]
    close_database(one)
    close_database(two)
