# SPDX-License-Identifier: ZPL-2.1
"""The steps of one run of a job: prepare, call, settle, call back.

Its outcome is a value; whoever runs the job acts on it: a dispatcher's worker thread
(`zasync.dispatcher.worker`), or `run_by_hand` here.  A run is named by its attempt token, and
commits nothing for a job that carries another one.  After an error from a commit the database is
asked what became of it; nothing is ever retried blindly.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import inspect
import logging
from collections.abc import Callable, Iterator
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
    of_callback: bool = False  # called with the result of its parent as well
    storage_pauses: Iterator[float] = dataclasses.field(
        default_factory=lambda: attempts.pauses(first=0.5, step=1.0)
    )

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


Step = Callable[[Run], "Outcome | Step"]
"""Answers the outcome, or the step to do next."""


def perform(run: Run, first: Step | None = None) -> Outcome:
    """Run the job until it has an outcome, and then its callbacks.

    The job is ACTIVE under the run's token, and that is committed.  `first` replaces the first
    attempt where a Deferred or a coroutine has already done the work.
    """
    next_one: Outcome | Step = first or attempt
    around = dataclasses.replace(run.host.surroundings(run), host=run.host)
    token = threadlocal.surroundings.set(around)
    try:
        while not isinstance(next_one, Outcome):
            next_one = _guarded(next_one, run)
    finally:
        threadlocal.surroundings.reset(token)
    if next_one.ending is Ending.CALLBACKS:
        next_one = _guarded(lambda run: call_back(run.job, run.host), run)
        assert isinstance(next_one, Outcome)
    return next_one


def _guarded(step: Step, run: Run) -> Outcome | Step:
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


def attempt(run: Run) -> Outcome | Step:
    """Call the job once and settle it."""
    job = run.job
    try:
        begin(run)
        callable, args, kwargs = prepare(run)
    except UnresolvableError as error:
        attempts.end(run.manager)
        events.job_unresolvable(job, error)
        return reschedule(run, UNRESOLVABLE_PAUSE)
    except (Stopped, ReassignedError):
        raise
    except Exception as error:
        return _not_begun(run, error, attempt)
    guard = CommitGuard(run, warns=not getattr(callable, "commits_by_itself", False))
    setup_info = None
    try:
        with guard:
            setup_info = job.setUp()
            value = callable(*args, **kwargs)
        outcome = settle(run, value, attempt)
    except Stopped:
        raise
    except (SystemExit, KeyboardInterrupt):
        attempts.end(run.manager)
        raise
    except BaseException:  # a ReassignedError too: it may be about another job that this one called
        outcome = _after_error(run)
    finally:
        tear_down(job, setup_info)
    return outcome


def _not_begun(run: Run, error: Exception, again: Step) -> Outcome | Step:
    """What the job needs could not be loaded.

    None of its code has been called, so a storage that is away is waited for, whatever the
    policy is; nothing of the job is used up.
    """
    trouble = classify(error, from_storage=True)
    if trouble is Trouble.OTHER:
        return _after_error(run)
    attempts.end(run.manager)
    seconds = attempts.CONFLICT_PAUSE if trouble is Trouble.CONFLICT else next(run.storage_pauses)
    events.storage_trouble(f"begin {_name(run.job)}", error, seconds)
    attempts.pause(seconds)
    return again


def begin(run: Run) -> None:
    """Begin a transaction in which the job is this run's and its policy knows all."""
    if not run.begun:
        run.manager.begin()
    run.begun = False
    run.check_owned()
    if run.attempts:
        run.job.forget_values()
    _remember(run)
    events.job_started(run.job)


def prepare(run: Run) -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
    """Load what is to be called, and with what."""
    job = run.job
    callable = job.callable
    args, kwargs = [*job.args, *run.args], {**job.kwargs, **run.kwargs}
    if run.of_callback:
        parent = relations.parent_job(job)
        parent.forget_values()
        args.append(parent.result)
    if inspect.iscoroutinefunction(callable):
        check_arguments_of_coroutine(job, callable, args, kwargs)
    return callable, args, kwargs


