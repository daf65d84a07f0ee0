# SPDX-License-Identifier: ZPL-2.1
"""Progress of a coroutine, noted now and then without holding it up."""

from __future__ import annotations

import asyncio
from typing import Any

from zasync.foundation import clock
from zasync.plugins.backstage import Backstage

INTERVAL = 1.0  # seconds between two notes


class Progress:
    """Notes how far a job is: what is new is dropped while an older note is on its way."""

    def __init__(self, stage: Backstage, job: Any) -> None:
        self._stage = stage
        self._oid, self._database = job._p_oid, job._p_jar.db().database_name
        self._due = clock.monotonic()
        self._task: asyncio.Task[None] | None = None

    def note(self, text: str, done: float | None = None, total: float | None = None) -> None:
        """Note `text`, unless that was done a moment ago."""
        now = clock.monotonic()
        if now < self._due or (self._task is not None and not self._task.done()):
            return
        self._due = now + INTERVAL
        self._task = asyncio.create_task(self._stage.do(self._write, text, done, total))
        self._task.add_done_callback(_forget_error)

    def _write(self, connection: Any, text: str, done: float | None, total: float | None) -> None:
        job = connection.get_connection(self._database).get(self._oid)
        known = done is not None and total is not None
        job.note_progress(text, *((done, total) if known else (None, None)))


def _forget_error(task: asyncio.Task[None]) -> None:
    """A note that could not be written is no reason to fail, nor to complain of at the end."""
    if not task.cancelled():
        task.exception()
