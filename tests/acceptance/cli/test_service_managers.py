# SPDX-License-Identifier: ZPL-2.1
"""The files in `docs/examples` do what they say, with the real service managers.

Only what is of the reader's machine is replaced in them: paths, the user, the server's address.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.running import until
from zasync.foundation import platform
from zasync.interfaces import KEY
from zasync.storage import EmbeddedServer

from .commands import SECONDS, Desk, root_of

pytestmark = pytest.mark.process

DOCS = Path(__file__).parents[3] / "docs"
UNIT = "zasync-worker.service"
GRACE = 30  # seconds, in all of the files
LAST_SECONDS = 20  # that a stop may take beyond that
systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")


def needs(package: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed")


def example(name: str) -> str:
    return (DOCS / "examples" / name).read_text()


def localised(text: str, desk: Desk, uri: str) -> str:
    """An example for the paths of a test, without the user, who may not exist here."""
    for theirs, ours in {
        "/srv/application/bin/zasync": f"{sys.executable} -m zasync",
        "/srv/application": str(desk.directory),
        "/var/lib/zasync/zdaemon.sock": "zdaemon.sock",
        "/var/lib/zasync": str(desk.path("state")),
        "/var/log/zasync": str(desk.directory),
        "zeo://localhost:9991": uri,
    }.items():
        text = text.replace(theirs, ours)
    assert not re.search("/srv/|/var/|localhost", text)
    return re.sub(r"(?m)^ *user[ =]zasync\n", "", text)


@pytest.fixture
def server(desk: Desk) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(str(desk.path("Data.fs"))) as server:
        yield server


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A directory whose path is short enough for sockets."""
    directory = platform.private_directory()
    yield directory
    shutil.rmtree(directory)


def a_job_is_done(desk: Desk, uri: str, name: str) -> None:
    desk.done("put", "--db", uri, "application:note_process", f'"{name}"')
    until(lambda: desk.lines(name), f"job {name!r} to be done", SECONDS)


def main_process(desk: Desk) -> int:
    """The process that runs the command of the example."""
    log = desk.path("worker.log").read_text()
    pids = [pid for path in Path("/proc").glob("[0-9]*") if (pid := _worker(path, desk))]
    assert len(pids) == 1, (pids, log)
    return pids[0]


def _worker(path: Path, desk: Desk) -> int | None:
    """The number of a process if it is a parent of workers in the directory of `desk`."""
    try:
        words = (path / "cmdline").read_text().split("\0")
        here = os.readlink(path / "cwd") == str(desk.directory)
    except OSError:
        return None
    ours = here and words[1:3] == ["-m", "zasync"] and "--processes" in words
    return int(path.name) if ours else None


def has_stopped_cleanly(desk: Desk) -> bool:
    """Whether all workers have said goodbye, once the server has ended."""
    with root_of(str(desk.path("Data.fs"))) as root:
        records = list(root[KEY][""].dispatchers.values())
        return bool(records) and not any(record.activated for record in records)


# systemd


