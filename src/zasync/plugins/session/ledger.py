# SPDX-License-Identifier: ZPL-2.1
"""What the holder of a session reads and writes in the database, each in a short transaction.

Each looks first whether the session is still the holder's: a worker that was frozen, and taken for
dead, writes nothing more when it goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from zasync.interfaces import ACTIVE, ReassignedError
from zasync.plugins.backstage import Backstage

BATCH = 20  # messages or jobs in one transaction


@dataclasses.dataclass(frozen=True)
class Terms:
    """What was agreed when the session was opened."""

    driver: Any
    options: Mapping[str, Any]
    reconnect: bool
    give_up_after: timedelta | None
    most_unhandled: int


@dataclasses.dataclass(frozen=True)
class Letters:
    """What is to be sent next, and whether it is to be closed after that."""

    messages: list[tuple[int, str]]
    closing: str | None


class Ledger:
    """The session `session_oid` as the run `token` of the job `job_key` may see and change it."""

    def __init__(
        self, stage: Backstage, database: str, oid: int, job_key: tuple[str, bytes], token: int
    ) -> None:
        self._stage = stage
        self._database = database
        self._oid = oid.to_bytes(8, "big")
        self._job_key = job_key
        self._token = token

    def _session(self, connection: Any, *, to_write: bool) -> Any:
        """The session.  ReassignedError if it is held by somebody else, or by nobody."""
        name, oid = self._job_key
        job = connection.get_connection(name).get(oid)
        if job.status != ACTIVE or job._token != self._token:
            raise ReassignedError(f"{job!r} is no longer this run's")
        if to_write:
            job._p_jar.readCurrent(job)
        return connection.get_connection(self._database).get(self._oid)

    async def terms(self) -> Terms:
        """UnresolvableError if the driver's code is not in this process."""
        return await self._stage.do(self._terms)

    def _terms(self, connection: Any) -> Terms:
        session = self._session(connection, to_write=False)
        return Terms(
            session.driver(),
            dict(session.options),
            session.reconnect,
            session.give_up_after,
            session.most_unhandled,
        )

    async def watched(self) -> list[bytes]:
        """The oids of what changes when there is something to do."""
        return await self._stage.do(self._watched)

    def _watched(self, connection: Any) -> list[bytes]:
        session = self._session(connection, to_write=False)
        return [session._p_oid, session.outbox.count._p_oid]

    async def note(self, phase: Any, error: str = "") -> str:
        """Note the phase; answers the id from which on the other side is to go on."""
        return await self._stage.do(self._note, phase, error)

    def _note(self, connection: Any, phase: Any, error: str) -> str:
        state = self._session(connection, to_write=True).state
        state.note(phase, error)
        return str(state.resume)

    async def letters(self) -> Letters:
        """What is to be sent next."""
        return await self._stage.do(self._letters)

    def _letters(self, connection: Any) -> Letters:
        session = self._session(connection, to_write=False)
        return Letters(session.outbox.first(BATCH), session.closing)

    async def sent(self, keys: list[int], refused: list[str]) -> None:
        """Messages were sent; of those, some were `refused`, for these reasons."""
        await self._stage.do(self._sent, keys, refused)

    def _sent(self, connection: Any, keys: list[int], refused: list[str]) -> None:
        session = self._session(connection, to_write=True)
        session.outbox.remove(keys)
        state = session.state
        state.sent += len(keys) - len(refused)
        state.refused += len(refused)
        if refused:
            state.note_error(refused[-1])

    async def post(self, batch: list[Any]) -> None:
        """Put a job for each thing that was heard."""
        await self._stage.do(self._post, batch)

    def _post(self, connection: Any, batch: list[Any]) -> None:
        session = self._session(connection, to_write=True)
        queue, state = session.handler_queue, session.state
        for heard in batch:
            state.heard += 1
            state.unhandled[state.heard] = queue.put(session.handler_job(heard))
            state.resume = heard.id or state.resume

    async def unhandled(self) -> int:
        """How many of the jobs for what was heard have not ended."""
        return await self._stage.do(self._unhandled)

    def _unhandled(self, connection: Any) -> int:
        state = self._session(connection, to_write=True).state
        return int(state.prune())

    async def summary(self) -> dict[str, Any]:
        """How it went, for the result of the job."""
        return await self._stage.do(self._summary)

    def _summary(self, connection: Any) -> dict[str, Any]:
        session = self._session(connection, to_write=False)
        return {**session.summary(), "error": session.state.error}
