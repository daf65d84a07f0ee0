# SPDX-License-Identifier: ZPL-2.1
"""Whose process was it, and can it still be running?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, asdict, replace
from pathlib import Path
from typing import Any

import pytest

from zasync.foundation import process
from zasync.foundation.process import (
    ProcessIdentity,
    certainly_gone,
    certainly_running,
    this_process,
)

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux")

CHILD = (
    "import json, sys\n"
    "from zasync.foundation.process import this_process\n"
    "print(json.dumps(this_process().to_state()), flush=True)\n"
    "sys.stdin.read()\n"
)

FULL = ProcessIdentity(
    host="here",
    machine="machine",
    boot_id="boot",
    namespace=0xEFFFFFFC,
    pid=4_000_000,  # pids end before this
    started=100,
)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    running = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield running
    running.kill()
    running.communicate()


def identity_of(child: subprocess.Popen[str]) -> ProcessIdentity:
    assert child.stdout is not None
    return ProcessIdentity.from_state(json.loads(child.stdout.readline()))


# Identity


def test_this_process_has_the_same_identity_each_time() -> None:
    assert this_process() == this_process()
    assert this_process().pid == os.getpid()


@linux
def test_on_linux_all_but_the_machine_is_known() -> None:
    identity = this_process()

    assert identity.host
    assert identity.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert identity.namespace == os.stat("/proc/self/ns/pid").st_ino
    assert identity.started is not None


def test_an_identity_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        FULL.pid = 5  # type: ignore[misc]


def test_an_identity_is_stored_as_plain_values() -> None:
    state = FULL.to_state()

    assert all(type(value) in (str, int) for value in state.values())
    assert ProcessIdentity.from_state(json.loads(json.dumps(state))) == FULL


def test_a_state_that_is_damaged_or_of_another_version_is_never_surely_gone() -> None:
    here = replace(FULL, pid=1)

    for name in asdict(FULL):
        if name in ("machine", "started"):
            continue
        state: dict[str, Any] = {**FULL.to_state(), "invented later": 1}
        for wrong in (None, 2.5, [], object()):
            state[name] = wrong
            assert not certainly_gone(ProcessIdentity.from_state(state), here)
    assert not certainly_gone(ProcessIdentity.from_state({}), here)


# Real processes


@linux
@pytest.mark.process
def test_a_process_that_runs_is_not_gone(child: subprocess.Popen[str]) -> None:
    assert not certainly_gone(identity_of(child))


@linux
@pytest.mark.process
def test_a_process_that_has_ended_is_gone(child: subprocess.Popen[str]) -> None:
    identity = identity_of(child)

    child.communicate()

    assert certainly_gone(identity)


@linux
@pytest.mark.process
def test_a_process_whose_end_was_not_waited_for_is_in_doubt(child: subprocess.Popen[str]) -> None:
    identity = identity_of(child)

    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert not certainly_gone(identity)


@linux
@pytest.mark.process
@linux
def test_another_process_that_runs_certainly_does(child: subprocess.Popen[str]) -> None:
    identity = identity_of(child)

    assert certainly_running(identity)
    assert not certainly_running(replace(identity, started=identity.started + 1))
    assert not certainly_running(replace(identity, started=None))
    for name in ("host", "boot_id", "namespace"):
        assert not certainly_running(replace(identity, **{name: None}))


def test_a_process_that_has_ended_does_not_certainly_run(child: subprocess.Popen[str]) -> None:
    identity = identity_of(child)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not certainly_running(identity)  # though nobody has waited for it
    child.wait()
    assert not certainly_running(identity)


def test_this_process_is_no_other() -> None:
    assert not certainly_running(this_process())


def test_a_process_that_was_started_earlier_under_this_pid_is_gone(
    child: subprocess.Popen[str],
) -> None:
    identity = identity_of(child)
    assert identity.started is not None

    assert certainly_gone(replace(identity, started=identity.started - 1))
    assert not certainly_gone(replace(identity, started=None))


@linux
def test_a_former_process_with_our_own_pid_is_gone() -> None:
    here = this_process()
    assert here.started is not None

    assert certainly_gone(replace(here, started=here.started - 1))
    assert not certainly_gone(here)
    assert not certainly_gone(replace(here, started=None))


@linux
@pytest.mark.process
def test_a_forked_child_has_an_identity_of_its_own() -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writing, str(this_process().pid).encode())
        os._exit(0)
    os.waitpid(pid, 0)

    assert int(os.read(reading, 100)) == pid
    os.close(reading)
    os.close(writing)


# Doubts


@linux
def test_a_pid_that_nobody_has_is_gone() -> None:
    assert certainly_gone(FULL, seen_from=replace(FULL, pid=1))
    assert certainly_gone(replace(FULL, started=None), seen_from=replace(FULL, pid=1))


@pytest.mark.parametrize(
    "change",
    [
        {"host": "elsewhere"},
        {"host": ""},
        {"boot_id": None},
        {"namespace": None},
        {"namespace": 4},
        {"pid": 0},
        {"pid": -1},
        {"pid": 1 << 80},
    ],
    ids=str,
)
def test_what_is_of_another_place_or_unknown_is_in_doubt(change: dict[str, Any]) -> None:
    here = replace(FULL, pid=1)

    assert not certainly_gone(replace(FULL, **change), seen_from=here)


@pytest.mark.parametrize("change", [{"boot_id": None}, {"namespace": None}], ids=str)
def test_a_process_that_does_not_know_its_own_place_is_in_doubt(change: dict[str, Any]) -> None:
    here = replace(FULL, pid=1, **change)

    assert not certainly_gone(FULL, seen_from=here)


def test_after_a_restart_of_the_machine_all_are_gone() -> None:
    assert certainly_gone(replace(FULL, boot_id="before", pid=1), seen_from=FULL)


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ({"machine": None}, {"machine": None}),
        ({"machine": "copy"}, {}),
        ({"namespace": 5}, {"namespace": 5}),
        ({"namespace": 5}, {}),
    ],
    ids=str,
)
def test_a_copy_of_the_machine_or_a_container_is_not_taken_for_a_restart(
    then: dict[str, Any], now: dict[str, Any]
) -> None:
    identity, here = replace(FULL, boot_id="before", **then), replace(FULL, **now)

    assert not certainly_gone(identity, seen_from=here)


# Other systems


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place where this module finds what it would find under the root."""
    monkeypatch.setattr(process, "_ROOT", tmp_path)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_proc_little_is_known_and_nothing_gone(files: Path) -> None:
    identity = this_process()

    assert identity == ProcessIdentity(identity.host, None, None, None, os.getpid(), None)
    assert not certainly_gone(replace(identity, pid=4_000_000))


