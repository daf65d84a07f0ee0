# SPDX-License-Identifier: ZPL-2.1
"""The steps of one run of a job: prepare, call, settle, call back.

Its outcome is a value; whoever runs the job acts on it: a dispatcher's worker thread
(`zasync.dispatcher.worker`), or `run_by_hand` here.  A run is named by its attempt token, and
commits nothing for a job that carries another one.  After an error from a commit the database is
asked what became of it; nothing is ever retried blindly.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

import transaction

from zasync import threadlocal
from zasync.failure import Failure
from zasync.foundation import attempts, clock
from zasync.foundation.attempts import Stopped, committed
from zasync.foundation.errors import Trouble, classify
from zasync.foundation.reporting import events
from zasync.foundation.text import safe_repr
from zasync.interfaces import (
    ACTIVE,
    CALLBACKS,
    COMPLETED,
    NEW,
    PENDING,
    ICallbackProxy,
    IJob,
    ReassignedError,
    UnresolvableError,
)
from zasync.job import relations, retry, values
from zasync.job.states import Move

LONGEST_RETRY_PAUSE = 1.0  # seconds before an attempt is repeated: those who collided spread
UNRESOLVABLE_PAUSE = timedelta(minutes=1)


class Ending(enum.Enum):
    """How a run can end."""

    COMPLETED = "the job has its result, and its callbacks are done"
    CALLBACKS = "the job has its result; a callback goes on elsewhere or later"
    WAITING = "the job waits for an inner job"
    SUSPENDED = "the job waits for a Deferred or a coroutine"
    RESCHEDULED = "the job is to go back to its queue"
    SUPERSEDED = "the job was taken away from this run"
    STOPPED = "the process stops; the job is to be handed back"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a run: how it ended, and whether with a Failure."""

    ending: Ending
    failed: bool = False
    awaitable: Any = None
    setup_info: Any = None


class Host(Protocol):
    """What runs the job, as far as a run needs to know."""

    def surroundings(self, run: Run) -> threadlocal.Surroundings:
        """What `zasync.local` tells the job."""

    def attach(self, run: Run, awaitable: Any) -> None:
        """Have `run` resumed when the Deferred or coroutine has ended."""

    def takes(self, awaitable: Any) -> bool:
        """Whether `attach` can be called with this one."""


@dataclasses.dataclass
class Run:
    """One run of one job in one thread, from its start mark to its outcome."""

    job: Any
    token: int
    host: Host
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    data_cache: dict[str, Any] = dataclasses.field(default_factory=dict)
    begun: bool = False  # a transaction has just been begun for it
    attempts: int = 0  # so many were to be repeated at once

    @property
    def connection(self) -> Any:
        return self.job._p_jar

    @property
    def manager(self) -> Any:
        return self.connection.transaction_manager

    def owns_job(self) -> bool:
        """Whether the job, as the present transaction sees it, is still this run's to settle."""
        return bool(self.job.status == ACTIVE and self.job._token == self.token)

    def has_settled(self) -> bool:
        """Whether the present transaction sees what this run meant to commit."""
        job = self.job
        moved_on = job.status != ACTIVE or job._again is not None or job.awaited is not None
        return bool(job._token == self.token and moved_on)

    def check_owned(self) -> None:
        """ReassignedError if the job was taken away from this run."""
        if not self.owns_job():
            raise ReassignedError(f"{self.job!r} is no longer this run's")


Step = Callable[[Run], Outcome | None]


def perform(run: Run, first: Step | None = None) -> Outcome:
    """Run the job until it has an outcome, and then its callbacks.

    The job is ACTIVE under the run's token, and that is committed.  `first` replaces the first
    attempt where a Deferred or a coroutine has already done the work.
    """
    step = first or attempt
    token = threadlocal.surroundings.set(run.host.surroundings(run))
    try:
        while (outcome := _guarded(step, run)) is None:
            step = attempt
    finally:
        threadlocal.surroundings.reset(token)
    if outcome.ending is Ending.CALLBACKS:
        return call_back(run.job, run.host)
    return outcome


