# SPDX-License-Identifier: ZPL-2.1
"""One attempt at a job, up to its result: prepare, call, settle; and what follows an error.

Each step answers an outcome, or the step to do next.  After an error from a commit the database
is asked what became of it; nothing is ever retried blindly.  Read `zasync.job.performance` first.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import types
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from zasync.failure import Failure
from zasync.foundation import attempts, clock
from zasync.foundation.attempts import Stopped, committed
from zasync.foundation.errors import Trouble, classify, is_of_a_storage
from zasync.foundation.failpoints import reach
from zasync.foundation.reporting import events
from zasync.foundation.text import safe_repr
from zasync.interfaces import (
    ACTIVE,
    CALLBACKS,
    IJob,
    ParkedError,
    ReassignedError,
    UnresolvableError,
)
from zasync.job import crashes, relations, two_databases, values
from zasync.job.bookkeeping import put_callback_again
from zasync.job.decisions import ask_policy, due_moment, is_first_in_line
from zasync.job.run import CommitGuard, Ending, Outcome, Run, Step

LONGEST_RETRY_PAUSE = 1.0  # seconds before an attempt is repeated: those who collided spread


UNRESOLVABLE_PAUSE = timedelta(minutes=1)


def attempt(run: Run) -> Outcome | Step:
    """Call the job once and settle it."""
    job = run.job
    try:
        begin(run)
        if job._interrupted:
            return follow(run)
        if job.awaited is not None:  # what an earlier attempt committed, and could not see yet
            attempts.end(run.manager)
            return Outcome(Ending.WAITING)
        callable, args, kwargs = prepare(run)
    except UnresolvableError as error:
        attempts.end(run.manager)
        events.job_unresolvable(job, error)
        return reschedule(run, UNRESOLVABLE_PAUSE)
    except (Stopped, ReassignedError):
        raise
    except Exception as error:
        return not_begun(run, error, attempt)
    if not run.host.may_begin():
        attempts.end(run.manager)
        run.host.wait_to_begin()
        return attempt  # looks anew whether the job is still this run's
    guard = CommitGuard(run, warns=not getattr(callable, "commits_by_itself", False))
    setup_info, around = None, contextlib.ExitStack()
    began = clock.monotonic()
    try:
        reach("run.begun")
        with guard:
            around.enter_context(run.host.around(job))
            setup_info = job.setUp()
            args, kwargs = job.load_arguments(callable, args, kwargs)
            value = callable(*args, **kwargs)
        run.seconds = clock.monotonic() - began
        reach("run.returned")
        outcome = settle(run, value, attempt)
    except Stopped:
        raise
    except (SystemExit, KeyboardInterrupt):
        attempts.end(run.manager)
        raise
    except BaseException:  # a ReassignedError too: it may be about another job that this one called
        outcome = after_error(run)
    finally:
        tear_down(job, setup_info, around)
    return outcome


def follow(run: Run) -> Outcome | Step:
    """Before a job is run again: what an interrupted attempt has committed counts."""
    found = two_databases.find(run.job)
    if found is not None:
        outcome = take_over(run, found)
        if outcome.ending is not Ending.SUSPENDED:  # that one has lost what it waited for
            return outcome
    committed(_forget_interruptions, run, transaction_manager=run.manager)
    return attempt


def _forget_interruptions(run: Run) -> None:
    run.check_owned()
    two_databases.forget_interruptions(run.job)


def take_over(run: Run, found: two_databases.Found) -> Outcome:
    """Write, and commit, what this job's commit has left out in the queue's database."""
    outcome: Outcome = committed(_write_what_was_found, run, found, transaction_manager=run.manager)
    two_databases.report(run.job, found)
    _report(run, outcome)
    return outcome


def _write_what_was_found(run: Run, found: two_databases.Found) -> Outcome:
    job = run.job
    if run.owns_job() and not run.has_settled():
        two_databases.take_over(job, found)
        two_databases.forget_interruptions(job)
    elif job._token != run.token:
        run.check_owned()
    if job.status == ACTIVE:
        return Outcome(Ending.SUSPENDED if job.awaited is None else Ending.WAITING)
    return Outcome(Ending.CALLBACKS if job.status == CALLBACKS else Ending.COMPLETED, job.failed)


def not_begun(run: Run, error: Exception, again: Step) -> Outcome | Step:
    """What the job needs could not be loaded.

    None of its code has been called, so a storage that is away is waited for, whatever the
    policy is; nothing of the job is used up.
    """
    trouble = classify(error, from_storage=True)
    if trouble is Trouble.OTHER:
        return after_error(run)
    attempts.end(run.manager)
    seconds = attempts.CONFLICT_PAUSE if trouble is Trouble.CONFLICT else run.next_pause()
    events.storage_trouble(f"begin {name_of(run.job)}", error, seconds)
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
    args, kwargs = job.given()
    args += run.args
    kwargs |= run.kwargs
    if run.of_callback:
        parent = relations.parent_job(job)
        parent.forget_values()
        args.append(parent.result)
    if may_be_coroutine(callable):
        check_arguments_of_coroutine(job, callable, args, kwargs)
    return callable, args, kwargs


def may_be_coroutine(callable: Any) -> bool:
    """Whether `callable` is an async function; soon told of an ordinary one."""
    if type(callable) is types.FunctionType and not callable.__dict__:
        return bool(callable.__code__.co_flags & inspect.CO_COROUTINE)
    return inspect.iscoroutinefunction(callable)


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


def tear_down(job: Any, setup_info: Any, around: contextlib.ExitStack) -> None:
    """Call the job's tearDown, and end what was `around` it.

    A failing one is logged, and work goes on.
    """
    for step in (lambda: job.tearDown(setup_info), around.close):
        try:
            step()
        except Exception:
            events.tear_down_failed(repr(job))


def settle(run: Run, value: Any, again: Step) -> Outcome | Step:
    """Commit what the callable did together with what it answered.

    `again` is the step to do once more if that cannot be committed now.
    """
    job = run.job
    run.check_owned()  # its code may have ended the transaction in which we looked
    value = unwrapped(value)
    if is_awaitable(value):
        return _suspend(run, value, again)
    if IJob.providedBy(value):
        values.check_storable(f"the job that {job.callable_name} answers", value, run.connection)
        outcome = _wait_for(job, value)
    else:
        outcome = finish(run, value)
    return _commit(run, outcome, again)


def finish(run: Run, value: Any) -> Outcome:
    """Make `value` the job's result, if it can be stored.  Does not commit."""
    if (
        type(value) not in values.SMALL
        and not values.is_plain(value)
        and not isinstance(value, Failure)
    ):
        what = f"the result of {run.job.callable_name}"
        values.check_storable(what, value, run.connection)
    return _finish(run.job, value)


