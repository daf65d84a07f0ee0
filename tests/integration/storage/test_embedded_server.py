# SPDX-License-Identifier: ZPL-2.1
"""The embedded ZEO server: a real process over a real file, that ends when it should."""

import os
import signal
import stat
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ZEO.Exceptions import ClientDisconnected
from ZODB.blob import Blob

from tests.support.databases import HOLD
from tests.support.processes import other_process, wait_for_the_end_of
from tests.support.running import until
from tests.support.zeo import ZeoServer
from zasync.storage import (
    BadConfiguration,
    EmbeddedServer,
    StorageError,
    StorageLocked,
    close_database,
    open_database,
)

pytestmark = [pytest.mark.zeo, pytest.mark.process]

PARENT = """\
import sys
from zasync.storage import EmbeddedServer
server = EmbeddedServer(sys.argv[1])
server.start()
print(server.pid, flush=True)
print(server.address, flush=True)
sys.stdin.read()
"""


class BrokenServer(EmbeddedServer):
    """Asks ZEO for something that it refuses."""

    def _configuration(self, directory: Path) -> Path:
        config = super()._configuration(directory)
        config.write_text("<zeo>\n  addres here\n</zeo>\n")
        return config


class SilentServer(EmbeddedServer):
    """Never says that it is ready."""

    def _command(self, config: Path) -> list[str]:
        python, *_ = super()._command(config)
        return [python, "-c", "import sys; print('I am', file=sys.stderr); sys.stdin.read()"]


def writes_and_reads(uri: str) -> bool:
    one, two = open_database(uri), open_database(uri)
    try:
        with one.transaction() as connection:
            connection.root()["kept"] = "kept"
        # A client learns of another's commit a moment later.
        return bool(until(lambda: _kept(two) == "kept", "the other client to see it"))
    finally:
        close_database(one)
        close_database(two)


def _kept(db: Any) -> Any:
    with db.transaction() as connection:
        return connection.root().get("kept")


def test_it_serves_a_file_on_a_socket_that_only_this_user_can_reach(tmp_path: Path):
    with EmbeddedServer(f"{tmp_path}/Data.fs") as server:
        assert server.uri.startswith("zeo:///")
        directory = Path(urlsplit(server.uri).path).parent
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert writes_and_reads(server.uri)

    assert not directory.exists()
    db = open_database(f"{tmp_path}/Data.fs")
    with db.transaction() as connection:
        assert connection.root()["kept"] == "kept"
    close_database(db)


def test_it_serves_a_file_on_a_loopback_port_if_asked(tmp_path: Path):
    with EmbeddedServer(f"{tmp_path}/Data.fs", tcp=True) as server:
        assert server.uri.startswith("zeo://127.0.0.1:")
        assert writes_and_reads(server.uri)


