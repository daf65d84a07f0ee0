# SPDX-License-Identifier: ZPL-2.1
"""What a worker thread does with one job: load it, perform it, report the outcome."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from zasync import threadlocal
from zasync.dispatcher.cancelling import task_name
from zasync.dispatcher.coroutines import Done
from zasync.dispatcher.expiry import overtime
from zasync.dispatcher.history import Key
from zasync.dispatcher.pool import ENOUGH, Pool, Tracked, forget_surroundings
from zasync.failure import Failure
from zasync.foundation import attempts, clock
from zasync.foundation.attempts import Stopped, begun
from zasync.foundation.errors import Trouble, classify
from zasync.foundation.failpoints import reach
from zasync.foundation.ghosts import ghost, planted
from zasync.foundation.reporting import events
from zasync.foundation.text import safe_repr
from zasync.interfaces import ReassignedError, TimeoutError
from zasync.job import attempt, performance, values
from zasync.job.group import BrokenUp, Group
from zasync.job.run import Ending, Landing, Outcome, Run


@dataclasses.dataclass(frozen=True)
class Worker:
    """The host of the jobs of one agent."""

    dispatcher: Any
    pool: Pool

    def perform(self, tracked: Tracked, connection: Any) -> None:
        """Run a job that has been claimed and marked ACTIVE under the token of `tracked`.

        Where it is short and may share its transaction, others of the stock join it.
        """
        members = [tracked]
        try:
            if self._may_group(tracked) and self.may_begin():
                self._perform_together(members, connection)
            else:
                self._perform_alone(tracked, connection)
        except BaseException:
            # Whatever this is, the job must not lie in its place for ever: it is handed back.
            left = [each for each in members if each.running and each.outcome is None]
            self.pool.settled(*((each, Outcome(Ending.STOPPED)) for each in left))
            raise

    def _perform_alone(self, tracked: Tracked, connection: Any) -> None:
        tracked.taken()
        reach("run.taken")
        job = _load(connection, tracked.key, tracked.kind)
        run = Run(job, tracked.token, self, begun=True)
        self._note_start(tracked, run)
        step = _fail_too_late if tracked.is_too_late() else performance.perform
        self._settle(tracked, run, self._guarded(run, step))
        if tracked.code is not None and run.seconds is not None:
            self.pool.grouping.ran_alone(tracked.code, run.seconds)

    # Several in one transaction

    def _may_group(self, tracked: Tracked) -> bool:
        """Whether others may join; what is set up around a job is there for that one alone."""
        return self.dispatcher.around_job is None and self.pool.is_groupable(tracked)

    def _perform_together(self, members: list[Tracked], connection: Any) -> None:
        """Run a group of jobs that begins with the one of `members`; what joins is added there."""
        self.pool.occupied()
        settled: list[tuple[Tracked, Outcome]] = []
        left: list[tuple[Tracked, Run | None, Outcome | None]] = []
        with self.dispatcher.turns.turn(self.pool.is_soon_over(members[0])):
            found = list(self._run_group(members, connection))
        for member, run, outcome in found:
            if run is not None and outcome is not None and outcome.ending is Ending.COMPLETED:
                self._note(member, run, outcome)
                settled.append((member, outcome))
            else:
                left.append((member, run, outcome))
        self.pool.settled(*settled)
        for member, run, outcome in left:
            if self.pool.stop_signal.is_set():
                self.pool.settled((member, Outcome(Ending.STOPPED)))
            elif run is None or outcome is None:
                self._perform_alone(member, connection)
            else:  # it was given callbacks while it ran
                called_back = self._guarded(run, performance.finish_with_callbacks)
                self._settle(member, run, called_back)

    def _run_group(
        self, members: list[Tracked], connection: Any
    ) -> Iterator[tuple[Tracked, Run | None, Outcome | None]]:
        """Answer each member, its run, and its outcome: None if it is to be run alone."""
        group = Group(connection.transaction_manager)
        culprit: Any = None
        try:
            for member in self._joining(group, members):
                culprit = member.code
                self._call(group, member, connection)
            culprit = None
            outcomes = group.settle()
        except BaseException as error:
            group.break_up(error)
            events.group_broken_up(len(members), error)
            if classify(error, from_storage=True) is not Trouble.OTHER:
                culprit = None
            outcomes = [None] * len(members)
        self.pool.grouping.ended(len(members), None not in outcomes, culprit)
        return itertools.zip_longest(members, group.runs, outcomes)

    def _joining(self, group: Group, members: list[Tracked]) -> Iterator[Tracked]:
        """The members to be called, as long as there are any that fit in."""
        began, hand_over = clock.monotonic(), self.pool.hand_overs
        group.begin()
        yield members[0]
        while (
            member := self.pool.next_member(len(members), clock.monotonic() - began, hand_over)
        ) is not None:
            members.append(member)
            yield member

    def _call(self, group: Group, tracked: Tracked, connection: Any) -> None:
        """Call one member of a group."""
        tracked.taken()
        if tracked.is_too_late():
            raise BrokenUp("it comes too late")
        job = _member(connection, tracked)
        run = Run(job, tracked.token, self)
        self._note_start(tracked, run)
        try:
            seconds = group.call(run)
        finally:
            forget_surroundings()
        self.pool.grouping.took(tracked.code, seconds)
        reach("group.called")

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
        self.pool.settled((tracked, outcome))

    def _note_start(self, tracked: Tracked, run: Run) -> None:
        call = run.job.described_later()
        tracked.info |= {"call": call, "thread": tracked.thread, "started": clock.now()}

    def _note(self, tracked: Tracked, run: Run, outcome: Outcome) -> None:
        ended = outcome.ending in (Ending.COMPLETED, Ending.CALLBACKS)
        changes: dict[str, Any] = {"completed": clock.now(), "failed": None}
        if ended:
            changes |= {"failed": outcome.failed, "result": _short(run.job)}
        changes["reassigned"] = outcome.ending is Ending.SUPERSEDED
        tracked.info |= changes

    # Host

    def surroundings(self, run: Run) -> threadlocal.Surroundings:
        return threadlocal.Surroundings(
            lambda: run.job, self.dispatcher, self.pool.agent_name, token=run.token, host=self
        )

    def around(self, job: Any) -> AbstractContextManager[Any]:
        if self.pool.size > ENOUGH and not attempt.may_be_coroutine(job.callable):
            self.pool.occupied()
        around_job = self.dispatcher.around_job
        return nullcontext() if around_job is None else around_job(job)

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
        seconds = None if job.timeout is None else job.timeout.total_seconds()
        later = dataclasses.replace(run, job=None, timeout=seconds)

        def ended(value: Any = None, error: BaseException | None = None) -> None:
            self.pool.submit(lambda connection: self._resume(key, later, value, error, connection))

        if inspect.iscoroutine(awaitable):
            self._run_coroutine(key, later, awaitable, ended)
        else:
            self._limit(awaitable, seconds)
            awaitable.addBoth(ended)

    def _limit(self, deferred: Any, seconds: float | None) -> None:
        """Cancel a Deferred that takes longer; it ends with a TimeoutError then."""
        if seconds is None:
            return
        reactor = self.dispatcher.reactor
        timers: list[Any] = []

        def begin() -> None:
            if not deferred.called:
                timers.append(reactor.callLater(seconds, deferred.cancel))

        def end() -> None:
            if timers and timers[0].active():
                timers[0].cancel()

        def ended(value: Any) -> Any:
            if timers and not timers[0].active():
                return Failure(overtime(seconds))
            reactor.callFromThread(end)
            return value

        deferred.addBoth(ended)
        reactor.callFromThread(begin)

    def _run_coroutine(self, key: Key, run: Run, coroutine: Any, ended: Done) -> None:
        loop = self.dispatcher.coroutines
        around = threadlocal.Surroundings(
            lambda: loop.job(key[1], key[0].to_bytes(8, "big")),
            dispatcher=self.dispatcher,
            agent_name=self.pool.agent_name,
            timeout=run.timeout,
            token=run.token,
        )

        def held_back() -> None:
            self.pool.submit(
                lambda connection: self._try_again(key, run, coroutine, ended, connection)
            )

        loop.run(coroutine, around, ended, held_back, name=task_name(key, run.token))

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
            self.pool.settled((tracked, Outcome(ending)))

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
        if isinstance(value, Landing):
            self.pool.occupied()
        try:
            run = dataclasses.replace(run, job=_load(connection, key), begun=True)
            outcome = self._guarded(run, lambda run: performance.resume(run, value, error))
            if tracked is not None:
                self._settle(tracked, run, outcome)
        except BaseException:
            if tracked is not None:
                self.pool.settled((tracked, Outcome(Ending.STOPPED)))
            raise
        if tracked is None:  # a callback: its parent, if that is done now, waits with its agent
            self.dispatcher.wake()


def _fail_too_late(run: Run) -> Outcome:
    """The job was claimed in time, but no thread was free by the moment it had to begin at."""
    error = TimeoutError("the job was not begun by its begin_by")
    return performance.fail(run, Failure(error))


def _member(connection: Any, tracked: Tracked) -> Any:
    """The job, in the present transaction."""
    oid = tracked.key[0].to_bytes(8, "big")
    copy, tracked.copy = tracked.copy, None
    if copy is None:
        return ghost(connection, oid, tracked.kind)
    return planted(connection, oid, tracked.kind, copy)


def _load(connection: Any, key: Any, kind: type | None = None) -> Any:
    """Begin a transaction and answer the job `key`, of class `kind` if that is known."""
    oid, database_name = key[0].to_bytes(8, "big"), key[1]

    def load() -> Any:
        home = connection.get_connection(database_name)
        return home.get(oid) if kind is None else ghost(home, oid, kind)

    return begun(load, transaction_manager=connection.transaction_manager)


def _short(job: Any) -> Any:
    """The result as text, or a function that makes it."""
    try:
        result = job.result
        if type(result) in values.SMALL:
            return functools.partial(safe_repr, result)
        return safe_repr(result)
    except Exception:  # a result that cannot be loaded any more
        return None