def check_arguments_of_coroutine(
    job: Any, callable: Any, args: list[Any], kwargs: dict[str, Any]
) -> None:
    """TypeError if a coroutine, which runs outside of any transaction, would get stored objects."""
    given = [*args, *kwargs.values()]
    while isinstance(callable, functools.partial):
        given += [*callable.args, *callable.keywords.values()]
        callable = callable.func
    given.append(getattr(callable, "__self__", None))
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
        if transaction.status != "Active":
            return  # a failed one is being aborted; nothing can be added to it
        job = self.run.job
        if not self.run.owns_job():
            transaction.join(Refusal(ReassignedError(f"{job!r} is no longer this run's")))
        elif self.warns:
            job._own_commits += 1
        else:
            job._p_jar.readCurrent(job)

    def afterCompletion(self, transaction: Any) -> None:
        if self.warns and transaction.status == "Committed":
            self.warns = False
            events.job_committed_itself(self.run.job)


class Refusal:
    """Joins a transaction that must not be committed, and sees to that."""

    transaction_manager = None

    def __init__(self, error: Exception) -> None:
        self.error = error

    def tpc_begin(self, transaction: Any) -> None:
        raise self.error

    def abort(self, transaction: Any) -> None:
        """Nothing was done."""

    commit = tpc_vote = tpc_finish = tpc_abort = abort

    def sortKey(self) -> str:
        return ""


# Settling


def settle(run: Run, value: Any, again: Step) -> Outcome | Step:
    """Commit what the callable did together with what it answered.

    `again` is the step to do once more if that cannot be committed now.
    """
    job = run.job
    run.check_owned()  # its code may have ended the transaction in which we looked
    value = _unwrapped(value)
    if is_awaitable(value):
        return _suspend(run, value, again)
    if IJob.providedBy(value):
        values.check_storable(f"the job that {job.callable_name} answers", value, run.connection)
        outcome = _wait_for(job, value)
    else:
        if not values.is_plain(value) and not isinstance(value, Failure):
            values.check_storable(f"the result of {job.callable_name}", value, run.connection)
        outcome = _finish(job, value)
    return _commit(run, outcome, again)


TwistedFailure: Any = Failure.__base__


def _unwrapped(value: Any) -> Any:
    """The result of a job that has ended already, instead of the job; our own kind of Failure."""
    while IJob.providedBy(value) and relations.has_result(value):
        value = value.result
    return Failure.from_twisted(value) if isinstance(value, TwistedFailure) else value


def is_awaitable(value: Any) -> bool:
    """Whether `value` is a coroutine or a Twisted Deferred (told by its addBoth)."""
    return inspect.iscoroutine(value) or callable(getattr(value, "addBoth", None))


def _finish(job: Any, value: Any) -> Outcome:
    job.finish(value)
    ending = Ending.CALLBACKS if job.status == CALLBACKS else Ending.COMPLETED
    return Outcome(ending, failed=job.failed)


def _wait_for(job: Any, inner: Any) -> Outcome:
    if inner is job:
        raise ValueError("a job cannot wait for itself", job)
    if job in relations.awaited_by(inner):
        raise ValueError("a job cannot wait for one that waits for it", job, inner)
    job.place_inner(inner)
    job.wait_for(inner)
    return Outcome(Ending.WAITING)


def _suspend(run: Run, awaitable: Any, again: Step) -> Outcome | Step:
    """Commit what the callable did so far; the job stays ACTIVE until the awaitable has ended.

    The mark in the job's record fences that commit, and tells whether it took effect.
    """
    if not run.host.takes(awaitable):
        awaitable.close()
        raise TypeError(
            f"{run.job!r} is an async job; called by hand it has no event loop to run on."
            "  Put it in a queue that a dispatcher works."
        )
    job, mark = run.job, clock.current().token()
    job._suspension = mark
    suspended = Outcome(Ending.SUSPENDED, awaitable=awaitable)
    try:
        outcome = _commit(run, suspended, again, lambda: run.owns_job() and job._suspension == mark)
    except BaseException:
        discard(awaitable)
        raise
    if outcome is suspended:
        run.host.attach(run, awaitable)
    else:
        discard(awaitable)
    return outcome