def _guarded(step: Step, run: Run) -> Outcome | None:
    """Do one step; being stopped or superseded in it is an outcome like others."""
    try:
        return step(run)
    except Stopped:
        attempts.end(run.manager)
        return Outcome(Ending.STOPPED)
    except ReassignedError as error:
        attempts.end(run.manager)
        events.job_lost(repr(run.job), error)
        return Outcome(Ending.SUPERSEDED)


# One attempt


def attempt(run: Run) -> Outcome | None:
    """Call the job once and settle it.  None: it is to be called again."""
    job = run.job
    try:
        begin(run)
        callable, args, kwargs = prepare(run)
    except UnresolvableError as error:
        run.manager.abort()
        events.job_unresolvable(job, error)
        return reschedule(run, UNRESOLVABLE_PAUSE)
    except (Stopped, ReassignedError):
        raise
    except Exception:  # what the job was given cannot be loaded
        return _after_error(run)
    guard = CommitGuard(run, warns=not getattr(callable, "commits_by_itself", False))
    setup_info = None
    try:
        with guard:
            setup_info = job.setUp()
            value = callable(*args, **kwargs)
        outcome = settle(run, value)
    except (Stopped, ReassignedError):
        raise
    except (SystemExit, KeyboardInterrupt):
        run.manager.abort()
        raise
    except BaseException:
        outcome = _after_error(run)
    finally:
        tear_down(job, setup_info)
    return outcome


def begin(run: Run) -> None:
    """Begin a transaction in which the job is this run's and its policy knows all."""
    if not run.begun:
        run.manager.begin()
    run.begun = False
    run.check_owned()
    if run.data_cache:
        run.job.getRetryPolicy().updateData(run.data_cache)
    events.job_started(run.job)


def prepare(run: Run) -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
    """Load what is to be called, and with what."""
    job = run.job
    callable = job.callable
    args, kwargs = [*job.args, *run.args], {**job.kwargs, **run.kwargs}
    if inspect.iscoroutinefunction(callable):
        check_arguments_of_coroutine(job, callable, args, kwargs)
    return callable, args, kwargs


def check_arguments_of_coroutine(
    job: Any, callable: Any, args: list[Any], kwargs: dict[str, Any]
) -> None:
    """TypeError if a coroutine, which runs outside of any transaction, would get stored objects."""
    given = [getattr(callable, "__self__", None), *args, *kwargs.values()]
    for value in given:
        if getattr(value, "_p_oid", None) is not None:
            raise TypeError(
                f"{job!r} is an async job and cannot get the persistent object"
                f" {safe_repr(value)}: it runs outside of any transaction.  Pass plain values, or"
                " make the job a function that reads what is needed and returns a coroutine."
            )


def tear_down(job: Any, setup_info: Any) -> None:
    """Call the job's tearDown; a failing one is logged, and work goes on."""
    try:
        job.tearDown(setup_info)
    except Exception:
        events.tear_down_failed(repr(job))


Function = TypeVar("Function", bound=Callable[..., Any])


def commits_by_itself(function: Function) -> Function:
    """Mark a callable of ours that commits: it is fenced like others, but nobody is warned."""
    function.commits_by_itself = True  # type: ignore[attr-defined]
    return function


class CommitGuard:
    """Fences what the job's own code commits, like the last commit, and says that it did."""

    def __init__(self, run: Run, warns: bool) -> None:
        self.run = run
        self.warns = warns

    def __enter__(self) -> None:
        self.run.manager.registerSynch(self)

    def __exit__(self, *exc_info: Any) -> None:
        self.run.manager.unregisterSynch(self)

    def newTransaction(self, transaction: Any) -> None:
        pass

    def beforeCompletion(self, transaction: Any) -> None:
        """Make the job's record part of what is about to be committed (or aborted)."""
        job = self.run.job
        if self.warns:
            job._own_commits += 1
        elif job._p_serial is not None:
            job._p_jar.readCurrent(job)

    def afterCompletion(self, transaction: Any) -> None:
        if self.warns and transaction.status == "Committed":
            self.warns = False
            events.job_committed_itself(self.run.job)