@systemd
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    program = tmp_path / "zasync"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / UNIT
    unit.write_text(example(UNIT).replace("/srv/application/bin/zasync", str(program)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    about_it = [line for line in done.stderr.splitlines() if UNIT in line]
    assert (done.returncode, about_it) == (0, []), done.stderr


@systemd
def test_the_unit_exposes_little(tmp_path: Path) -> None:
    unit = tmp_path / UNIT
    unit.write_text(example(UNIT))
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot judge a file")
    assert done.returncode == 0, done.stdout


def test_the_command_of_the_unit_tells_systemd_that_it_works_lives_and_stops(
    desk: Desk, server: EmbeddedServer, sockets: Path
) -> None:
    (line,) = re.findall("ExecStart=(.*)", localised(example(UNIT), desk, server.uri))
    address = str(sockets / "notify")
    output = desk.path("worker.log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, output.open("wb") as log:
        manager.bind(address)
        manager.settimeout(SECONDS)
        process = subprocess.Popen(
            line.split(),
            cwd=desk.directory,
            env=desk.environment | {"NOTIFY_SOCKET": address},
            stderr=log,
        )
        try:
            assert manager.recv(100) == b"WATCHDOG=1"
            hear(manager, b"READY=1")
            assert "works queue" in output.read_text() or "is activated" in output.read_text()
            hear(manager, b"WATCHDOG=1")
            process.send_signal(signal.SIGTERM)
            hear(manager, b"STOPPING=1")
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()
            process.wait(SECONDS)


def hear(manager: socket.socket, message: bytes) -> None:
    for _ in range(1000):
        if manager.recv(100) == message:
            return
    raise AssertionError(f"{message!r} was not heard")


# supervisord

SUPERVISORD = """\
[unix_http_server]
file={sockets}/supervisor.sock
[supervisord]
nodaemon=true
logfile={directory}/supervisord.log
pidfile={directory}/supervisord.pid
childlogdir={directory}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{sockets}/supervisor.sock
"""


class Supervisord:
    """A real supervisord over the example."""

    def __init__(self, desk: Desk, configuration: Path) -> None:
        self.desk = desk
        self.configuration = configuration

    def control(self, *words: str) -> str:
        done = subprocess.run(
            self._command("supervisor.supervisorctl", *words),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return done.stdout

    @contextmanager
    def running(self, state: str = "RUNNING") -> Iterator[Supervisord]:
        """Until the end of the block; entered when the worker is in `state`."""
        process = subprocess.Popen(
            self._command("supervisor.supervisord"),
            env=self.desk.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            until(lambda: re.search(state, self.control("status")), state, SECONDS)
            yield self
        finally:
            process.terminate()
            process.wait(SECONDS)

    def log(self) -> str:
        return self.desk.path("supervisord.log").read_text()

    def _command(self, module: str, *words: str) -> list[str]:
        return [sys.executable, "-m", module, "-c", str(self.configuration), *words]


@needs("supervisor")
def test_supervisord_runs_the_example_and_starts_it_again(
    desk: Desk, server: EmbeddedServer, sockets: Path
) -> None:
    configuration = desk.path("supervisord.conf")
    head = SUPERVISORD.format(directory=desk.directory, sockets=sockets)
    configuration.write_text(head + localised(example("supervisord.conf"), desk, server.uri))
    with Supervisord(desk, configuration).running() as supervisord:
        a_job_is_done(desk, server.uri, "first")
        former = main_process(desk)
        os.kill(former, signal.SIGKILL)
        until(lambda: supervisord.log().count("spawned: 'zasync-worker'") == 2, "a new worker")
        until(lambda: "RUNNING" in supervisord.control("status"), "it to run", SECONDS)
        a_job_is_done(desk, server.uri, "second")
        assert main_process(desk) != former
        supervisord.control("stop", "zasync-worker")
        assert "STOPPED" in supervisord.control("status")
        assert "stopped: zasync-worker (exit status 0)" in supervisord.log()
    server.stop()
    assert has_stopped_cleanly(desk)


@needs("supervisor")
def test_supervisord_leaves_a_worker_alone_that_a_person_has_to_see_to(
    desk: Desk, server: EmbeddedServer, sockets: Path
) -> None:
    configuration = desk.path("supervisord.conf")
    head = SUPERVISORD.format(directory=desk.directory, sockets=sockets)
    text = localised(example("supervisord.conf"), desk, server.uri)
    configuration.write_text(head + text.replace("--processes", "--queue nowhere --processes"))
    with Supervisord(desk, configuration).running("EXITED|FATAL") as supervisord:
        assert "exit status 2" in supervisord.log()
        (line,) = set(desk.lines("worker.log"))
        assert line.startswith("zasync: the database has no queue 'nowhere'")


# zdaemon


@needs("zdaemon")
def test_zdaemon_runs_the_example_and_starts_it_again(
    desk: Desk, server: EmbeddedServer, sockets: Path
) -> None:
    configuration = desk.path("zdaemon.conf")
    text = localised(example("zdaemon.conf"), desk, server.uri)
    configuration.write_text(text.replace("zdaemon.sock", str(sockets / "zdaemon.sock")))

    def zdaemon(action: str) -> str:
        program = Path(sysconfig.get_path("scripts"), "zdaemon")
        done = subprocess.run(
            [sys.executable, str(program), "-C", str(configuration), action],
            env=desk.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return done.stdout + done.stderr

    try:
        assert "daemon process started" in zdaemon("start")
        a_job_is_done(desk, server.uri, "first")
        former = main_process(desk)
        os.kill(former, signal.SIGKILL)
        until(lambda: f"pid={former}" not in (said := zdaemon("status")) and "pid=" in said)
        a_job_is_done(desk, server.uri, "second")
        assert main_process(desk) != former
    finally:
        stopped = zdaemon("stop")
    assert "stopped" in stopped
    server.stop()
    assert has_stopped_cleanly(desk)


# What they have in common


@pytest.mark.parametrize(
    ("name", "waiting"),
    [
        (UNIT, r"TimeoutStopSec=(\d+)"),
        ("supervisord.conf", r"stopwaitsecs=(\d+)"),
        ("zdaemon.conf", r"stop-timeout (\d+)"),
    ],
)
def test_each_waits_for_longer_than_a_stop_may_take(name: str, waiting: str) -> None:
    text = example(name)
    assert f"--grace {GRACE}" in text
    (seconds,) = re.findall(waiting, text)
    assert int(seconds) > GRACE + LAST_SECONDS


def test_the_page_shows_the_files_that_are_tried_here() -> None:
    page = (DOCS / "service.md").read_text()
    shown = re.findall(r"{literalinclude} examples/(\S+)", page)
    assert sorted(shown) == sorted(path.name for path in (DOCS / "examples").iterdir())