def discard(awaitable: Any) -> None:
    """Let go of a coroutine that will not be run."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()


def _commit(
    run: Run, outcome: Outcome, again: Step, settled: Callable[[], bool] | None = None
) -> Outcome | Step:
    """Commit; after an error believe what the database says, and else ask the policy.

    `settled` asks whether the commit took effect; by default, whether the job has moved on.
    """
    try:
        run.manager.commit()
    except (SystemExit, KeyboardInterrupt):
        attempts.end(run.manager)
        raise
    except ReassignedError:  # refused by the guard of a run around this one
        attempts.end(run.manager)
        raise
    except BaseException as error:
        failure = Failure()
        attempts.end(run.manager)
        if classify(error, from_storage=True) is not Trouble.CONFLICT:
            events.job_in_doubt(_name(run.job), error)
        if _look(run, settled or run.has_settled):
            _report(run, outcome)
            return outcome
        return decide(run, "commitError", failure, again)
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


def _after_error(run: Run) -> Outcome | Step:
    """The callable (or loading what it needs) raised what is being handled now."""
    failure = Failure()
    attempts.end(run.manager)
    return decide(run, "jobError", failure, attempt)


def decide(run: Run, question: str, failure: Failure, again: Step) -> Outcome | Step:
    """Ask the job's policy what to do after `failure`, and do it; `again` is the step to repeat."""
    decision = committed(_ask_policy, run, question, failure, transaction_manager=run.manager)
    if decision is True or (is_first_in_line(decision) and run.job.is_callback):
        events.job_retried(run.job, failure)
        run.attempts += 1
        longest = min(0.005 * 2**run.attempts, LONGEST_RETRY_PAUSE)
        attempts.pause(clock.current().random.uniform(0, longest))
        return again
    if decision is False:
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
        decision = _checked(getattr(job.getRetryPolicy(), question)(*args))
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


def _checked(decision: Any) -> Any:
    """A retry policy's answer, None as False; an error if it is none."""
    if decision is None:
        return False
    if not isinstance(decision, bool | datetime | timedelta):
        raise TypeError(
            "a retry policy answers a bool, a datetime or a timedelta, not", safe_repr(decision)
        )
    due_moment(decision)  # ValueError if it is naive
    return decision


def is_first_in_line(decision: Any) -> bool:
    """Whether a decision means to go back to the head of the queue: an empty timedelta."""
    return isinstance(decision, timedelta) and not decision


def due_moment(decision: Any) -> int:
    """When a decision means to run again, in microseconds since 1970."""
    if isinstance(decision, datetime):
        return clock.to_micros(clock.aware(decision, "the retry policy's answer"))
    if isinstance(decision, timedelta):
        return clock.now_micros() + decision // timedelta(microseconds=1)
    return clock.now_micros()


def settle_failure(run: Run, failure: Failure) -> Outcome:
    """Make `failure` the job's result, in a new transaction, and commit that."""
    outcome: Outcome = _settle_for_sure(run, _write_failure, failure)
    run.job.report_end()
    return outcome


def _settle_for_sure(run: Run, write: Callable[..., Any], *args: Any) -> Any:
    """Commit `write(run, *args)`, without what the policy wants to remember if that cannot be."""
    manager = run.manager
    try:
        return committed(write, run, *args, transaction_manager=manager, happened=run.has_settled)
    except Exception as error:
        if not run.data_cache or isinstance(error, Stopped | ReassignedError):
            raise
        events.policy_failed(run.job, error)
        run.data_cache.clear()
        return committed(write, run, *args, transaction_manager=manager, happened=run.has_settled)


def _write_failure(run: Run, failure: Failure) -> Outcome:
    run.check_owned()
    _remember(run)
    return _finish(run.job, failure)


def _remember(run: Run) -> None:
    """Have the policy take over what it noted; one that cannot does not stop the job's end."""
    if not run.data_cache:
        return
    try:
        run.job.getRetryPolicy().updateData(run.data_cache)
    except Exception as error:
        if classify(error, from_storage=True) is not Trouble.OTHER:
            raise
        events.policy_failed(run.job, error)
        run.data_cache.clear()
    run.job.policy_changed()


def reschedule(run: Run, decision: Any) -> Outcome:
    """Note in the job's own record, and commit, that it is to run again at another time.

    Its dispatcher puts it back in the queue; a callback is run again by its parent.
    """
    first_in_line = is_first_in_line(decision)
    due = 0 if first_in_line else due_moment(decision)
    _settle_for_sure(run, _write_again, due)
    events.job_rescheduled(run.job, "once" if first_in_line else clock.from_micros(due))
    return Outcome(Ending.RESCHEDULED)


def _write_again(run: Run, due: int) -> None:
    run.check_owned()
    _remember(run)
    job = run.job
    job._again = due
    if not job.is_callback:
        return
    put_callback_again(job, due)