def test_a_proc_that_counts_otherwise_is_not_used(files: Path) -> None:
    write(files / f"proc/{os.getpid()}/stat", "1 (python) S" + " 5" * 40)
    (files / "proc/self").symlink_to("1234567890")

    identity = this_process()

    assert identity.namespace is None
    assert identity.started is None


@pytest.mark.parametrize(
    ("text", "started"),
    [
        ("7 (python) S " + " ".join(map(str, range(4, 53))), 22),
        ("7 (a) S 1 (b) ) S " + " ".join(map(str, range(4, 53))), 22),
        ("7 (python) S 4 5 6", None),
        ("7 (python) S " + " ".join(["x"] * 49), None),
        ("", None),
    ],
)
def test_the_start_is_read_whatever_the_program_is_called(
    files: Path, text: str, started: int | None
) -> None:
    write(files / "proc/7/stat", text)

    assert process._started(7) == started


def test_a_machine_is_known_by_its_cards_and_not_by_what_was_copied(files: Path) -> None:
    write(files / "etc/machine-id", "same everywhere")
    assert this_process().machine is None

    (files / "sys/class/net/lo").mkdir(parents=True)
    assert this_process().machine is None

    (files / "sys/class/net/eth0/device").mkdir(parents=True)
    assert this_process().machine is None

    write(files / "sys/class/net/eth0/address", "02:00:00:00:00:01")
    first = this_process().machine
    assert first is not None
    assert "02:00" not in first

    write(files / "sys/class/net/eth0/address", "02:00:00:00:00:02")
    assert this_process().machine not in (None, first)


def test_a_process_that_proc_hides_is_in_doubt(files: Path) -> None:
    ours = replace(FULL, pid=os.getppid(), started=None)

    assert not certainly_gone(ours, seen_from=replace(FULL, pid=1))


def test_a_process_of_another_user_is_not_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)

    assert not certainly_gone(FULL, seen_from=replace(FULL, pid=1))


def test_where_asking_would_kill_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(pid: int, signal: int) -> None:
        raise AssertionError("somebody was killed")

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(os, "name", "nt")

    assert not certainly_gone(FULL, seen_from=replace(FULL, pid=1))
