# SPDX-License-Identifier: ZPL-2.1
"""The UUID of an instance, in its file."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import signal
import stat
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from zope.interface.verify import verifyObject

from zasync import instanceuuid
from zasync.instanceuuid import InstanceUUID, InstanceUUIDError
from zasync.interfaces import IUUID, ZasyncError

NOBODY = 65534  # a user without rights
KNOWN = "2e6f2b8c-7b5e-4b57-9e5e-0d9f6f4c1a37"


def started(script: str) -> subprocess.Popen[str]:
    """A Python process in the working directory that imports what we import."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
    )


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory of its own, and nothing known or configured."""
    monkeypatch.chdir(tmp_path)
    for variable in ("ZASYNC_UUID", "ZC_ASYNC_UUID"):
        monkeypatch.delenv(variable, raising=False)
    instanceuuid.reset()
    yield tmp_path
    instanceuuid.reset()


# Making


@pytest.mark.process
def test_importing_the_module_makes_nothing(here: Path) -> None:
    process = started("import zasync.instanceuuid; print('imported')")

    assert process.communicate()[0] == "imported\n"
    assert list(here.iterdir()) == []


def test_using_the_name_makes_the_file(here: Path) -> None:
    value = instanceuuid.UUID

    lines = (here / "uuid.txt").read_text().splitlines()
    assert lines[0] == str(value)
    assert "ZASYNC_UUID" in "".join(lines[1:])
    assert [path.name for path in here.iterdir()] == ["uuid.txt"]


def test_importing_the_name_makes_the_file(here: Path) -> None:
    from zasync.instanceuuid import UUID

    assert (here / "uuid.txt").read_text().startswith(f"{UUID}\n")


def test_a_new_uuid_is_random() -> None:
    assert instanceuuid.UUID.version == 4


def test_everybody_may_read_the_file_and_only_its_owner_write(here: Path) -> None:
    before = os.umask(0o077)
    try:
        instanceuuid.get()
    finally:
        os.umask(before)

    assert stat.S_IMODE((here / "uuid.txt").stat().st_mode) == 0o644


def test_other_names_of_the_module_are_unknown() -> None:
    with pytest.raises(AttributeError, match="no attribute 'uuid5'"):
        instanceuuid.uuid5  # noqa: B018


# Finding


def test_the_file_is_read_again_by_the_next_process(here: Path) -> None:
    first = instanceuuid.get()
    instanceuuid.reset()

    assert instanceuuid.get() == first


@pytest.mark.parametrize("variable", ["ZASYNC_UUID", "ZC_ASYNC_UUID"])
def test_the_environment_names_the_file(
    variable: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(here / "named.txt"))

    value = instanceuuid.UUID

    assert (here / "named.txt").read_text().startswith(str(value))
    assert not (here / "uuid.txt").exists()


def test_the_variable_of_ours_is_preferred(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZASYNC_UUID", "ours.txt")
    monkeypatch.setenv("ZC_ASYNC_UUID", "theirs.txt")

    instanceuuid.get()

    assert [path.name for path in here.iterdir()] == ["ours.txt"]


def test_an_empty_variable_is_as_none(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZASYNC_UUID", "")

    instanceuuid.get()

    assert (here / "uuid.txt").exists()


def test_the_value_stays_when_the_directory_or_the_file_changes(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = instanceuuid.get()
    (here / "uuid.txt").write_text("garbage")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")

    assert instanceuuid.get() is first
    assert not (here / "elsewhere" / "uuid.txt").exists()


def test_each_file_has_a_value_of_its_own(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = instanceuuid.get()
    monkeypatch.setenv("ZASYNC_UUID", "other.txt")

    assert instanceuuid.get() != first


@pytest.mark.parametrize(
    "content",
    [
        f"{KNOWN}\n",
        f"{KNOWN}",
        f"{KNOWN.upper()}\r\n\r\nwritten on Windows\r\n",
        f"{KNOWN}\n--------\nThe value above was made by another package.\n",
        f"{KNOWN}\n" + "ü" * 100_000,
    ],
)
def test_a_file_that_begins_with_a_uuid_is_accepted(here: Path, content: str) -> None:
    (here / "uuid.txt").write_bytes(content.encode())

    assert instanceuuid.get() == uuid.UUID(KNOWN)
    assert (here / "uuid.txt").read_bytes() == content.encode()


def test_a_uuid_that_an_old_version_made_of_time_and_machine_is_accepted(here: Path) -> None:
    old = uuid.uuid1()
    (here / "uuid.txt").write_text(f"{old}\n")

    assert instanceuuid.get() == old


def test_the_file_may_be_reached_by_a_link(here: Path) -> None:
    (here / "mounted").write_text(KNOWN)
    (here / "uuid.txt").symlink_to("mounted")

    assert str(instanceuuid.get()) == KNOWN


# Errors


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (f"\n{KNOWN}\n".encode(), "is empty"),
        (KNOWN[:-1].encode(), "does not begin with a UUID but with '2e6f2b8c"),
        (b"2e6f", "does not begin with a UUID"),
        (b"\x00" * 5000, "does not begin with a UUID"),
        (b"\xff\xfe\x1b[31m", "does not begin with a UUID"),
        (f"{KNOWN} x".encode(), "does not begin with a UUID"),
        (f"{{{KNOWN}}}".encode(), "does not begin with a UUID"),
        (uuid.UUID(KNOWN).hex.encode(), "does not begin with a UUID"),
        (str(uuid.UUID(int=0)).encode(), "all zeros"),
    ],
)
def test_a_damaged_file_is_an_error_and_stays_as_it_is(
    here: Path, content: bytes, problem: str
) -> None:
    (here / "uuid.txt").write_bytes(content)

    with pytest.raises(InstanceUUIDError) as raised:
        instanceuuid.get()

    message = str(raised.value)
    assert problem in message
    assert str(here / "uuid.txt") in message
    assert "delete it; or name another file in the environment variable ZASYNC_UUID" in message
    assert message.isprintable()
    assert (here / "uuid.txt").read_bytes() == content


def test_the_error_is_of_the_kinds_that_callers_expect(here: Path) -> None:
    (here / "uuid.txt").write_text("")

    for kind in (ZasyncError, ValueError, OSError):
        with pytest.raises(kind):
            instanceuuid.get()


def test_a_file_that_was_repaired_is_read(here: Path) -> None:
    (here / "uuid.txt").write_text("")
    with pytest.raises(InstanceUUIDError):
        instanceuuid.get()
    (here / "uuid.txt").write_text(KNOWN)

    assert str(instanceuuid.get()) == KNOWN


def test_a_directory_in_its_place_is_an_error(here: Path) -> None:
    (here / "uuid.txt").mkdir()

    with pytest.raises(InstanceUUIDError, match=r"cannot be read \(it is not a regular file\)"):
        instanceuuid.get()


def test_a_pipe_in_its_place_is_an_error_and_no_wait(here: Path) -> None:
    os.mkfifo(here / "uuid.txt")

    with pytest.raises(InstanceUUIDError, match="not a regular file"):
        instanceuuid.get()


@pytest.fixture
def open_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, which everybody may enter."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        monkeypatch.chdir(directory)
        yield directory
        directory.chmod(0o755)


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """Root may read and write everything, so be somebody else."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_that_may_not_be_read_is_an_error(open_directory: Path) -> None:
    (open_directory / "uuid.txt").write_text(KNOWN)
    (open_directory / "uuid.txt").chmod(0)

    with without_privileges(), pytest.raises(InstanceUUIDError, match="Permission denied"):
        instanceuuid.get()


