# SPDX-License-Identifier: ZPL-2.1
"""The few things that differ from system to system; these tests run on POSIX."""

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from zasync.foundation import platform


def test_a_private_directory_is_for_this_user_only():
    directory = platform.private_directory()
    try:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert directory.stat().st_uid == os.geteuid()
    finally:
        directory.rmdir()


def test_a_private_directory_has_room_for_a_socket_even_if_the_usual_place_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))

    directory = platform.private_directory()
    try:
        assert platform.fits_a_socket(directory / "zeo.sock")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(directory / "zeo.sock"))
        (directory / "zeo.sock").unlink()
    finally:
        directory.rmdir()


def test_a_path_of_more_than_a_hundred_bytes_fits_no_socket():
    assert not platform.fits_a_socket(Path("/tmp") / ("x" * 100))


def test_there_are_unix_sockets_on_posix():
    assert platform.has_unix_sockets() is (os.name == "posix")


def test_a_free_port_can_be_bound():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", platform.free_loopback_port()))


def test_the_termination_signals_are_those_of_a_terminal_and_of_a_supervisor():
    assert platform.termination_signals() == [signal.SIGINT, signal.SIGTERM]


def test_a_detached_process_is_no_member_of_our_terminal_session():
    program = "import os; print(os.getsid(0) == os.getpid())"
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, **platform.detached()
    )
    assert done.stdout.strip() == "True"
