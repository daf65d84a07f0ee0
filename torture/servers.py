# SPDX-License-Identifier: ZPL-2.1
"""The storages of a run, and the servers behind them, if they have any."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any, Self

from tests.support.postgres import NoPostgres, PostgresServer
from tests.support.proxy import PostgresFrames, Proxy, postgres_query, zeo_call
from tests.support.zeo import ZeoServer

STORAGES = ("zeo", "sqlite", "postgresql")


class Unavailable(Exception):
    """What a storage needs is not on this machine."""


class Backend:
    """A storage: where it is, and what can be done to it."""

    kind = ""
    has_server = True  # so there is a network, and a process to kill
    can_be_full = False  # the disk can be full for it

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
    can_be_full = True

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
    """RelStorage on a PostgreSQL of its own."""

    kind = "postgresql"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        try:
            # Only processes are killed here; what they wrote is safe with the system.
            self._server = PostgresServer(fsync="off")
        except NoPostgres as reason:
            raise Unavailable(str(reason)) from None

    @property
    def uri(self) -> str:
        return self._server.uri("postgres")

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.remove()

    def kill(self) -> None:
        self._server.kill()

    def proxy(self, name: str) -> Proxy:
        return Proxy(("127.0.0.1", self._server.port), name=name, frames=PostgresFrames)

    def uri_through(self, proxy: Proxy | None) -> str:
        if proxy is None:
            return self.uri
        return self.uri.replace(f":{self._server.port}/", f":{proxy.address[1]}/")

    def commit(self) -> Any:
        return postgres_query("commit")


def backend(kind: str, directory: Path) -> Backend:
    """The storage of that kind, with its files in `directory`; raises Unavailable."""
    kinds: dict[str, type[Backend]] = {each.kind: each for each in (Zeo, Sqlite, Postgres)}
    return kinds[kind](directory)
