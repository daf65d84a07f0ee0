# SPDX-License-Identifier: ZPL-2.1
"""One database for several processes: a FileStorage is served to them, others need nothing."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from zasync.cli.child import Pauses
from zasync.foundation import clock
from zasync.foundation.reporting import events
from zasync.storage import EmbeddedServer, StorageError, is_file_storage


class Shared:
    """The database `uri` so that `processes` processes can open it, as a context manager.

    `self.uri` is what they open.  Where that needs a server, `check` starts it again if it has
    died; its clients wait for it and reconnect by themselves.
    """

    def __init__(self, uri: str, processes: int) -> None:
        served = processes > 1 and is_file_storage(uri)
        self._server = EmbeddedServer(uri) if served else None
        self._own_uri = uri
        self._pauses = Pauses()
        self._started = 0.0
        self._due = 0.0

    @property
    def uri(self) -> str:
        """Under which the processes can open the database."""
        return self._own_uri if self._server is None else self._server.uri

    def __enter__(self) -> Self:
        if self._server is not None:
            self._server.start()
            self._started = clock.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.stop()

    def check(self) -> None:
        """Start the server again if there is one and it has died; to be called every second."""
        server, now = self._server, clock.monotonic()
        if server is None or server.is_running() or now < self._due:
            return
        events.server_died()
        pause = self._pauses.after(now - self._started)
        try:
            server.restart()
        except (StorageError, OSError) as error:
            events.server_not_started(error, pause)
        else:
            events.server_is_back()
        self._started = clock.monotonic()
        self._due = self._started + pause