def put_callback_again(callback: Any, due: int) -> None:
    """Make a callback ready to be run again by its parent at `due`, and see to that."""
    callback.move(Move.RETRY_CALLBACK)
    callback._again = due
    queue = callback.queue
    if queue is not None:
        when = clock.from_micros(due) if due else None
        continuing = relations.parent_job(callback).continue_callbacks
        put_resumption(queue, continuing, begin_after=when)


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
    manager = job._p_jar.transaction_manager
    seen = 0
    while True:
        token = clock.current().token()
        step = committed(_next_callback, job, seen, resuming, token, transaction_manager=manager)
        if step.callback is None:
            return Outcome(Ending.COMPLETED if step.done else Ending.CALLBACKS, failed=job.failed)
        seen = step.index + 1
        if step.interrupted:
            step.callback.handleInterrupt()
            seen = step.index
            continue
        if _run_callback(step.callback, host).ending is Ending.STOPPED:
            return Outcome(Ending.STOPPED, failed=job.failed)


@dataclasses.dataclass(frozen=True)
class _Step:
    """What to do next for the callbacks of a job."""

    callback: Any = None
    index: int = 0
    interrupted: bool = False
    done: bool = False


def _next_callback(job: Any, seen: int, resuming: bool, token: int) -> _Step:
    """Choose the next callback to run, from the index `seen` on; complete the job if none is left.

    Marks what is chosen as ACTIVE under the new `token`, in the transaction that will be
    committed; done again after a doubtful commit, it answers what it chose.
    """
    unfinished = False
    for index, item in enumerate(job.callbacks):
        callback = item.getJob(job.result) if ICallbackProxy.providedBy(item) else item
        if callback.status == COMPLETED:
            continue
        unfinished = True
        if index < seen:
            continue
        if callback.status == ACTIVE and callback._token == token:
            return _Step(callback, index)
        if callback.status == NEW and not _is_for_later(callback):
            callback.start(token)
            callback._starter = _runner()
            return _Step(callback, index)
        if callback.awaited is None and _was_left_behind(callback, resuming):
            return _Step(callback, index, interrupted=callback.status == ACTIVE)
    if not unfinished and job.status == CALLBACKS:
        extras = job.find_extras()
        if extras is not None:
            job._p_jar.readCurrent(extras)
        job.complete()
    return _Step(done=not unfinished)


def _is_for_later(callback: Any) -> bool:
    return callback._again is not None and callback._again > clock.now_micros()


def _runner() -> tuple[int, int] | None:
    """The job, and its attempt, that runs here and continues the callbacks of another; or None."""
    around = threadlocal.surroundings.get()
    if around is None:
        return None
    job = around.get_job()
    return job.oid, job._token


def _was_left_behind(callback: Any, resuming: bool) -> bool:
    """Whether whatever ran `callback` is gone.

    One that was started by a job that continues callbacks is left to that job, whose own
    interruption brings it here again, in another attempt.
    """
    if callback.status == NEW:  # for later
        return False
    runner, starter = _runner(), callback._starter
    if runner is None or starter is None:
        return resuming
    return bool(starter[0] == runner[0] and starter[1] != runner[1])


def _run_callback(callback: Any, host: Host) -> Outcome:
    if callback.status == CALLBACKS:  # its own call is done, its callbacks are not
        return call_back(callback, host, resuming=True)
    run = Run(callback, callback._token, host, of_callback=True)
    try:
        return perform(run)
    except (SystemExit, KeyboardInterrupt):
        give_up(run)
        raise


def give_up(run: Run) -> Outcome:
    """The process is to end: what is being handled becomes the job's failure, if it has no end."""
    try:
        return settle_failure(run, Failure())
    except ReassignedError:
        return Outcome(Ending.SUPERSEDED)


def continue_parents(job: Any, host: Host) -> None:
    """After `job`, which had to wait, has been completed: go on with those that waited for it."""
    parent = relations.parent_job(job)
    while parent is not None and parent.status == CALLBACKS and job.status == COMPLETED:
        outcome = call_back(parent, host)
        if outcome.ending is Ending.STOPPED:
            raise Stopped
        keep_books(parent, outcome)
        job, parent = parent, relations.parent_job(parent)


# Resumption of a run whose work was done by a Deferred or a coroutine