TwistedFailure: Any = Failure.__base__
_NEVER_AWAITABLE = frozenset({type(None), bool, int, float, str, bytes, tuple, list, dict, set})


def unwrapped(value: Any) -> Any:
    """The result of a job that has ended already, instead of the job; our own kind of Failure."""
    if type(value) in _NEVER_AWAITABLE:
        return value
    while IJob.providedBy(value) and relations.has_result(value):
        value = value.result
    return Failure.from_twisted(value) if isinstance(value, TwistedFailure) else value


def is_awaitable(value: Any) -> bool:
    """Whether `value` is a coroutine or a Twisted Deferred (told by its addBoth)."""
    if type(value) in _NEVER_AWAITABLE:
        return False
    return inspect.iscoroutine(value) or callable(getattr(value, "addBoth", None))


_SUCCEEDED, _FAILED = (Outcome(Ending.COMPLETED, failed=failed) for failed in (False, True))


def _finish(job: Any, value: Any) -> Outcome:
    job.finish(value)
    if job.status == CALLBACKS:
        return Outcome(Ending.CALLBACKS, failed=job.failed)
    return _FAILED if job.failed else _SUCCEEDED


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
        reach("run.committing")
        two_databases.secure(run)
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
            events.job_in_doubt(name_of(run.job), error)
        if _look(run, settled or run.has_settled):
            _report(run, outcome)
            return outcome
        found = two_databases.find(run.job) if run.in_halves else None
        if found is not None:
            taken = take_over(run, found)
            return outcome if taken.ending is outcome.ending else taken
        run.in_halves = False
        return decide(run, "commitError", failure, again)
    reach("run.settled")
    _report(run, outcome)
    return outcome


def _report(run: Run, outcome: Outcome) -> None:
    if outcome.ending in (Ending.COMPLETED, Ending.CALLBACKS):
        run.job.report_end()


def name_of(job: Any) -> str:
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


def after_error(run: Run, again: Step = attempt) -> Outcome | Step:
    """The callable (or loading what it needs) raised what is being handled now.

    `again` is the step to do once more if the policy says so.
    """
    failure = Failure()
    # Said here, since a Failure keeps no frames that would tell.
    error = sys.exception()
    of_storage = error is not None and is_of_a_storage(error)
    attempts.end(run.manager)
    reach("run.failed")
    return decide(run, "commitError" if of_storage else "jobError", failure, again)


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


def settle_failure(run: Run, failure: Failure) -> Outcome:
    """Make `failure` the job's result, in a new transaction, and commit that.

    Unless a commit was broken off that has taken effect in other databases than the queue's.
    """
    found = two_databases.find(run.job) if run.in_halves else None
    if found is not None:
        return take_over(run, found)
    outcome: Outcome = _settle_for_sure(run, _write_failure, failure)
    if run.job.awaited is not None:  # what was committed is what an earlier attempt had answered
        return Outcome(Ending.WAITING)
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
    if run.job.awaited is not None:
        return Outcome(Ending.WAITING)
    _remember(run)
    outcome = _finish(run.job, failure)
    if failure.check(ParkedError):
        crashes.park(run.job)
    reach("run.failing")
    return outcome


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
    if job.is_callback:
        put_callback_again(job, due)
    reach("run.rescheduling")