@pytest.mark.parametrize("name", ["q?uery", "frag#ment"])
def test_a_temporary_directory_that_no_uri_can_name_makes_it_use_a_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    short = Path(tempfile.mkdtemp(prefix=name, dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    try:
        with EmbeddedServer(f"{tmp_path}/Data.fs") as server:
            assert server.uri.startswith("zeo://127.0.0.1:")
            assert writes_and_reads(server.uri)
    finally:
        short.rmdir()


def test_it_needs_nothing_of_zasync_in_its_process(tmp_path: Path):
    with ZeoServer(f"{tmp_path}/Data.fs") as server:
        assert "zasync cannot be imported here" in server.log()
        assert writes_and_reads(server.uri)


def test_its_clients_get_the_database_options_of_the_files_uri(tmp_path: Path):
    uri = f"{tmp_path}/Data.fs?database_name=jobs&connection_pool_size=3&quota=1gb"
    with EmbeddedServer(uri) as server:
        db = open_database(server.uri)
        try:
            assert db.database_name == "jobs"
            assert db.getPoolSize() == 3
        finally:
            close_database(db)


def test_its_clients_share_the_blobs_of_the_file(tmp_path: Path):
    with EmbeddedServer(f"{tmp_path}/Data.fs?blob_dir={tmp_path}/my blobs $1") as server:
        one, two = open_database(server.uri), open_database(server.uri)
        with one.transaction() as connection:
            connection.root()["blob"] = Blob(b"bytes")
        close_database(one)
        with two.transaction() as connection, connection.root()["blob"].open() as file:
            assert file.read() == b"bytes"
            assert Path(file.name).is_relative_to(tmp_path / "my blobs $1")
        close_database(two)


def test_a_file_without_blobs_gets_none(tmp_path: Path):
    with EmbeddedServer(f"{tmp_path}/Data.fs") as server:
        assert "blob" not in server.uri

    assert {path.suffix for path in tmp_path.iterdir()} <= {".fs", ".index", ".lock", ".tmp"}


def test_a_path_may_have_blanks_and_dollar_signs(tmp_path: Path):
    with EmbeddedServer(f"{tmp_path}/my $data.fs") as server:
        assert writes_and_reads(server.uri)

    assert (tmp_path / "my $data.fs").exists()


@pytest.mark.parametrize("option", ["read_only", "create", "demostorage"])
def test_an_option_that_makes_no_sense_for_many_is_refused(tmp_path: Path, option: str):
    with pytest.raises(BadConfiguration, match=f"cannot be served with the option {option}"):
        EmbeddedServer(f"{tmp_path}/Data.fs?{option}=1")


def test_only_a_file_can_be_served():
    with pytest.raises(BadConfiguration, match="only a FileStorage"):
        EmbeddedServer("zeo://localhost:8100")


def test_a_file_that_another_process_has_open_is_told_before_a_server_starts(tmp_path: Path):
    server = EmbeddedServer(f"{tmp_path}/Data.fs")
    with other_process(HOLD, f"{tmp_path}/Data.fs") as other:
        assert other.line() == "open"
        with pytest.raises(StorageLocked, match=f"process {other.pid}"):
            server.start()

    assert server.pid is None


def test_a_server_that_cannot_start_is_told_with_the_end_of_its_log(tmp_path: Path):
    server = BrokenServer(f"{tmp_path}/Data.fs")

    with pytest.raises(StorageError) as caught:
        server.start()

    message = str(caught.value)
    assert f"the ZEO server for {tmp_path}/Data.fs ended with exit code" in message
    assert "addres" in message.partition("\n")[2]
    assert server.pid is None
    assert server.log_tail() == ""


def test_a_server_that_never_answers_is_given_up_and_ended(tmp_path: Path):
    server = SilentServer(f"{tmp_path}/Data.fs", wait=timedelta(seconds=1))

    with pytest.raises(StorageError, match=r"did not answer within 1 s; its log ends:\nI am$"):
        server.start()

    assert not server.is_running()


def test_starting_and_stopping_twice_is_harmless(tmp_path: Path):
    server = EmbeddedServer(f"{tmp_path}/Data.fs")
    server.stop()
    server.start()
    pid = server.pid
    server.start()
    assert server.pid == pid
    assert server.is_running()

    server.stop()
    server.stop()

    assert wait_for_the_end_of(pid)
    assert not server.is_running()


def test_a_server_that_has_been_killed_is_known_to_be_gone(tmp_path: Path):
    with EmbeddedServer(f"{tmp_path}/Data.fs") as server:
        os.kill(server.pid, signal.SIGKILL)
        assert wait_for_the_end_of(server.pid)
        assert not server.is_running()
        assert "listening on" in server.log_tail()


def test_a_server_that_has_died_is_started_again_where_its_clients_look_for_it(tmp_path: Path):
    with EmbeddedServer(f"{tmp_path}/Data.fs") as server:
        db = open_database(server.uri)
        address, pid = server.address, server.pid
        os.kill(pid, signal.SIGKILL)
        assert wait_for_the_end_of(pid)
        server.restart()
        assert server.address == address
        assert server.pid != pid

        def answers() -> bool:
            try:
                db.storage.sync()
            except ClientDisconnected:
                return False
            return bool(db.storage.is_connected())

        until(answers, "the client to reconnect")
        close_database(db)


def test_a_server_that_could_not_be_started_again_can_be_later(tmp_path: Path):
    with EmbeddedServer(f"{tmp_path}/Data.fs") as server:
        address = server.address
        os.kill(server.pid, signal.SIGKILL)
        with other_process(HOLD, f"{tmp_path}/Data.fs") as other:
            other.line()
            with pytest.raises(StorageLocked):
                server.restart()
            assert not server.is_running()
        server.restart()
        assert server.is_running()
        assert server.address == address


def test_a_server_that_will_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("zasync.storage.embedded.STOP_SECONDS", 1)
    with ZeoServer(f"{tmp_path}/Data.fs") as server:
        pid = server.pid
        server.freeze()

    assert wait_for_the_end_of(pid)


def test_a_proper_end_leaves_the_index_of_the_file_behind(tmp_path: Path):
    with EmbeddedServer(f"{tmp_path}/Data.fs") as server:
        (tmp_path / "Data.fs.index").unlink()
        assert writes_and_reads(server.uri)

    assert (tmp_path / "Data.fs.index").exists()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_and_clears_up_when_its_parent_dies(tmp_path: Path, end: signal.Signals):
    with other_process(PARENT, f"{tmp_path}/Data.fs") as parent:
        pid = int(parent.line())
        directory = Path(parent.line()).parent
        assert directory.is_dir()
        os.kill(parent.pid, end)

        assert wait_for_the_end_of(pid)
        assert not directory.exists()

    close_database(open_database(f"{tmp_path}/Data.fs"))


def test_an_interrupt_at_the_terminal_does_not_reach_it(tmp_path: Path):
    with EmbeddedServer(f"{tmp_path}/Data.fs") as server:
        assert os.getpgid(server.pid) != os.getpgid(0)
        assert os.getsid(server.pid) == server.pid


def test_a_fork_that_leaves_the_block_does_not_end_it(tmp_path: Path):
    with EmbeddedServer(f"{tmp_path}/Data.fs") as server:
        child = os.fork()
        if child == 0:
            server.stop()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0

        assert server.is_running()
        assert writes_and_reads(server.uri)