# Settling


def settle(run: Run, value: Any) -> Outcome | None:
    """Commit what the callable did together with what it answered."""
    job = run.job
    value = _unwrapped(value)
    if is_awaitable(value):
        return _suspend(run, value)
    if IJob.providedBy(value):
        outcome = _wait_for(job, value)
    else:
        if not values.is_plain(value) and not isinstance(value, Failure):
            values.check_storable(f"the result of {job.callable_name}", value, run.connection)
        outcome = _finish(job, value)
    return _commit(run, outcome)


def _unwrapped(value: Any) -> Any:
    """The result of a job that has ended already, instead of the job; our own kind of Failure."""
    while IJob.providedBy(value) and relations.has_result(value):
        value = value.result
    if type(value) is not Failure and getattr(type(value), "__name__", "") == "Failure":
        value = Failure.from_twisted(value)
    return value


def is_awaitable(value: Any) -> bool:
    """Whether `value` is a coroutine or a Twisted Deferred (told by its addBoth)."""
    return inspect.iscoroutine(value) or callable(getattr(value, "addBoth", None))


def _finish(job: Any, value: Any) -> Outcome:
    # Extras that are there may be given a callback at this moment.  Completing such a job is a
    # step of its own, which sees that (_next_callback).
    has_callbacks = job.find_extras() is not None
    job.finish(value, has_callbacks)
    return Outcome(Ending.CALLBACKS if has_callbacks else Ending.COMPLETED, failed=job.failed)


def _wait_for(job: Any, inner: Any) -> Outcome:
    if inner is job:
        raise ValueError("a job cannot wait for itself", job)
    job.place_inner(inner)
    job.wait_for(inner)
    return Outcome(Ending.WAITING)


def _suspend(run: Run, awaitable: Any) -> Outcome | None:
    """Commit what the callable did so far; the job stays ACTIVE until the awaitable has ended."""
    if not run.host.takes(awaitable):
        awaitable.close()
        raise TypeError(
            f"{run.job!r} is an async job; called by hand it has no event loop to run on."
            "  Put it in a queue that a dispatcher works."
        )
    try:
        outcome = _commit(run, Outcome(Ending.SUSPENDED, awaitable=awaitable))
    except BaseException:
        discard(awaitable)
        raise
    if outcome is None or outcome.ending is not Ending.SUSPENDED:
        discard(awaitable)
        return outcome
    run.host.attach(run, awaitable)
    return outcome


def discard(awaitable: Any) -> None:
    """Let go of a coroutine that will not be run."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()


def _commit(run: Run, outcome: Outcome) -> Outcome | None:
    """Commit; after an error believe what the database says, and else ask the policy."""
    try:
        run.manager.commit()
    except (SystemExit, KeyboardInterrupt):
        run.manager.abort()
        raise
    except BaseException as error:
        failure = Failure()
        attempts.end(run.manager)
        if classify(error, from_storage=True) is not Trouble.CONFLICT:
            events.job_in_doubt(_name(run.job), error)
        if _look(run, run.has_settled):
            _report(run, outcome)
            return outcome
        return decide(run, "commitError", failure)
    _report(run, outcome)
    return outcome


def _report(run: Run, outcome: Outcome) -> None:
    if outcome.ending in (Ending.COMPLETED, Ending.CALLBACKS):
        run.job.report_end()


def _name(job: Any) -> str:
    """Which job it is, without reading from a storage that may be away."""
    return f"job {int.from_bytes(job._p_oid or b'', 'big')}"


def _look(run: Run, question: Callable[[], bool]) -> bool:
    """Answer a question about the job in a new transaction, waiting for the storage if need be."""

    def ask() -> bool:
        if question():
            return True
        run.check_owned()
        return False

    return bool(committed(ask, transaction_manager=run.manager))


# After an error


def _after_error(run: Run) -> Outcome | None:
    """The callable (or loading what it needs) raised what is being handled now."""
    failure = Failure()
    attempts.end(run.manager)
    return decide(run, "jobError", failure)


def decide(run: Run, question: str, failure: Failure) -> Outcome | None:
    """Ask the job's policy what to do after `failure`, and do it.  None: run again now."""
    decision = committed(_ask_policy, run, question, failure, transaction_manager=run.manager)
    if decision is True:
        events.job_retried(run.job, failure)
        run.attempts += 1
        longest = min(0.005 * 2**run.attempts, LONGEST_RETRY_PAUSE)
        attempts.pause(clock.current().random.uniform(0, longest))
        return None
    if decision is False or decision is None:
        return settle_failure(run, failure)
    return reschedule(run, decision)


