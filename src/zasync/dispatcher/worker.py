# SPDX-License-Identifier: ZPL-2.1
"""What a worker thread does with one job: load it, perform it, report the outcome."""

from __future__ import annotations

import dataclasses
import inspect
import threading
from typing import Any

from zasync import threadlocal
from zasync.dispatcher.history import JobInfos
from zasync.dispatcher.pool import Pool, Tracked
from zasync.failure import Failure
from zasync.foundation import clock
from zasync.foundation.attempts import Stopped, begun
from zasync.foundation.failpoints import reach
from zasync.foundation.reporting import events
from zasync.foundation.text import safe_repr
from zasync.interfaces import ReassignedError
from zasync.job import attempt, performance
from zasync.job.run import Ending, Outcome, Run


@dataclasses.dataclass(frozen=True)
class Worker:
    """The host of the jobs of one agent."""

    dispatcher: Any
    pool: Pool
    infos: JobInfos

    def start(self, tracked: Tracked) -> None:
        """Have a thread perform the job.  Called by the polling thread."""
        self.pool.submit(lambda connection: self._perform(tracked, connection))

    def _perform(self, tracked: Tracked, connection: Any) -> None:
        """Run a job that has been claimed and marked ACTIVE under the token of `tracked`."""
        try:
            reach("run.taken")
            run = Run(_load(connection, tracked.key), tracked.token, self, begun=True)
            thread = threading.get_ident()
            self.infos.update(tracked.key, call=repr(run.job), thread=thread, started=clock.now())
            self._settle(tracked, run, self._guarded(run, performance.perform))
        except BaseException:
            # Whatever this is, the job must not lie in its place for ever: it is handed back.
            self.pool.settled(tracked, Outcome(Ending.STOPPED))
            raise

    def _guarded(self, run: Run, step: Any) -> Outcome:
        """Do `step(run)`; what would end the process ends the job instead."""
        try:
            return step(run)  # type: ignore[no-any-return]
        except (SystemExit, KeyboardInterrupt) as error:
            events.process_ending_error(run.job, error)
            return self._fail(run, Failure())
        except Exception as error:  # not the job's: those are outcomes
            events.run_failed(repr(run.job), error)
            return self._fail(run, Failure())

    def _fail(self, run: Run, failure: Failure) -> Outcome:
        try:
            outcome = attempt.settle_failure(run, failure)
            if outcome.ending is Ending.CALLBACKS:
                outcome = performance.call_back(run.job, self)
            return outcome
        except Stopped:
            return Outcome(Ending.STOPPED)
        except ReassignedError:
            return Outcome(Ending.SUPERSEDED)

    def _settle(self, tracked: Tracked, run: Run, outcome: Outcome) -> None:
        if outcome.ending is Ending.SUSPENDED:
            tracked.running = False
            return
        self._note(tracked, run, outcome)
        self.pool.settled(tracked, outcome)

    def _note(self, tracked: Tracked, run: Run, outcome: Outcome) -> None:
        ended = outcome.ending in (Ending.COMPLETED, Ending.CALLBACKS)
        changes: dict[str, Any] = {"completed": clock.now(), "failed": None}
        if ended:
            changes |= {"failed": outcome.failed, "result": _short(run.job)}
        changes["reassigned"] = outcome.ending is Ending.SUPERSEDED
        self.infos.update(tracked.key, **changes)

    # Host

    def surroundings(self, run: Run) -> threadlocal.Surroundings:
        return threadlocal.Surroundings(
            lambda: run.job, dispatcher=self.dispatcher, agent_name=self.pool.agent_name
        )

    def takes(self, awaitable: Any) -> bool:
        return True

    def attach(self, run: Run, awaitable: Any) -> None:
        """Have a worker thread settle the run once the Deferred or coroutine has ended."""
        job = run.job
        key = (job.oid, job._p_jar.db().database_name)
        later = dataclasses.replace(run, job=None)

        def ended(value: Any = None, error: BaseException | None = None) -> None:
            self.pool.submit(lambda connection: self._resume(key, later, value, error, connection))

        if inspect.iscoroutine(awaitable):
            loop = self.dispatcher.coroutines
            around = threadlocal.Surroundings(
                lambda: loop.job(key[1], key[0].to_bytes(8, "big")),
                dispatcher=self.dispatcher,
                agent_name=self.pool.agent_name,
            )
            loop.run(awaitable, around, ended)
        else:
            awaitable.addBoth(ended)

    def _resume(
        self, key: Any, run: Run, value: Any, error: BaseException | None, connection: Any
    ) -> None:
        tracked = self.pool.tracked.get(key)
        if tracked is not None and tracked.token != run.token:
            tracked = None
        try:
            run = dataclasses.replace(run, job=_load(connection, key), begun=True)
            outcome = self._guarded(run, lambda run: performance.resume(run, value, error))
            if tracked is not None:
                self._settle(tracked, run, outcome)
        except BaseException:
            if tracked is not None:
                self.pool.settled(tracked, Outcome(Ending.STOPPED))
            raise
        if tracked is None:  # a callback: its parent, if that is done now, waits with its agent
            self.dispatcher.wake()


def _load(connection: Any, key: Any) -> Any:
    oid, database_name = key

    def load() -> Any:
        return connection.get_connection(database_name).get(oid.to_bytes(8, "big"))

    return begun(load, transaction_manager=connection.transaction_manager)


def _short(job: Any) -> Any:
    """The result as text."""
    try:
        return safe_repr(job.result)
    except Exception:  # a result that cannot be loaded any more
        return None
