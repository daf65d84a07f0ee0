# SPDX-License-Identifier: ZPL-2.1
"""The storages of a run, and the servers behind them, if they have any."""

from __future__ import annotations

import os
import pwd
import resource
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

from tests.support.proxy import PostgresFrames, Proxy, postgres_query, zeo_call
from tests.support.zeo import ZeoServer
from zasync.foundation import platform

STORAGES = ("zeo", "sqlite", "postgresql")


class Unavailable(Exception):
    """What a storage needs is not on this machine."""


class Backend:
    """A storage: where it is, and what can be done to it."""

    kind = ""
    has_server = True  # so there is a network, and a process to kill
    has_quota = False  # the disk can be full for it

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def uri(self) -> str:
        """Where clients find it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, also again at the same address."""

    def stop(self) -> None:
        """End it properly."""

    def kill(self) -> None:
        """End it like a crash does."""

    def is_running(self) -> bool:
        return True

    def proxy(self, name: str) -> Proxy | None:
        """A network of its own for one client, or None where there is no network."""
        return None

    def uri_through(self, proxy: Proxy | None) -> str:
        return self.uri

    def commit(self) -> Any:
        """How to recognise the message after which a commit is in doubt."""
        raise NotImplementedError

    def fill_disk(self) -> None:
        """Let no file grow from now on."""

    def free_disk(self) -> None:
        """Let them grow again."""


class Zeo(Backend):
    """A FileStorage behind a ZEO server."""

    kind = "zeo"
    has_quota = True

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._server = ZeoServer(str(directory / "Data.fs"))

    @property
    def uri(self) -> str:
        return self._server.uri

    @property
    def pid(self) -> int | None:
        return self._server.pid

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def kill(self) -> None:
        self._server.kill()

    def is_running(self) -> bool:
        return self._server.is_running()

    def proxy(self, name: str) -> Proxy:
        address = self._server.address
        return Proxy(address, directory=Path(address).parent, name=name)

    def uri_through(self, proxy: Proxy | None) -> str:
        return self.uri if proxy is None else proxy.zeo_uri

    def commit(self) -> Any:
        return zeo_call("tpc_finish")

    def fill_disk(self) -> None:
        size = (self.directory / "Data.fs").stat().st_size
        self._limit(size)

    def free_disk(self) -> None:
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, size: int) -> None:
        """Writing beyond this fails in the server as on a full disk, with EFBIG for ENOSPC."""
        if self.pid is not None:
            _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, hard))


class Sqlite(Backend):
    """RelStorage on SQLite: no server and no network."""

    kind = "sqlite"
    has_server = False

    @property
    def uri(self) -> str:
        return f"sqlite://?data_dir={self.directory / 'sqlite'}"


class Postgres(Backend):
    """RelStorage on a PostgreSQL of its own, run as a user that may run it."""

    kind = "postgresql"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        if not found:
            raise Unavailable("there is no PostgreSQL in /usr/lib/postgresql")
        try:
            import psycopg2  # noqa: F401
        except ImportError:
            raise Unavailable("psycopg2 is not installed") from None
        self._programs = found[-1].parent
        self._data: Path | None = None
        self._port = platform.free_loopback_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return self._uri_at("127.0.0.1", self._port)

    def _uri_at(self, host: str, port: int) -> str:
        return f"postgres://postgres@{host}:{port}/postgres"

    def start(self) -> None:
        if self._data is None:
            self._make()
        assert self._data is not None
        log = (self.directory / "postgres.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [
                    str(self._programs / "postgres"),
                    *("-D", str(self._data), "-p", str(self._port), "-k", str(self._data.parent)),
                    *("-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"),
                    # Only processes are killed here; what they wrote is safe with the system.
                    *("-c", "fsync=off"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._as_user(),
            )
        self._wait_until_it_answers()

    def _make(self) -> None:
        home = Path(tempfile.mkdtemp(prefix="torture-pg-"))
        home.chmod(0o755)
        self._data = home / "data"
        self._data.mkdir(mode=0o700)
        user = self._as_user()
        if user:
            for path in (home, self._data):
                os.chown(path, user["user"], user["group"])
        command = [self._programs / "initdb", "-A", "trust", "-U", "postgres", "-D", self._data]
        subprocess.run(command, check=True, capture_output=True, **user)

    def _as_user(self) -> dict[str, Any]:
        """It refuses to run as root."""
        if os.getuid() != 0:
            return {}
        nobody = pwd.getpwnam("nobody")
        return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": "/"}

    def _wait_until_it_answers(self) -> None:
        command = [self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self._port)]
        for _ in range(300):
            if subprocess.run(command, check=False).returncode == 0:
                return
            assert self._process is not None
            try:
                self._process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
            raise Unavailable((self.directory / "postgres.log").read_text()[-2000:])
        raise Unavailable("PostgreSQL does not answer")

    def stop(self) -> None:
        self._end(signal.SIGINT)
        if self._data is not None:
            shutil.rmtree(self._data.parent, ignore_errors=True)
            self._data = None

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        process.wait(30)
        # The processes of its connections see the death of the first one and end by themselves.

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def proxy(self, name: str) -> Proxy:
        return Proxy(("127.0.0.1", self._port), name=name, frames=PostgresFrames)

    def uri_through(self, proxy: Proxy | None) -> str:
        return self.uri if proxy is None else self._uri_at(*proxy.address)

    def commit(self) -> Any:
        return postgres_query("commit")


def backend(kind: str, directory: Path) -> Backend:
    """The storage of that kind, with its files in `directory`; raises Unavailable."""
    kinds: dict[str, type[Backend]] = {each.kind: each for each in (Zeo, Sqlite, Postgres)}
    return kinds[kind](directory)