def _ask_policy(run: Run, question: str, failure: Failure) -> Any:
    run.check_owned()
    decision = ask_policy(run.job, question, failure, run.data_cache)
    # What the policy noted is in the data cache.  Nothing is written here: the policy takes it
    # over in the transaction of the next attempt, or in the one that settles.
    run.manager.abort()
    run.manager.begin()
    return decision


def ask_policy(job: Any, question: str, *args: Any) -> Any:
    """The decision of the job's policy; one that cannot decide, or comes too late, is False."""
    try:
        decision = getattr(job.getRetryPolicy(), question)(*args)
    except Stopped:
        raise
    except Exception as error:
        if classify(error, from_storage=True) is not Trouble.OTHER:
            raise
        events.policy_failed(job, error)
        return False
    if decision is False or job._deadline is None:
        return decision
    return False if due_moment(decision) > job._deadline else decision


def due_moment(decision: Any) -> int:
    """When a decision means to run again, in microseconds since 1970."""
    if isinstance(decision, datetime):
        return clock.to_micros(clock.aware(decision, "the retry policy's answer"))
    if isinstance(decision, timedelta):
        return clock.now_micros() + decision // timedelta(microseconds=1)
    return clock.now_micros()


def settle_failure(run: Run, failure: Failure) -> Outcome:
    """Make `failure` the job's result, in a new transaction, and commit that."""
    outcome = committed(
        _write_failure, run, failure, transaction_manager=run.manager, happened=run.has_settled
    )
    assert outcome is not None
    run.job.report_end()
    return outcome


def _write_failure(run: Run, failure: Failure) -> Outcome:
    run.check_owned()
    _remember(run)
    return _finish(run.job, failure)


def _remember(run: Run) -> None:
    if run.data_cache:
        run.job.getRetryPolicy().updateData(run.data_cache)


def reschedule(run: Run, decision: Any) -> Outcome:
    """Note in the job's own record, and commit, that it is to run again at another time.

    Its dispatcher puts it back in the queue; a callback is run again by its parent.
    """
    first_in_line = isinstance(decision, timedelta) and not decision
    due = 0 if first_in_line else due_moment(decision)
    committed(_write_again, run, due, transaction_manager=run.manager, happened=run.has_settled)
    events.job_rescheduled(run.job, "once" if first_in_line else clock.from_micros(due))
    return Outcome(Ending.RESCHEDULED)


def _write_again(run: Run, due: int) -> None:
    run.check_owned()
    _remember(run)
    job = run.job
    job._again = due
    if not job.is_callback:
        return
    job.move(Move.RETRY_CALLBACK)
    queue = job.queue
    if queue is not None:
        when = clock.from_micros(due) if due else None
        put_resumption(queue, relations.parent_job(job).continue_callbacks, begin_after=when)


def put_resumption(queue: Any, method: Any, begin_after: Any = None) -> None:
    """Put a job of ours that repairs or continues another job: first in line, never given up."""
    job = as_job(method)
    job.failure_log_level = logging.CRITICAL
    job.retry_policy_factory = retry.RetryCommonForever
    if begin_after is None:
        queue.putBack(job)
    else:
        queue.put(job, begin_after=begin_after)


def as_job(item: Any) -> Any:
    """Adapt `item` to IJob; a callable that nothing adapts becomes a plain Job."""
    if IJob.providedBy(item):
        return item
    job = IJob(item, None)
    if job is None:
        from zasync.job.job import Job  # a job is made of this module

        job = Job(item)
    return job


# Callbacks


