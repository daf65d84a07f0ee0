# SPDX-License-Identifier: ZPL-2.1
"""What a worker tells its parent and systemd, who listen on a real pipe and a real socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from zasync.cli import supervision
from zasync.cli.supervision import supervised
from zasync.foundation import platform


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(30)
        manager.bind(address)
        yield manager


@pytest.fixture
def address() -> Iterator[str]:
    directory = platform.private_directory()
    yield str(directory / "notify")
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


def test_a_parent_hears_that_its_child_lives_and_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "BEAT", 0.01)
    ours, theirs = os.pipe()
    with supervised(theirs) as supervisors:
        assert os.read(ours, 1) == supervision.ALIVE
        assert os.read(ours, 1) == supervision.ALIVE
        supervisors.ready()
        while os.read(ours, 1) != supervision.READY:
            pass
        assert not os.get_inheritable(theirs)
        supervisors.stopping()
        os.close(ours)
        supervisors.alive()  # nobody listens any more: no error
    os.close(theirs)


def test_a_parent_that_does_not_read_is_not_waited_for() -> None:
    ours, theirs = os.pipe()
    parent = supervision.Parent(theirs)
    for _ in range(100_000):  # more than a pipe holds
        parent.alive()
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_hears_of_the_start_the_life_and_the_stop(
    address: str, abstract: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"\0{address}" if abstract else address
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{address}" if abstract else address)
    with listening(name) as manager, supervised() as supervisors:
        assert manager.recv(100) == b"WATCHDOG=1"
        supervisors.ready()
        supervisors.stopping()
        said = {manager.recv(100) for _ in range(2)}
        while b"STOPPING=1" not in said:
            said.add(manager.recv(100))
        assert {b"READY=1", b"STOPPING=1"} <= said
        # A job may start a program that would speak for us.
        assert "NOTIFY_SOCKET" not in os.environ


def test_a_service_manager_that_is_gone_is_no_error(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with supervised() as supervisors:
        supervisors.ready()


def test_nobody_to_tell_means_no_thread() -> None:
    with supervised() as supervisors:
        supervisors.ready()
        assert not supervisors


def test_a_process_in_which_nothing_can_run_falls_silent(tmp_path: Path) -> None:
    program = (
        "import re, sys\n"
        "from zasync.cli.supervision import supervised\n"
        "from zasync.cli import supervision\n"
        "supervision.BEAT = 0.01\n"
        "with supervised(int(sys.argv[1])) as supervisors:\n"
        "    input()\n"
        "    supervisors.ready()\n"
        "    re.match('(a+)+$', 'a' * 60 + 'b')\n"
    )
    ours, theirs = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", program, str(theirs)],
        stdin=subprocess.PIPE,
        pass_fds=(theirs,),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        os.close(theirs)
        assert process.stdin is not None
        assert os.read(ours, 1) == supervision.ALIVE
        process.stdin.write(b"\n")
        process.stdin.flush()
        said = b""
        while supervision.READY not in said:
            said += os.read(ours, 1000)
        process.kill()
        rest = b"".join(iter(lambda: os.read(ours, 1000), b""))
    assert len(rest) <= 2
    os.close(ours)
