# SPDX-License-Identifier: ZPL-2.1
"""What a worker thread does with one job: load it, perform it, report the outcome."""

from __future__ import annotations

import dataclasses
import inspect
import threading
from typing import Any

from zasync import threadlocal
from zasync.dispatcher.coroutines import Done
from zasync.dispatcher.history import JobInfos, Key
from zasync.dispatcher.pool import Pool, Tracked
from zasync.failure import Failure
from zasync.foundation import attempts, clock
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

    def perform(self, tracked: Tracked, connection: Any) -> None:
        """Run a job that has been claimed and marked ACTIVE under the token of `tracked`."""
        try:
            tracked.taken()
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
        tracked.thread = None
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

    def may_begin(self) -> bool:
        return bool(self.dispatcher.may_begin())

    def wait_to_begin(self) -> None:
        self.dispatcher.pulse.wait()

    def attach(self, run: Run, awaitable: Any) -> None:
        """Have a worker thread settle the run once the Deferred or coroutine has ended."""
        job = run.job
        key = (job.oid, job._p_jar.db().database_name)
        later = dataclasses.replace(run, job=None)

        def ended(value: Any = None, error: BaseException | None = None) -> None:
            self.pool.submit(lambda connection: self._resume(key, later, value, error, connection))

        if inspect.iscoroutine(awaitable):
            self._run_coroutine(key, later, awaitable, ended)
        else:
            awaitable.addBoth(ended)

    def _run_coroutine(self, key: Key, run: Run, coroutine: Any, ended: Done) -> None:
        loop = self.dispatcher.coroutines
        around = threadlocal.Surroundings(
            lambda: loop.job(key[1], key[0].to_bytes(8, "big")),
            dispatcher=self.dispatcher,
            agent_name=self.pool.agent_name,
        )

        def held_back() -> None:
            self.pool.submit(
                lambda connection: self._try_again(key, run, coroutine, ended, connection)
            )

        loop.run(coroutine, around, ended, held_back)

    def _try_again(self, key: Key, run: Run, coroutine: Any, ended: Done, connection: Any) -> None:
        """Begin a coroutine that was held back, if its job is still this run's by then."""
        try:
            self.wait_to_begin()
            run = dataclasses.replace(run, job=_load(connection, key))
            run.check_owned()
        except BaseException as error:
            attempt.discard(coroutine)
            self._give_up(self._tracked(key, run), error)
            return
        finally:
            attempts.end(connection.transaction_manager)
        self._run_coroutine(key, dataclasses.replace(run, job=None), coroutine, ended)

    def _give_up(self, tracked: Tracked | None, error: BaseException) -> None:
        """A suspended run has ended without a result."""
        superseded = isinstance(error, ReassignedError)
        if superseded:
            events.job_lost(str(error), error)
        elif not isinstance(error, Stopped):
            events.worker_failed(self.pool.queue_name, self.pool.agent_name, error)
        if tracked is not None:
            ending = Ending.SUPERSEDED if superseded else Ending.STOPPED
            self.pool.settled(tracked, Outcome(ending))

    def _tracked(self, key: Key, run: Run) -> Tracked | None:
        """What the pool knows of the run; None of that of a callback, or of a former one."""
        tracked = self.pool.tracked.get(key)
        return tracked if tracked is not None and tracked.token == run.token else None

    def _resume(
        self, key: Any, run: Run, value: Any, error: BaseException | None, connection: Any
    ) -> None:
        tracked = self._tracked(key, run)
        if tracked is not None:
            tracked.taken()
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