def resume(run: Run, value: Any = None, error: BaseException | None = None) -> Outcome:
    """Settle a suspended run with the value or the error that its awaitable ended with."""

    def land(run: Run) -> Outcome | Step:
        """Only this is done again after a conflict: what the callable did is committed already."""
        try:
            begin(run)
        except (Stopped, ReassignedError):
            raise
        except Exception as trouble:
            return _not_begun(run, trouble, land)
        if error is not None:
            attempts.end(run.manager)
            return decide(run, "jobError", Failure(error), attempt)
        try:
            return settle(run, value, land)
        except (Stopped, ReassignedError):
            raise
        except Exception:
            return _after_error(run)

    outcome = perform(run, land)
    if outcome.ending is Ending.COMPLETED:
        with contextlib.suppress(Stopped):  # then those are handed back too
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
        database, oid = run.connection.db(), run.job._p_oid

        def fired(value: Any) -> Any:
            manager = transaction.TransactionManager()
            connection = database.open(transaction_manager=manager)
            try:
                job = committed(lambda: connection.get(oid), transaction_manager=manager)
                outcome = resume(dataclasses.replace(run, job=job), value)
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
    job.check_resolvable()  # before anything is marked
    token = clock.current().token()
    job.start(token)
    run = Run(job, token, ByHand(), args, kwargs)
    _commit_start(run)
    try:
        outcome = perform(run)
    except (SystemExit, KeyboardInterrupt):
        keep_books(job, give_up(run))
        raise
    if outcome.ending is Ending.STOPPED:
        raise Stopped
    if outcome.ending is Ending.SUPERSEDED:
        raise ReassignedError(f"{job!r} was taken away while it ran; nothing was committed")
    keep_books(job, outcome)
    # In a new transaction, since another connection may have ended the job meanwhile.
    return committed(lambda: job.result, transaction_manager=manager)


def _commit_start(run: Run) -> None:
    """Commit the start mark and what the caller did; the error if that is sure to have failed."""
    manager = run.manager
    try:
        manager.commit()
    except Exception as error:
        attempts.end(manager)
        if classify(error, from_storage=True) is Trouble.CONFLICT or run.job._p_jar is None:
            raise
        events.job_in_doubt(_name(run.job), error)
        if not committed(run.owns_job, transaction_manager=manager):
            raise


def keep_books(job: Any, outcome: Outcome) -> None:
    """Do at once, and commit, what a dispatcher does for many jobs in its next poll.

    Within a dispatcher what an agent holds is left to the poll, so that agents have one writer.
    """
    if job.is_callback or outcome.ending not in (Ending.COMPLETED, Ending.RESCHEDULED):
        return
    around = threadlocal.surroundings.get()
    if around is None or around.dispatcher is None or job.agent is None:
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
    if not _is_failing_job_of(job):
        Move.FAIL.check(job)
    if not relations.has_result(job):
        _write_early_failure(job, error)
        manager.commit()
        job.report_end()
    outcome = call_back(job, host_here())
    if outcome.ending is Ending.STOPPED:
        raise Stopped
    keep_books(job, outcome)
    return job.result


def _is_failing_job_of(job: Any) -> bool:
    """Whether what runs here is the job that is to fail `job`: it may do that a second time."""
    around = threadlocal.surroundings.get()
    runner = None if around is None else around.get_job()
    if runner is None or runner._payload is None:
        return False
    return runner._payload.target is job and runner._names[-1] == "fail"


def _write_early_failure(job: Any, error: Any) -> None:
    queue = job.queue
    if job.status == PENDING:
        queue.remove(job)
        job.parent = queue  # so that its callbacks find it
    if isinstance(error, type):
        error = error()
    job.finish(error if isinstance(error, Failure) else Failure(error))


def host_here() -> Host:
    """What runs the callbacks of another job: what runs the present job, or nothing special."""
    around = threadlocal.surroundings.get()
    return ByHand() if around is None or around.host is None else around.host


def run_late_callback(job: Any, item: Any) -> None:
    """Run a callback that was added to a COMPLETED job, at once, committing before and after.

    Inside of a running job it is left to the queue instead: the running job's changes must not
    be committed before it has ended.
    """
    around = threadlocal.surroundings.get()
    if around is not None:
        queue = around.get_job().queue if job.queue is None else job.queue
        if queue is not None:
            put_resumption(queue, job.continue_callbacks)
            return
    _manager_of(job).commit()
    call_back(job, ByHand())


def _manager_of(job: Any) -> Any:
    home = getattr(job.parent, "_p_jar", None)
    if job._p_jar is None and home is not None:  # not committed yet, such as one that a claim made
        home.add(job)
    if job._p_jar is None:
        raise ValueError(
            f"{job!r} is not in a database; put it in a queue, or add it to a stored object and"
            " commit, before it is run"
        )
    return job._p_jar.transaction_manager