def test_a_directory_that_may_not_be_written_is_an_error(open_directory: Path) -> None:
    open_directory.chmod(0o555)

    with without_privileges(), pytest.raises(InstanceUUIDError, match="Permission denied"):
        instanceuuid.get()


@pytest.mark.parametrize("name", ["missing/uuid.txt", "/proc/uuid.txt"])
def test_a_directory_in_which_nothing_can_be_made_is_an_error(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZASYNC_UUID", name)

    with pytest.raises(InstanceUUIDError, match="is missing and cannot be made") as raised:
        instanceuuid.get()

    assert name in str(raised.value)
    assert "make its directory and let this process write it" in str(raised.value)


def test_a_link_that_leads_nowhere_is_an_error_and_is_not_followed(here: Path) -> None:
    (here / "uuid.txt").symlink_to(here / "elsewhere")

    with pytest.raises(InstanceUUIDError, match="a symbolic link that leads nowhere"):
        instanceuuid.get()

    assert [path.name for path in here.iterdir()] == ["uuid.txt"]


# Two at once


def test_a_file_that_another_process_made_meanwhile_is_taken(here: Path) -> None:
    (here / "uuid.txt").write_text(f"{KNOWN}\n")

    value = instanceuuid._made("uuid.txt")  # as if it had not been there a moment ago

    assert str(value) == KNOWN
    assert [path.name for path in here.iterdir()] == ["uuid.txt"]


@pytest.mark.process
def test_processes_that_start_together_agree(here: Path) -> None:
    script = "from zasync.instanceuuid import UUID; print(UUID)"

    processes = [started(script) for _ in range(3)]
    answers = {process.communicate()[0] for process in processes}

    assert answers == {(here / "uuid.txt").read_text().splitlines()[0] + "\n"}


def test_without_hard_links_the_file_is_made_all_the_same(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: str, destination: str) -> None:
        raise PermissionError(1, "Operation not permitted")  # as on FAT

    monkeypatch.setattr(os, "link", refuse)

    value = instanceuuid.get()

    assert (here / "uuid.txt").read_text().startswith(f"{value}\n")
    assert [path.name for path in here.iterdir()] == ["uuid.txt"]
    assert str(instanceuuid._made("uuid.txt")) == str(value)


def test_a_file_that_cannot_be_finished_is_not_there(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(InstanceUUIDError, match="No space left on device"):
        instanceuuid.get()

    assert list(here.iterdir()) == []


@pytest.mark.process
@pytest.mark.parametrize("step", ["fsync", "chmod", "link", "unlink"])
def test_a_process_that_is_killed_while_it_makes_the_file_leaves_it_whole_or_not_at_all(
    here: Path, step: str
) -> None:
    process = started(
        "import os, signal\n"
        "from zasync import instanceuuid\n"
        f"os.{step} = lambda *args, **options: os.kill(os.getpid(), signal.SIGKILL)\n"
        "instanceuuid.get()\n"
    )
    process.communicate()

    assert process.returncode == -signal.SIGKILL
    if step == "unlink":
        left = (here / "uuid.txt").read_text()
        assert left.startswith(str(instanceuuid.get()))
        assert left.endswith("the working directory.\n")
    else:
        assert not (here / "uuid.txt").exists()
        assert instanceuuid.get()


# The value


def test_it_provides_its_interface() -> None:
    assert verifyObject(IUUID, instanceuuid.UUID)


def test_it_is_as_good_as_a_plain_uuid() -> None:
    plain, ours = uuid.UUID(KNOWN), InstanceUUID(KNOWN)

    assert ours == plain
    assert plain == ours
    assert hash(ours) == hash(plain)
    assert not ours < plain
    assert {plain: "found"}[ours] == "found"
    assert str(ours) == KNOWN


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_is_pickled_as_a_plain_uuid(protocol: int) -> None:
    again = pickle.loads(pickle.dumps(InstanceUUID(KNOWN), protocol))

    assert type(again) is uuid.UUID
    assert again == uuid.UUID(KNOWN)


def test_it_can_be_copied() -> None:
    assert copy.deepcopy(InstanceUUID(KNOWN)) == uuid.UUID(KNOWN)
