# SPDX-License-Identifier: ZPL-2.1
"""Each worker has a UUID of its own, and the same one at its next start."""

import os
from pathlib import Path

import pytest

from tests.support.processes import other_process
from zasync import instanceuuid
from zasync.cli.errors import IdentityTaken
from zasync.cli.identity import for_child, state_directory, state_in, worker_uuid
from zasync.instanceuuid import InstanceUUIDError


@pytest.fixture(autouse=True)
def own_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("ZASYNC_UUID")
    monkeypatch.setenv("ZASYNC_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def test_workers_of_one_database_have_different_uuids_and_keep_them() -> None:
    with worker_uuid("Data.fs") as one, worker_uuid("Data.fs") as two:
        assert one != two
    instanceuuid.reset()
    with worker_uuid("Data.fs") as again:
        assert again == one
    assert "ZASYNC_UUID" not in os.environ


def test_a_uuid_file_that_is_named_goes_before_the_slots(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_directory: Path
) -> None:
    monkeypatch.setenv("ZASYNC_UUID", str(tmp_path / "mine.txt"))
    with worker_uuid("Data.fs") as uuid:
        assert (tmp_path / "mine.txt").read_text().startswith(str(uuid))
    assert not own_directory.exists()


def test_a_file_that_is_named_belongs_to_one_worker_at_a_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ZASYNC_UUID", str(tmp_path / "mine.txt"))
    first = worker_uuid("Data.fs")
    with first as uuid, pytest.raises(IdentityTaken, match=r"mine\.txt"), worker_uuid("Data.fs"):
        pass
    with worker_uuid("Data.fs") as again:
        assert again == uuid


FORKING = """\
import os, sys
from zasync.cli.identity import worker_uuid
with worker_uuid("Data.fs") as uuid:
    if os.fork() == 0:
        print(uuid, flush=True)  # by the child, which has let go by then
        sys.stdin.read()
        os._exit(0)
    os.wait()
"""


@pytest.mark.process
@pytest.mark.parametrize("named", [True, False])
def test_a_fork_that_outlives_its_worker_does_not_keep_the_uuid(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: bool
) -> None:
    if named:
        monkeypatch.setenv("ZASYNC_UUID", str(tmp_path / "mine.txt"))
    with other_process(FORKING) as other:
        uuid = other.line()
        if named:
            with pytest.raises(IdentityTaken), worker_uuid("Data.fs"):
                pass
        other.kill()
        with worker_uuid("Data.fs") as ours:
            assert str(ours) == uuid


def test_a_named_file_may_lie_where_nothing_can_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = tmp_path / "mine.txt"
    name.write_text("2e6f2b8c-7b5e-4b57-9e5e-0d9f6f4c1a37\n")
    (tmp_path / "mine.txt.lock").mkdir()  # root may write everywhere else
    monkeypatch.setenv("ZASYNC_UUID", str(name))
    with worker_uuid("Data.fs") as uuid:
        assert name.read_text().startswith(str(uuid))


@pytest.mark.parametrize("content", ["", "\n", "2e6f2b8c-7b5e", "garbage\n"])
def test_a_slot_whose_file_is_damaged_is_an_error_and_no_silent_new_identity(
    own_directory: Path, content: str
) -> None:
    own_directory.mkdir()
    (own_directory / "1.uuid").write_text(content)
    with pytest.raises(InstanceUUIDError, match=r"1\.uuid"), worker_uuid("Data.fs"):
        pass
    assert (own_directory / "1.uuid").read_text() == content


def test_where_nothing_can_be_kept_a_worker_has_a_new_uuid_and_says_so(
    own_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own_directory.write_text("a file, no directory")
    with worker_uuid("Data.fs") as one, worker_uuid("Data.fs") as two:
        assert one != two
    assert "no UUID of a worker can be kept" in caplog.text


def test_databases_have_directories_of_their_own_and_a_file_is_one_however_it_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ZASYNC_STATE")
    monkeypatch.chdir(tmp_path)
    one = state_directory("Data.fs")
    assert state_directory(f"file://{tmp_path}/Data.fs") == one
    assert state_directory("Other.fs") != one
    assert state_directory("zeo://localhost:1") != state_directory("zeo://localhost:2")


def test_children_share_the_directory_of_slots_of_their_parents_database(
    own_directory: Path,
) -> None:
    environment: dict[str, str] = {}
    for_child(environment, "Data.fs", 2)
    assert environment == {"ZASYNC_STATE": str(own_directory)}


def test_children_of_a_worker_with_a_named_file_have_files_beside_it() -> None:
    environment = {"ZASYNC_UUID": "mine.txt"}
    for_child(environment, "Data.fs", 2)
    assert environment == {"ZASYNC_UUID": "mine.txt.2"}


def test_the_directory_can_be_changed_for_a_while(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_directory: Path
) -> None:
    with state_in(tmp_path / "other"):
        assert state_directory("Data.fs") == tmp_path / "other"
    assert state_directory("Data.fs") == own_directory
    monkeypatch.delenv("ZASYNC_STATE")
    with state_in(tmp_path / "other"):
        pass
    assert "ZASYNC_STATE" not in os.environ