def call_back(job: Any, host: Host, *, resuming: bool = False) -> Outcome:
    """Run the callbacks that are not done, one after the other; then the job is COMPLETED.

    Each runs in transactions of its own.  One that waits for something else is left; whoever
    ends it continues here.  `resuming` says that ACTIVE ones were interrupted.
    """
    seen = 0
    while True:
        step = committed(
            _next_callback, job, seen, resuming, transaction_manager=job._p_jar.transaction_manager
        )
        assert step is not None
        if step.callback is None:
            return Outcome(Ending.COMPLETED if step.done else Ending.CALLBACKS, failed=job.failed)
        seen = step.index + 1
        if step.interrupted:
            step.callback.handleInterrupt()
            seen = step.index
            continue
        _run_callback(step.callback, job, host)


@dataclasses.dataclass(frozen=True)
class _Step:
    """What to do next for the callbacks of a job."""

    callback: Any = None
    index: int = 0
    interrupted: bool = False
    done: bool = False


def _next_callback(job: Any, seen: int, resuming: bool) -> _Step:
    """Choose the next callback to run, from the index `seen` on; complete the job if none is left.

    Marks what is chosen as ACTIVE under a new token, in the transaction that will be committed.
    """
    unfinished = False
    for index, item in enumerate(job.callbacks):
        callback = item.getJob(job.result) if ICallbackProxy.providedBy(item) else item
        if callback.status == COMPLETED:
            continue
        unfinished = True
        if index < seen:
            continue
        if callback.status == NEW and not _is_for_later(callback):
            callback.start(clock.current().token())
            return _Step(callback, index)
        if resuming and callback.status == ACTIVE and callback.awaited is None:
            return _Step(callback, index, interrupted=True)
        if resuming and callback.status == CALLBACKS:
            return _Step(callback, index)
    if not unfinished and job.status == CALLBACKS:
        extras = job.find_extras()
        if extras is not None and extras._p_oid is not None:
            job._p_jar.readCurrent(extras)
        job.complete()
    return _Step(done=not unfinished)


def _is_for_later(callback: Any) -> bool:
    return callback._again is not None and callback._again > clock.now_micros()


def _run_callback(callback: Any, job: Any, host: Host) -> None:
    if callback.status == CALLBACKS:  # its own call is done, its callbacks are not
        call_back(callback, host, resuming=True)
        return
    run = Run(callback, callback._token, host, args=(job.result,))
    try:
        perform(run)
    except (SystemExit, KeyboardInterrupt):
        settle_failure(run, Failure())
        raise


def continue_parents(job: Any, host: Host) -> None:
    """After `job`, which had to wait, has been completed: go on with those that waited for it."""
    parent = relations.parent_job(job)
    while parent is not None and parent.status == CALLBACKS and job.status == COMPLETED:
        call_back(parent, host)
        job, parent = parent, relations.parent_job(parent)


# Resumption of a run whose work was done by a Deferred or a coroutine


def resume(run: Run, value: Any = None, error: BaseException | None = None) -> Outcome:
    """Settle a suspended run with the value or the error that its awaitable ended with."""

    def first(run: Run) -> Outcome | None:
        begin(run)
        if error is not None:
            run.manager.abort()
            return decide(run, "jobError", Failure(error))
        try:
            return settle(run, value)
        except (Stopped, ReassignedError):
            raise
        except Exception:
            return _after_error(run)

    outcome = perform(run, first)
    if outcome.ending is Ending.COMPLETED:
        continue_parents(run.job, run.host)
    return outcome


# By hand, outside of a dispatcher


