# SPDX-License-Identifier: ZPL-2.1
"""Callbacks: which of them are called, in which order, and that none is ever lost."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import ConflictError, ReadConflictError

from tests.support.bench import Bench
from tests.support.clocks import StandingClock
from zasync.foundation import attempts
from zasync.interfaces import (
    ACTIVE,
    CALLBACKS,
    COMPLETED,
    NEW,
    BadStatusError,
    ReassignedError,
)
from zasync.job import Job, NeverRetry
from zasync.job.callbacks import Extras, pass_on

from . import things
from .test_calling import Answering, Script, answers, take_away  # noqa: F401
from .things import Counter, multiply


@pytest.fixture
def job(bench: Bench) -> Any:
    return bench.stored(multiply, 2)


@pytest.fixture
def failing(bench: Bench) -> Any:
    job = bench.stored(things.boom)
    job.failure_log_level = logging.DEBUG
    return job


def called(name: str, function: Any = None) -> Job:
    """A callback that notes its result in `things.acts`."""
    things.script[name] = function or (lambda *args: name)
    return Job(things.act, name)


def names() -> list[Any]:
    return [each[0] for each in things.acts]


def test_a_callback_gets_the_result(bench: Bench, job: Any) -> None:
    callback = job.addCallback(multiply)
    assert isinstance(callback, Job)
    assert (callback.parent, callback.status) == (job, NEW)

    job()

    assert (job.result, callback.result) == (4, 8)
    assert (job.status, callback.status) == (COMPLETED, COMPLETED)


def test_a_callback_gets_a_failure_too(bench: Bench, failing: Any) -> None:
    callback = failing.addCallback(things.same)

    failing()

    assert callback.result.check(ValueError)


def test_a_callback_may_have_arguments_of_its_own(bench: Bench, job: Any) -> None:
    callback = job.addCallback(Job(things.keyed, 1, a=2))

    job()

    assert callback.result == ((1, 4), {"a": 2})


def test_they_are_called_in_the_order_in_which_they_were_added(bench: Bench, job: Any) -> None:
    first = job.addCallback(called("1"))
    pair = job.addCallbacks(called("2"), called("not"))
    first.addCallback(called("1.1"))
    pair.addCallback(called("2.1"))
    job.addCallback(called("3"))

    job()

    assert names() == ["1", "1.1", "2", "2.1", "3"]
    assert len(job.callbacks) == 3
    assert (job.callbacks[0], list(job.callbacks)[1]) == (first, pair)


def test_each_runs_after_the_commit_in_a_transaction_of_its_own(bench: Bench) -> None:
    counter = bench.keep(Counter())

    def second(result: Any) -> None:
        counter.add(10)
        raise ValueError

    job = bench.stored(counter.add)
    job.addCallback(
        called("1", lambda result: bench.seen(job, lambda job: (job.status, job.result)))
    )
    job.addCallback(called("2", second))
    job.addCallback(called("3", lambda result: counter.add(100)))

    job()

    assert job.callbacks[0].result == (CALLBACKS, 1)
    assert bench.seen(counter, lambda counter: counter.value) == 101


def test_results_of_callbacks_do_not_change_the_jobs_result(bench: Bench) -> None:
    job = bench.stored(things.same, [1, 2, 3])
    boxed = bench.stored(things.same, {"x" * 2000: [1]})
    job.addCallback(called("takes", lambda result: result.pop()))
    seen = job.addCallback(called("sees", len))
    boxed.addCallback(called("takes", lambda result: result.clear()))

    job()
    boxed()

    assert job.result == [1, 2, 3]
    assert seen.result == 3
    assert bench.seen(job, lambda job: job.result) == [1, 2, 3]
    assert len(bench.seen(boxed, lambda job: job.result)) == 1


def test_a_callback_that_raises_does_not_stop_the_others(
    bench: Bench, job: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bad = job.addCallback(called("bad", Script(ValueError("bad"))))
    good = job.addCallback(called("good"))

    job()

    assert bad.result.check(ValueError)
    assert good.result == "good"
    assert (job.status, job.result) == (COMPLETED, 4)
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]


def test_level_and_policy_can_be_given(
    bench: Bench, job: Any, caplog: pytest.LogCaptureFixture
) -> None:
    one = job.addCallback(called("1", Script(ValueError())), logging.WARNING, NeverRetry)
    two = job.addCallbacks(
        called("2", Script(ConflictError())),
        failure_log_level=logging.WARNING,
        retry_policy_factory=NeverRetry,
    )

    job()

    assert one.retry_policy_factory is NeverRetry
    assert two.result.check(ConflictError)
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


# Pairs


@pytest.mark.parametrize("fails", [False, True])
def test_a_pair_calls_the_one_that_fits(bench: Bench, job: Any, failing: Any, fails: bool) -> None:
    chosen = failing if fails else job
    proxy = chosen.addCallbacks(called("success"), called("failure"))
    after = proxy.addCallback(things.same)
    assert (proxy.status, proxy.result, proxy.job) == (NEW, None, None)
    assert proxy.parent is chosen
    assert list(proxy.callbacks) == [after]

    chosen()

    expected = "failure" if fails else "success"
    assert names() == [expected]
    assert proxy.job is (proxy.failure if fails else proxy.success)
    assert (proxy.status, proxy.result, after.result) == (COMPLETED, expected, expected)
    assert list(proxy.callbacks) == [after]
    assert after.parent is proxy.job


def test_a_missing_half_passes_the_result_on(bench: Bench, job: Any, failing: Any) -> None:
    value = job.addCallbacks(failure=things.boom).addCallback(things.same)
    failure = failing.addCallbacks(success=things.boom).addCallbacks(failure=things.same)
    neither = job.addCallbacks().addCallback(things.same)

    job()
    failing()

    assert (value.result, neither.result) == (4, 4)
    assert failure.result.check(ValueError)


def test_passing_a_failure_on_is_no_news(
    bench: Bench, failing: Any, caplog: pytest.LogCaptureFixture
) -> None:
    failing.addCallbacks(success=things.boom)

    failing()

    assert [
        r for r in caplog.records if r.levelno > logging.DEBUG and r.name == "zasync.events"
    ] == []


def test_an_error_that_was_handled_does_not_go_further(bench: Bench, failing: Any) -> None:
    handled = failing.addCallbacks(failure=called("handler"))
    after = handled.addCallbacks(success=called("after"), failure=called("not"))

    failing()

    assert names() == ["handler", "after"]
    assert after.result == "after"


def test_nothing_is_called_for_a_pair_without_callables(bench: Bench, job: Any) -> None:
    proxy = job.addCallbacks()
    assert list(proxy.callbacks) == []

    job()

    assert proxy.result == 4
    assert pass_on(26) == 26


def test_a_choice_can_be_made_before_anything_is_stored() -> None:
    proxy = Job(multiply, 1).addCallbacks(multiply)
    chained = proxy.addCallback(multiply)

    assert list(proxy.getJob(1).callbacks) == [chained]


def test_a_choice_is_made_once(bench: Bench, job: Any) -> None:
    proxy = job.addCallbacks(multiply)

    assert proxy.getJob(1) is proxy.getJob(2) is proxy.success


def test_a_callback_added_to_a_proxy_after_the_choice_is_called(bench: Bench, job: Any) -> None:
    proxy = job.addCallbacks(called("success"))
    job()

    late = proxy.addCallback(called("late"))

    assert late.result == "late"
    assert late.parent is proxy.job


# Who can be a callback


def test_a_job_that_has_a_place_cannot_be_a_callback(bench: Bench, job: Any) -> None:
    queued = bench.queue.put(Job(multiply, 1))
    callback = job.addCallback(multiply)

    for taken in [queued, callback]:
        with pytest.raises(BadStatusError, match="has a place already"):
            job.addCallback(taken)
    with pytest.raises(ValueError, match="cannot be put"):
        bench.queue.put(callback)


def test_a_job_cannot_be_a_callback_of_itself(job: Any) -> None:
    callback = job.addCallback(multiply)
    proxy = callback.addCallbacks(multiply)

    for place in [job, callback, proxy]:
        with pytest.raises(ValueError, match="callback of itself"):
            place.addCallback(job)


# When they are added


def test_a_callback_added_while_the_job_runs_is_called(bench: Bench) -> None:
    def work() -> str:
        with bench.elsewhere() as there:
            there(job).addCallback(Job(things.act, "late"))
        return "work"

    things.script["work"] = work
    called("late")
    job = bench.held(things.act, "work")

    job()
    bench.work()

    assert names().count("work") == 1
    assert names().count("late") == 1
    assert [callback.status for callback in job.callbacks] == [COMPLETED]


def test_a_callback_added_by_the_job_itself_is_called(bench: Bench) -> None:
    job = bench.stored(things.act, "work")
    things.script["work"] = lambda: job.addCallback(called("own")) and None

    job()

    assert names() == ["work", "own"]


def test_a_callback_added_during_the_callbacks_is_called(bench: Bench, job: Any) -> None:
    def first(result: Any) -> None:
        with bench.elsewhere() as there:
            there(job).addCallback(Job(things.act, "late"))

    called("late")
    job.addCallback(called("first", first))
    bench.commit()

    job()

    assert names() == ["first", "late"]
    assert job.status == COMPLETED


def test_a_callback_added_while_the_job_is_completed_is_not_lost(bench: Bench, job: Any) -> None:
    job.addCallback(called("first"))
    bench.commit()
    manager = bench.open_another()
    there = manager.connection.get(job._p_oid)
    things.script["first"] = lambda result: there.addCallback(Job(things.act, "late")) and None
    called("late")
    job()  # completes the job, as `there` does not see yet

    with pytest.raises((ConflictError, ReadConflictError)):
        manager.commit()
    manager.begin()
    late = there.addCallback(Job(things.act, "late"))

    assert late.status == COMPLETED
    assert names() == ["first", "late"]
    manager.close()


def test_a_callback_added_to_a_pair_while_it_is_chosen_is_not_lost(bench: Bench, job: Any) -> None:
    pair = job.addCallbacks(called("success"))
    pair.addCallback(called("first"))
    bench.commit()
    called("late")
    raced = []

    def race(*args: Any) -> None:
        if not raced and pair.job is not None:
            raced.append(True)
            with bench.elsewhere() as there:
                there(pair).addCallback(Job(things.act, "late"))

    class Racer:
        newTransaction = afterCompletion = staticmethod(lambda transaction: None)
        beforeCompletion = staticmethod(race)

    bench.manager.registerSynch(racer := Racer())

    job()

    assert racer is not None
    assert raced
    assert names() == ["success", "first", "late"]


def test_a_callback_added_to_a_completed_job_is_called_at_once(bench: Bench, job: Any) -> None:
    job()

    callback = job.addCallback(called("late"))
    chained = callback.addCallback(called("chained"))
    pair = job.addCallbacks(called("pair"))

    assert (callback.result, chained.result, pair.result) == ("late", "chained", "pair")
    assert bench.seen(callback, lambda callback: callback.status) == COMPLETED


def test_one_added_within_a_job_is_left_to_the_queue(bench: Bench) -> None:
    done = bench.held(multiply, 1)
    done()
    counter = bench.keep(Counter())

    def work() -> None:
        counter.add()
        done.addCallback(called("late"))
        assert names() == ["work"]
        raise ValueError

    things.script["work"] = Script(work, lambda: done.addCallback(called("late")) and None)
    assert bench.stored(things.act, "work")().check(ValueError)
    assert counter.value == 0
    bench.stored(things.act, "work")()

    bench.work()

    assert names() == ["work", "work", "late"]


def test_one_added_within_a_job_to_a_job_without_a_queue_uses_that_of_the_job(
    bench: Bench, job: Any
) -> None:
    job()
    things.script["work"] = lambda: job.addCallback(called("late")) and None
    bench.queue.put(Job(things.act, "work"))
    bench.commit()

    bench.work()

    assert names() == ["work", "late"]


def test_without_any_queue_one_added_within_a_job_is_called_at_once(bench: Bench, job: Any) -> None:
    job()
    things.script["work"] = lambda: job.addCallback(called("late")).result

    assert bench.stored(things.act, "work")() == "late"


def test_extras_made_on_both_sides_of_the_end_are_united(bench: Bench) -> None:
    job = bench.held(multiply, 1)
    mailbox = bench.agent.mailbox
    left, made = Extras(), Extras()
    job._extras = made
    mailbox[job.oid] = left

    left.callbacks, made.callbacks = ("left",), ("made",)
    job.annotations["made"] = job.annotations["both"] = 1
    from BTrees.OOBTree import OOBTree

    left.annotations = OOBTree({"left": 2, "both": 2})
    job.collect_extras(mailbox)

    assert job.callbacks == ("made", "left")
    assert dict(job.annotations) == {"made": 1, "both": 1, "left": 2}
    job.collect_extras(mailbox)
    assert job.callbacks == ("made", "left")


def test_annotations_of_one_side_only_are_kept() -> None:
    with_some, without = Extras(), Extras()
    with_some.annotations = {"a": 1}

    without.take_in(with_some)
    assert without.annotations == {"a": 1}
    without.take_in(Extras())
    assert without.annotations == {"a": 1}


# Callbacks that wait


def test_a_callback_may_wait_for_a_job(bench: Bench, job: Any) -> None:
    inner = bench.stored(multiply, 10)
    slow = job.addCallback(called("slow", lambda result: inner))
    chained = slow.addCallback(multiply)
    job.addCallback(called("next"))

    job()
    assert names() == ["slow", "next"]
    assert (job.status, slow.status, chained.status) == (CALLBACKS, ACTIVE, NEW)

    inner()

    assert (slow.result, chained.result) == (20, 40)
    assert (job.status, slow.status) == (COMPLETED, COMPLETED)


def test_a_held_job_leaves_its_agent_when_the_last_callback_is_done(bench: Bench) -> None:
    inner = bench.stored(multiply, 10)
    job = bench.held(multiply, 1)
    job.addCallback(called("slow", lambda result: inner))
    bench.commit()
    job()
    assert list(bench.agent) == [job]

    bench.work()

    assert list(bench.agent) == []
    assert set(bench.agent.completed) == {job, inner}


def test_a_callback_may_wait_for_a_deferred(bench: Bench, job: Any) -> None:
    deferred: Any = Deferred()
    slow = job.addCallback(called("slow", lambda result: deferred))
    chained = slow.addCallback(multiply)
    job()
    assert job.status == CALLBACKS

    deferred.callback(3)

    bench.begin()
    assert (slow.result, chained.result, job.status) == (3, 6, COMPLETED)


def test_a_callback_that_is_put_off_is_called_later(
    bench: Bench,
    answers: Any,  # noqa: F811
    standing: StandingClock,
) -> None:
    answers["jobError"] = timedelta(minutes=5)
    job = bench.queue.put(Job(multiply, 1))
    off = job.addCallback(
        called("off", Script(KeyError(), "later")), retry_policy_factory=Answering
    )
    job.addCallback(called("next"))
    bench.commit()

    bench.work()
    assert (job.status, off.status) == (CALLBACKS, NEW)
    assert names() == ["off", "next"]
    assert bench.work() == 0
    standing.move(minutes=5)
    bench.work()

    assert (job.status, off.result) == (COMPLETED, "later")
    assert list(bench.agent) == []


def test_a_callback_first_in_line_is_called_again_at_once(
    bench: Bench,
    answers: Any,  # noqa: F811
    job: Any,
) -> None:
    answers["jobError"] = timedelta()
    soon = job.addCallback(
        called("soon", Script(KeyError(), "soon")), retry_policy_factory=Answering
    )

    job()

    assert soon.result == "soon"
    assert job.status == COMPLETED


def test_without_a_queue_a_callback_that_was_put_off_waits_to_be_resumed(
    bench: Bench,
    answers: Any,  # noqa: F811
    job: Any,
    standing: StandingClock,
) -> None:
    answers["jobError"] = timedelta(minutes=5)
    off = job.addCallback(
        called("off", Script(KeyError(), "later")), retry_policy_factory=Answering
    )
    job()
    job.resumeCallbacks()
    assert off.status == NEW

    standing.move(minutes=5)
    job.resumeCallbacks()

    assert (off.result, job.status) == ("later", COMPLETED)


def test_a_callback_whose_code_is_gone_waits_for_it(
    bench: Bench, standing: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(things, "passing", multiply_passing, raising=False)
    monkeypatch.setattr(multiply_passing, "__module__", things.__name__)
    monkeypatch.setattr(multiply_passing, "__qualname__", "passing")
    job = bench.queue.put(Job(multiply, 1))
    gone = job.addCallback(things.passing)
    bench.commit()
    monkeypatch.delattr(things, "passing")

    bench.work()
    assert (job.status, gone.status) == (CALLBACKS, NEW)

    monkeypatch.setattr(things, "passing", multiply_passing, raising=False)
    standing.move(minutes=1)
    bench.work()
    assert (job.status, gone.result) == (COMPLETED, 4)


def multiply_passing(value: int) -> int:
    return value * 2


# Doubts, stops and ends


def test_a_doubtful_start_of_a_callback_does_not_lose_it(bench: Bench, job: Any) -> None:
    job.addCallback(called("first"))
    job.addCallback(called("second"))
    bench.commit()
    bench.storage.fail("after finish", ClientDisconnected(), skip=2)

    job()

    assert names() == ["first", "second"]
    assert job.status == COMPLETED


def test_what_ends_the_process_in_a_callback_goes_up_and_leaves_the_others(
    bench: Bench, job: Any
) -> None:
    bad = job.addCallback(called("bad", Script(SystemExit(3))))
    chained = bad.addCallback(called("chained"))
    job.addCallback(called("next"))
    bench.commit()

    with pytest.raises(SystemExit):
        job()

    bench.begin()
    assert bad.result.check(SystemExit)
    assert (job.status, bad.status, names()) == (CALLBACKS, CALLBACKS, ["bad"])
    job.resumeCallbacks()
    assert names() == ["bad", "chained", "next"]
    assert (job.status, chained.status) == (COMPLETED, COMPLETED)


def test_a_callback_that_was_taken_away_commits_nothing_and_others_go_on(
    bench: Bench, job: Any
) -> None:
    counter = bench.keep(Counter())

    def work(result: Any) -> None:
        counter.add()
        take_away(bench, taken, 7)

    taken = job.addCallback(called("taken", work))
    job.addCallback(called("next"))
    bench.commit()

    job()

    assert names() == ["taken", "next"]
    assert (job.status, taken.status, counter.value) == (CALLBACKS, ACTIVE, 0)


def test_a_stop_in_a_callback_leaves_the_rest_for_later(bench: Bench, job: Any) -> None:
    stop = threading.Event()

    def halt(result: Any) -> None:
        stop.set()
        raise ClientDisconnected

    job.addCallback(called("halt", Script(halt, "again")))
    job.addCallback(called("next"))
    bench.commit()
    token = attempts.stop_signal.set(stop)
    try:
        with pytest.raises(attempts.Stopped):
            job()
    finally:
        attempts.stop_signal.reset(token)
    bench.begin()
    assert (job.status, names()) == (CALLBACKS, ["halt"])

    job.resumeCallbacks()

    assert names() == ["halt", "halt", "next"]
    assert job.status == COMPLETED


def test_a_job_cannot_be_called_again_by_a_reassigned_run(bench: Bench, job: Any) -> None:
    job.addCallback(called("first", Script(ReassignedError("not ours"))))

    job()

    assert job.callbacks[0].result.check(ReassignedError)
