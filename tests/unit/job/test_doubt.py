# SPDX-License-Identifier: ZPL-2.1
"""Commits whose outcome is not known, storages that fail at odd moments, stops, and takeovers."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import zope.component
import zope.interface
from twisted.internet.defer import Deferred
from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import ConflictError

from tests.support.bench import Bench
from tests.support.clocks import StandingClock
from zasync.foundation import attempts
from zasync.interfaces import ACTIVE, CALLBACKS, COMPLETED, NEW, IJob
from zasync.job import Job, NeverRetry, adapting, bookkeeping, performance, run
from zasync.job.attempt import LONGEST_RETRY_PAUSE
from zasync.job.by_hand import ByHand
from zasync.job.performance import perform
from zasync.job.run import Ending, Run

from . import things
from .test_callbacks import called, names
from .test_calling import Answering, Script, answers, scripted, take_away  # noqa: F401
from .things import Counter, multiply

AFTER, BEFORE = "after finish", "before finish"


@pytest.fixture
def counter(bench: Bench) -> Any:
    return bench.keep(Counter())


@pytest.mark.parametrize("policy", [None, NeverRetry])
@pytest.mark.parametrize("error", [ClientDisconnected(), OSError(), KeyError("odd")])
def test_a_commit_that_took_effect_is_believed(
    bench: Bench, counter: Any, policy: Any, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    job = scripted(bench, lambda: counter.add(), retry_policy_factory=policy)
    job.addCallback(called("callback"))
    bench.commit()
    bench.storage.fail(AFTER, error, skip=1)

    assert job() == 1

    assert names() == ["it", "callback"]
    assert bench.seen(counter, lambda counter: counter.value) == 1
    assert job.status == COMPLETED
    assert "asking the database" in caplog.text


def test_a_commit_that_did_not_take_effect_is_repeated(bench: Bench, counter: Any) -> None:
    job = scripted(bench, lambda: counter.add())
    job.addCallback(called("callback"))
    bench.commit()
    bench.storage.fail(BEFORE, ClientDisconnected(), skip=1)

    assert job() == 1

    assert names() == ["it", "it", "callback"]
    assert bench.seen(counter, lambda counter: counter.value) == 1


def test_a_failure_whose_commit_is_in_doubt_is_committed_once(bench: Bench) -> None:
    job = scripted(bench, Script(KeyError()))
    bench.storage.fail(AFTER, ClientDisconnected(), skip=1)

    assert job().check(KeyError)


def test_a_put_off_job_whose_commit_is_in_doubt_is_put_back_once(
    bench: Bench,
    answers: Any,  # noqa: F811
) -> None:
    from datetime import timedelta

    answers["jobError"] = timedelta(minutes=1)
    things.script["it"] = Script(KeyError())
    job = bench.held(things.act, "it")
    job.retry_policy_factory = Answering
    bench.commit()
    bench.storage.fail(AFTER, ClientDisconnected(), skip=1)

    job()

    assert list(bench.queue) == [job]
    assert list(bench.agent) == []


def test_a_suspension_that_took_effect_is_believed(bench: Bench, counter: Any) -> None:
    deferred: Any = Deferred()

    def work() -> Any:
        counter.add()
        return deferred

    job = scripted(bench, work)
    bench.storage.fail(AFTER, ClientDisconnected(), skip=1)

    job()
    deferred.callback("landed")

    bench.begin()
    assert (job.result, counter.value, names()) == ("landed", 1, ["it"])


def test_a_landing_that_took_effect_is_believed(bench: Bench) -> None:
    deferred: Any = Deferred()
    job = scripted(bench, lambda: deferred, retry_policy_factory=NeverRetry)
    job.addCallback(called("callback"))
    bench.commit()
    job()
    bench.storage.fail(AFTER, ClientDisconnected())

    deferred.callback("landed")

    bench.begin()
    assert (job.result, names()) == ("landed", ["it", "callback"])


def test_a_start_that_took_effect_goes_on(bench: Bench) -> None:
    job = bench.stored(multiply, 3)
    bench.storage.fail(AFTER, ClientDisconnected())

    assert job() == 6


@pytest.mark.parametrize(
    ("point", "error"), [(BEFORE, ClientDisconnected()), ("vote", ConflictError())]
)
def test_a_start_that_did_not_take_effect_is_an_error(
    bench: Bench, point: str, error: Exception
) -> None:
    job = bench.stored(multiply, 3)
    bench.storage.fail(point, error)

    with pytest.raises(type(error)):
        job()

    bench.begin()
    assert job.status == NEW
    assert job() == 6


def test_bookkeeping_may_be_done_twice(bench: Bench) -> None:
    job = bench.held(multiply, 3)
    bench.storage.fail(AFTER, ClientDisconnected(), skip=2)

    job()

    assert list(bench.agent.completed) == [job]
    bookkeeping.keep_books(job, run.Outcome(Ending.COMPLETED))
    bookkeeping.keep_books(bench.stored(multiply, 1), run.Outcome(Ending.RESCHEDULED))
    assert list(bench.agent.completed) == [job]
    assert list(bench.agent) == []


# Runs as a dispatcher makes them


def started(bench: Bench, function: Any, **options: Any) -> Any:
    job = scripted(bench, function, **options)
    job.start(5)
    bench.commit()
    return job


def test_a_run_of_a_job_that_is_not_its_own_ends_at_once(bench: Bench) -> None:
    job = started(bench, lambda: 1)

    assert perform(Run(job, 6, ByHand())).ending is Ending.SUPERSEDED
    assert names() == []


def test_a_run_whose_transaction_has_begun_does_not_begin_another(bench: Bench) -> None:
    job = started(bench, lambda: "done")
    bench.begin()

    assert perform(Run(job, 5, ByHand(), begun=True)).ending is Ending.COMPLETED
    assert job.result == "done"


def test_a_landing_of_a_job_that_is_not_its_own_ends_at_once(bench: Bench) -> None:
    job = started(bench, lambda: Deferred())
    run = Run(job, 5, ByHand())
    perform(run)
    take_away(bench, job, 6)

    assert performance.resume(run, "late").ending is Ending.SUPERSEDED
    assert bench.seen(job, lambda job: job.result) is None


def test_a_landing_that_is_taken_away_at_its_commit_is_discarded(bench: Bench) -> None:
    job = started(bench, lambda: Deferred())
    run = Run(job, 5, ByHand())
    perform(run)
    synch = _BeforeTheEnd(job, lambda: take_away(bench, job, 6))
    bench.manager.registerSynch(synch)

    assert performance.resume(run, "late").ending is Ending.SUPERSEDED

    assert synch.done
    assert bench.seen(job, lambda job: (job.status, job._token)) == (ACTIVE, 6)


class _BeforeTheEnd:
    """Does something once, before the commit in which a job has its result."""

    def __init__(self, job: Any, do: Any) -> None:
        self.job, self.do, self.done = job, do, False

    def newTransaction(self, transaction: Any) -> None:
        pass

    afterCompletion = newTransaction

    def beforeCompletion(self, transaction: Any) -> None:
        if not self.done and self.job.status != ACTIVE:
            self.done = True
            self.do()


def test_a_storage_that_goes_away_while_a_landing_begins_is_waited_for(
    bench: Bench, standing: StandingClock
) -> None:
    deferred: Any = Deferred()
    job = scripted(bench, lambda: deferred, retry_policy_factory=NeverRetry)
    job()
    bench.storage.fail("load", ClientDisconnected(), skip=1, times=2)

    deferred.callback("landed")

    bench.begin()
    assert job.result == "landed"
    assert standing.waits == [0.5, 1.5]


@pytest.mark.parametrize("looks_again", [False, True])
def test_a_job_that_loses_its_caller_while_it_runs_commits_nothing(
    bench: Bench, counter: Any, looks_again: bool
) -> None:
    def inner_work() -> None:
        take_away(bench, outer, 7)
        if looks_again:
            bench.begin()
        counter.add()

    things.script["inner"] = inner_work
    inner = bench.stored(things.act, "inner")
    outer = started(bench, lambda: inner())

    assert perform(Run(outer, 5, ByHand())).ending is Ending.SUPERSEDED

    assert names() == ["it", "inner"]
    assert bench.seen(counter, lambda counter: counter.value) == 0


def test_a_storage_that_goes_away_while_the_policy_takes_over_is_waited_for(
    bench: Bench,
    answers: Any,  # noqa: F811
) -> None:
    def ask(failure: Any, cache: Any) -> bool:
        cache["asked"] = True
        return False

    answers["jobError"] = ask
    answers["updateData"] = Script(ClientDisconnected(), None)

    assert scripted(bench, Script(KeyError()), retry_policy_factory=Answering)().check(KeyError)


def test_callables_are_adapted_to_jobs_where_there_is_an_adapter(bench: Bench) -> None:
    class Special(Job):
        pass

    @zope.interface.implementer(IJob)
    def adapter(function: Any) -> Any:
        return Special(function)

    zope.component.provideAdapter(adapter, (type(multiply),), IJob)

    assert type(adapting.as_job(multiply)) is Special
    assert type(adapting.as_job("text".upper)) is Job


def test_callbacks_without_any_callback_are_completed(bench: Bench) -> None:
    job = bench.stored(multiply, 1)
    job._status = CALLBACKS
    bench.commit()

    job.resumeCallbacks()

    assert job.status == COMPLETED


# Stops


@pytest.fixture
def stop() -> Any:
    event = threading.Event()
    token = attempts.stop_signal.set(event)
    yield event
    attempts.stop_signal.reset(token)


def stopping(stop: threading.Event) -> Any:
    def work(*args: Any) -> None:
        stop.set()
        raise ClientDisconnected

    return work


def test_a_stop_in_a_callback_stops_who_fails_the_job(bench: Bench, stop: Any) -> None:
    job = bench.stored(multiply, 1)
    job.addCallback(called("callback", stopping(stop)))
    bench.commit()

    with pytest.raises(attempts.Stopped):
        job.fail()

    assert job.status == CALLBACKS


def test_a_stop_in_a_callback_stops_who_resumes(bench: Bench, stop: Any) -> None:
    job = bench.stored(multiply, 1)
    callback = job.addCallback(called("callback", stopping(stop)))
    bench.commit()
    job._status = CALLBACKS
    repair = bench.queue.put(Job(job.resumeCallbacks))
    bench.commit()
    assert bench.agent is not None

    with pytest.raises(attempts.Stopped):
        bench.work()

    assert (callback.status, repair.status) == (ACTIVE, ACTIVE)
    stop.clear()
    things.script["callback"] = lambda result: "again"
    bench.restart()
    while bench.work():
        pass
    bench.begin()
    assert bench.connection.get(callback._p_oid).result == "again"
    assert bench.connection.get(repair._p_oid).status == COMPLETED


def test_a_stop_in_a_callback_stops_the_way_up_to_the_parents(bench: Bench, stop: Any) -> None:
    inner = bench.stored(multiply, 1)
    things.script["slow"] = lambda result: inner
    job = bench.stored(multiply, 1)
    slow = job.addCallback(called("slow", lambda result: inner))
    bench.commit()
    job()
    last = job.addCallback(called("last", stopping(stop)))
    bench.commit()

    with pytest.raises(attempts.Stopped):
        inner()

    bench.begin()
    assert (slow.status, job.status, last.status) == (COMPLETED, CALLBACKS, ACTIVE)


def test_a_stop_on_the_way_up_from_a_landing_leaves_the_rest(bench: Bench, stop: Any) -> None:
    deferred: Any = Deferred()
    job = bench.stored(multiply, 1)
    slow = job.addCallback(called("slow", lambda result: deferred))
    bench.commit()
    job()
    last = job.addCallback(called("last", stopping(stop)))
    bench.commit()

    deferred.callback("landed")

    bench.begin()
    assert (slow.result, last.status, job.status) == ("landed", ACTIVE, CALLBACKS)


def test_bookkeeping_within_a_dispatcher_is_left_to_its_poll(
    bench: Bench, standing: StandingClock
) -> None:
    from zasync import threadlocal

    around = threadlocal.Surroundings(lambda: held, dispatcher=object())
    held, free = bench.held(multiply, 1), bench.stored(multiply, 1)
    token = threadlocal.surroundings.set(around)
    try:
        held()
        free()
    finally:
        threadlocal.surroundings.reset(token)

    assert (held.status, free.status) == (COMPLETED, COMPLETED)
    assert list(bench.agent) == [held]


def test_runs_that_collided_wait_for_different_times(
    bench: Bench, standing_clock: StandingClock
) -> None:
    for _ in range(5):
        job = scripted(bench, Script(*[ConflictError("again")] * 4, "done"))
        bench.commit()
        assert job() == "done"
    waited = [seconds for seconds in standing_clock.waits if seconds]
    assert len(waited) == 20
    assert len(set(waited)) == 20
    assert max(waited) <= LONGEST_RETRY_PAUSE