class ByHand:
    """The host of a job that is simply called."""

    def surroundings(self, run: Run) -> threadlocal.Surroundings:
        outer = threadlocal.surroundings.get()
        if outer is None:
            return threadlocal.Surroundings(lambda: run.job)
        return dataclasses.replace(outer, get_job=lambda: run.job)

    def takes(self, awaitable: Any) -> bool:
        return not inspect.iscoroutine(awaitable)

    def attach(self, run: Run, awaitable: Any) -> None:
        """Settle in the thread in which the Deferred fires, in a connection of its own."""
        database, oid, token = run.connection.db(), run.job._p_oid, run.token
        args, kwargs = run.args, run.kwargs

        def fired(value: Any) -> Any:
            manager = transaction.TransactionManager()
            connection = database.open(transaction_manager=manager)
            try:
                job = connection.get(oid)
                outcome = resume(Run(job, token, self, args, kwargs), value)
                keep_books(job, outcome)
            finally:
                attempts.end(manager)
                connection.close()
            return value

        awaitable.addBoth(fired)


def run_by_hand(job: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`job(*args, **kwargs)`: run it in its connection's transaction manager; answers its result.

    What the caller has changed so far is committed with the start mark.
    """
    manager = _manager_of(job)
    Move.START.check(job)
    job.callable  # noqa: B018 - raises UnresolvableError before anything is marked
    token = clock.current().token()
    job.start(token)
    manager.commit()
    run = Run(job, token, ByHand(), args, kwargs)
    try:
        outcome = perform(run)
    except (SystemExit, KeyboardInterrupt):
        committed(_let_go, run, transaction_manager=manager)
        raise
    if outcome.ending is Ending.SUPERSEDED:
        raise ReassignedError(f"{job!r} was taken away while it ran; nothing was committed")
    keep_books(job, outcome)
    return job.result


def _let_go(run: Run) -> None:
    """The process ends: the job is as it was before, apart from its hold on an agent."""
    run.check_owned()
    run.job.finish(Failure(SystemExit("the process ended while the job ran")), False)


def keep_books(job: Any, outcome: Outcome) -> None:
    """Do at once, and commit, what a dispatcher does for many jobs in its next poll.

    Within a dispatcher that is left to the poll, so that its agents have one writer.
    """
    around = threadlocal.surroundings.get()
    if around is not None and around.dispatcher is not None:
        return
    if outcome.ending in (Ending.COMPLETED, Ending.RESCHEDULED) and not job.is_callback:
        committed(_keep_books, job, transaction_manager=job._p_jar.transaction_manager)


def _keep_books(job: Any) -> None:
    agent = job.agent
    if job.status == COMPLETED:
        if agent is not None and job.parent is agent and job in agent:
            agent.jobCompleted(job)
        return
    if job._again is not None:
        queue = job.queue
        if agent is not None:
            agent.let_go(job)
        put_again(job, queue)


def put_again(job: Any, queue: Any) -> None:
    """Put a job that is to run again back in `queue`; without one it is NEW.  Does not commit."""
    due, job._again = job._again, None
    if queue is None:
        job.move(Move.LET_GO)
        job.parent = None
    elif due:
        queue.reschedule(job, due)
    else:
        queue.putBack(job)


def fail_by_hand(job: Any, error: Any) -> Any:
    """`job.fail(error)`: make it the result, commit, and run the callbacks."""
    manager = _manager_of(job)
    Move.FAIL.check(job)
    if job.status == PENDING:
        job.queue.remove(job)
    failure = error if isinstance(error, Failure) else Failure(error)
    has_callbacks = bool(job.callbacks)
    agent = job.agent
    job.finish(failure, has_callbacks)
    if agent is not None and job.parent is agent and not has_callbacks:
        agent.jobCompleted(job)
    manager.commit()
    job.report_end()
    if has_callbacks:
        keep_books(job, call_back(job, ByHand()))
    return job.result


def run_late_callback(job: Any, item: Any) -> None:
    """Run a callback that was added to a COMPLETED job, at once, committing before and after.

    Inside of a running job it is left to the queue instead: the running job's changes must not
    be committed before it has ended.
    """
    if threadlocal.surroundings.get() is not None and job.queue is not None:
        put_resumption(job.queue, job.continue_callbacks)
        return
    _manager_of(job).commit()
    call_back(job, ByHand())


def _manager_of(job: Any) -> Any:
    if job._p_jar is None:
        raise ValueError(
            f"{job!r} is not in a database; put it in a queue, or add it to a stored object and"
            " commit, before it is run"
        )
    return job._p_jar.transaction_manager
