# SPDX-License-Identifier: ZPL-2.1
"""A job that is called by hand: what it commits, what becomes of errors, whom it waits for."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import transaction
import zope.component
from twisted.internet.defer import Deferred
from twisted.python import failure as twisted_failure
from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import ConflictError

from tests.support.bench import Bench
from tests.support.clocks import StandingClock
from zasync import local
from zasync.failure import Failure
from zasync.foundation import attempts
from zasync.interfaces import (
    ACTIVE,
    CALLBACKS,
    COMPLETED,
    NEW,
    PENDING,
    BadStatusError,
    IJob,
    IRetryPolicy,
    NotStorableError,
    ReassignedError,
)
from zasync.job import Job, NeverRetry, RetryCommonForever
from zasync.job.by_hand import ByHand
from zasync.job.run import Ending, Run

from . import things
from .test_job import PlainPolicy
from .things import Counter, HookedJob, Plain, multiply


@pytest.fixture
def counter(bench: Bench) -> Any:
    return bench.keep(Counter())


def scripted(bench: Bench, function: Any, *args: Any, **options: Any) -> Any:
    """A stored job that calls `function`, a closure of the test."""
    things.script["it"] = function
    job = Job(things.act, "it", *args)
    for name, value in options.items():
        setattr(job, name, value)
    return bench.keep(job)


class Script:
    """Does one thing after the other, one for each call; raises what is an exception."""

    def __init__(self, *steps: Any) -> None:
        self.steps = list(steps)
        self.calls = 0

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        step = self.steps.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step(*args) if callable(step) else step


# The plain way


def test_the_result_and_the_changes_are_committed_together(bench: Bench, counter: Any) -> None:
    job = bench.stored(counter.add, 3)
    before = bench.storage.commits

    assert job() == 3

    assert bench.storage.commits == before + 2  # the start, and the end
    assert bench.seen(counter, lambda counter: counter.value) == 3
    assert bench.seen(job, lambda job: (job.status, job.result)) == (COMPLETED, 3)
    assert bench.seen(job, lambda job: job._p_serial == there_serial(job, counter)) is True


def there_serial(job: Any, counter: Any) -> Any:
    return job._p_jar.get(counter._p_oid)._p_activate() or job._p_jar.get(counter._p_oid)._p_serial


def test_arguments_of_the_call_are_added(bench: Bench) -> None:
    job = bench.stored(things.keyed, 1, a=2, b=3)

    assert job(4, b=5) == ((1, 4), {"a": 2, "b": 5})


def test_it_is_active_for_others_while_it_runs(bench: Bench) -> None:
    job = scripted(bench, lambda: bench.seen(job, lambda job: job.status))

    assert job() == ACTIVE


def test_a_job_in_a_queue_cannot_be_called(bench: Bench) -> None:
    job = bench.queue.put(Job(multiply, 1))
    bench.commit()

    with pytest.raises(BadStatusError, match="its status is pending-status"):
        job()


def test_a_job_cannot_call_itself_nor_can_its_callback(bench: Bench) -> None:
    job = scripted(bench, lambda: job())
    callback = job.addCallback(Job(things.act, "callback"))
    things.script["callback"] = lambda result: job()
    bench.commit()

    assert job().check(BadStatusError)
    assert callback.result.check(BadStatusError)


def test_a_job_cannot_be_called_twice(bench: Bench) -> None:
    job = bench.stored(multiply, 1)
    job()

    with pytest.raises(BadStatusError, match="completed-status"):
        job()


def test_a_job_outside_of_the_database_cannot_be_called() -> None:
    with pytest.raises(ValueError, match="is not in a database"):
        Job(multiply, 1)()


def test_an_assigned_job_goes_to_the_completed_ones_of_its_agent(bench: Bench) -> None:
    job = bench.held(multiply, 3)

    assert job() == 6

    assert list(bench.agent) == []
    assert list(bench.agent.completed) == [job]
    assert bench.agent.completed.succeeded == 1


def test_what_the_caller_changed_is_committed_with_the_start(bench: Bench, counter: Any) -> None:
    job = bench.stored(things.boom)
    counter.add()

    job()

    assert bench.seen(counter, lambda counter: counter.value) == 1


def test_it_works_with_an_explicit_transaction_manager(bench: Bench) -> None:
    job = bench.stored(multiply, 3)
    job.addCallback(multiply)
    failing = bench.stored(things.boom)
    bench.commit()
    manager = transaction.TransactionManager(explicit=True)
    connection = bench.db.open(transaction_manager=manager)

    manager.begin()
    assert connection.get(job._p_oid)() == 6
    manager.begin()
    assert connection.get(failing._p_oid)().check(ValueError)

    connection.close()


# Errors


def test_an_error_aborts_and_becomes_the_result(
    bench: Bench, counter: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def work() -> None:
        counter.add()
        raise ValueError("bad luck")

    job = scripted(bench, work)

    result = job()

    assert isinstance(result, Failure)
    assert result.check(ValueError)
    assert "bad luck" in bench.seen(job, lambda job: job.result.getTraceback())
    assert bench.seen(counter, lambda counter: counter.value) == 0
    assert job.status == COMPLETED
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "bad luck" in errors[0].getMessage()


def test_the_level_of_the_log_can_be_chosen(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "zasync.events")
    job = scripted(bench, Script(ValueError()), failure_log_level=logging.DEBUG)

    job()

    levels = {record.levelno for record in caplog.records if record.name == "zasync.events"}
    assert levels == {logging.DEBUG}


@pytest.mark.parametrize("where", ["call", "commit"])
def test_a_conflict_is_tried_five_times_in_all(bench: Bench, counter: Any, where: str) -> None:
    error = ConflictError()
    script = Script(*[error] * 5) if where == "call" else Script(*[counter.add] * 5)
    job = scripted(bench, script)
    if where == "commit":
        bench.storage.fail("vote", error, skip=1, times=5)

    result = job()

    assert script.calls == 5
    assert result.check(ConflictError)
    assert bench.seen(counter, lambda counter: counter.value) == 0
    assert bench.seen(job, lambda job: job.getRetryPolicy().data["conflicts"]) == 5


def test_the_fifth_attempt_may_succeed(bench: Bench, counter: Any) -> None:
    error = ConflictError()
    job = scripted(bench, Script(error, error, error, error, counter.add))

    assert job() == 1
    assert bench.seen(counter, lambda counter: counter.value) == 1
    assert bench.seen(job, lambda job: job.getRetryPolicy().data["conflicts"]) == 4


def test_a_disconnection_in_the_job_is_waited_for(bench: Bench, standing: StandingClock) -> None:
    job = scripted(bench, Script(*[ClientDisconnected()] * 14, "at last"))

    assert job() == "at last"
    long_ones = [seconds for seconds in standing.waits if seconds and seconds >= 5]
    assert long_ones == [5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 60, 60]


def test_a_storage_that_is_away_at_the_beginning_uses_nothing_up(
    bench: Bench, counter: Any, standing: StandingClock
) -> None:
    job = bench.stored(counter.add, 3)
    job.retry_policy_factory = NeverRetry
    bench.commit()
    payload = job._payload
    bench.manager.registerSynch(synch := _AtNew(lambda *args: payload._p_deactivate()))
    bench.storage.fail("load", ClientDisconnected(), times=3)

    assert job() == 3
    assert synch is not None
    assert standing.waits == [0.5, 1.5, 2.5]
    assert bench.seen(counter, lambda counter: counter.value) == 3


class _AtNew:
    def __init__(self, do: Any) -> None:
        self.newTransaction = do

    def beforeCompletion(self, transaction: Any) -> None:
        pass

    afterCompletion = beforeCompletion


def test_a_conflict_when_the_arguments_are_loaded_uses_nothing_up(bench: Bench) -> None:
    job = bench.stored(things.same, "x" * 2000)
    job.retry_policy_factory = NeverRetry
    bench.commit()
    payload = job._payload
    bench.manager.registerSynch(synch := _AtNew(lambda *args: payload._p_deactivate()))
    bench.storage.fail("load", ConflictError())

    assert job() == "x" * 2000
    assert synch is not None


def test_arguments_that_cannot_be_loaded_fail_the_job(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = bench.stored(things.same, Unloadable())
    bench.commit()
    monkeypatch.setattr(Unloadable, "__setstate__", _refuse_state, raising=False)

    with bench.elsewhere() as there:
        result = there(job)()

    assert "cannot be loaded" in result.getTraceback()
    assert bench.seen(job, lambda job: job.status) == COMPLETED


class Unloadable(Plain):
    pass


def _refuse_state(self: Any, state: Any) -> None:
    raise RuntimeError("cannot be loaded")


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_what_ends_the_process_goes_up_and_commits_nothing(
    bench: Bench, counter: Any, error: BaseException
) -> None:
    def work() -> None:
        counter.add()
        raise error

    job = scripted(bench, work)
    callback = job.addCallback(multiply)
    bench.commit()

    with pytest.raises(type(error)):
        job()

    bench.begin()
    assert counter.value == 0
    assert job.status == CALLBACKS
    assert job.result.check(type(error))
    job.resumeCallbacks()
    assert job.status == COMPLETED
    assert callback.status == COMPLETED


def test_a_job_that_ends_the_process_leaves_its_agent(bench: Bench) -> None:
    things.script["it"] = Script(SystemExit())
    job = bench.held(things.act, "it")

    with pytest.raises(SystemExit):
        job()

    assert list(bench.agent) == []
    assert list(bench.agent.completed) == [job]


def test_what_ends_the_process_while_committing_goes_up(bench: Bench, counter: Any) -> None:
    job = bench.stored(counter.add)
    bench.storage.fail("vote", KeyboardInterrupt(), skip=1)

    with pytest.raises(KeyboardInterrupt):
        job()

    assert bench.seen(counter, lambda counter: counter.value) == 0
    assert bench.seen(job, lambda job: job.status) == COMPLETED


def test_any_other_base_exception_fails_the_job(bench: Bench) -> None:
    class Odd(BaseException):
        pass

    assert scripted(bench, Script(Odd("odd")))().getErrorMessage() == "odd"


def test_a_hostile_exception_is_kept_all_the_same(bench: Bench) -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            raise RuntimeError

        __repr__ = __str__

        def __reduce__(self) -> Any:
            raise RuntimeError

    job = scripted(bench, Script(Hostile(threading.Lock())))

    job()

    assert "Hostile" in bench.seen(job, lambda job: job.result.getTraceback())
    assert "Hostile" in repr(job.result)


def test_a_huge_message_is_cut(bench: Bench) -> None:
    job = scripted(bench, Script(ValueError("x" * 10_000_000)))

    assert len(job().getTraceback()) < 100_000


def test_a_result_that_cannot_be_pickled_fails_the_job(bench: Bench, counter: Any) -> None:
    def work() -> Any:
        counter.add()
        return threading.Lock()

    job = scripted(bench, work)

    result = job()

    assert result.check(NotStorableError)
    assert "the result of tests.unit.job.things.act" in result.getErrorMessage()
    assert bench.seen(counter, lambda counter: counter.value) == 0
    assert bench.seen(job, lambda job: job.status) == COMPLETED


def test_a_change_that_cannot_be_pickled_fails_the_job(bench: Bench, counter: Any) -> None:
    def work() -> None:
        counter.value = threading.Lock()

    job = scripted(bench, work)

    assert isinstance(job(), Failure)
    assert bench.seen(counter, lambda counter: counter.value) == 0


def test_a_result_of_an_own_class_lies_beside_the_record(bench: Bench) -> None:
    job = scripted(bench, lambda: Plain(8))

    assert job().value == 8
    assert bench.seen(job, lambda job: job.result.value) == 8


def test_a_class_that_is_just_called_failure_is_a_result(bench: Bench) -> None:
    job = scripted(bench, lambda: things.Failure(4))

    assert job().value == 4


@pytest.mark.parametrize("make", [Failure, twisted_failure.Failure])
def test_a_returned_failure_is_a_result_and_nothing_is_aborted(
    bench: Bench, counter: Any, make: Any
) -> None:
    def work() -> Any:
        counter.add()
        return make(ValueError("returned"))

    job = scripted(bench, work)
    handled = job.addCallbacks(failure=things.same)
    bench.commit()

    result = job()

    assert type(result) is Failure
    assert result.check(ValueError)
    assert handled.result.check(ValueError)
    assert bench.seen(counter, lambda counter: counter.value) == 1


def test_an_attempt_after_a_conflict_gets_its_arguments_as_they_were(bench: Bench) -> None:
    def work(items: list[int], mapping: Any) -> int:
        mapping["seen"] = True
        items.pop()
        if len(things.acts) < 3:
            raise ConflictError
        return len(items) + len(mapping)

    for filler in ["", "x" * 2000]:
        things.acts.clear()
        job = scripted(bench, work, [1, 2, 3], {"filler": filler})

        assert job() == 4


# Hooks


def hooked(bench: Bench, work: Any, set_up: Any = "info", tear_down: Any = None) -> Any:
    things.script.update(
        it=work,
        setUp=set_up if callable(set_up) else lambda: set_up,
        tearDown=tear_down or (lambda info: None),
    )
    return bench.keep(HookedJob(things.act, "it"))


def test_hooks_surround_each_attempt(bench: Bench) -> None:
    job = hooked(bench, Script(ConflictError(), "done"))

    assert job() == "done"

    assert things.acts == [("setUp",), ("it",), ("tearDown", "info")] * 2


def test_tear_down_comes_after_the_commit(bench: Bench) -> None:
    seen = []
    job = hooked(
        bench, lambda: 1, tear_down=lambda info: seen.append(bench.seen(job, lambda j: j.status))
    )

    job()

    assert seen == [COMPLETED]


def test_a_failing_set_up_is_an_error_of_the_job(bench: Bench, counter: Any) -> None:
    def set_up() -> None:
        counter.add()
        raise ValueError("set-up")

    job = hooked(bench, lambda: 1, set_up)

    assert job().check(ValueError)
    assert things.acts == [("setUp",), ("tearDown", None)]
    assert bench.seen(counter, lambda counter: counter.value) == 0


def test_a_failing_tear_down_is_logged_and_work_goes_on(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    job = hooked(bench, lambda: 1, tear_down=Script(ValueError("tear-down")))
    callback = job.addCallback(multiply)
    bench.commit()

    assert job() == 1

    assert callback.result == 2
    [record] = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert "tearDown of" in record.getMessage()


def test_what_ends_the_process_in_tear_down_goes_up_and_the_job_has_its_end(bench: Bench) -> None:
    job = hooked(bench, lambda: 1, tear_down=Script(SystemExit()))

    with pytest.raises(SystemExit):
        job()

    assert bench.seen(job, lambda job: job.result) == 1


# Transactions of the job's own


def test_a_job_that_commits_is_warned_about(
    bench: Bench, counter: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def work() -> str:
        counter.add()
        bench.manager.commit()
        counter.add()
        bench.manager.commit()
        counter.add()
        raise ValueError

    job = scripted(bench, work)

    job()

    assert bench.seen(counter, lambda counter: counter.value) == 2
    warnings = [record for record in caplog.records if "committed a transaction" in record.message]
    assert len(warnings) == 1
    assert "things.act('it')" in warnings[0].message


def test_a_job_may_abort_what_it_did(bench: Bench, counter: Any) -> None:
    def work() -> str:
        counter.add()
        bench.manager.abort()
        return "aborted"

    job = scripted(bench, work)

    assert job() == "aborted"
    assert bench.seen(counter, lambda counter: counter.value) == 0


def test_a_job_may_abort_a_commit_of_its_own_that_failed(bench: Bench, counter: Any) -> None:
    def work() -> str:
        counter.add()
        with pytest.raises(ConflictError):
            bench.manager.commit()
        bench.manager.abort()
        return "went on"

    job = scripted(bench, work)
    bench.storage.fail("vote", ConflictError(), skip=1)

    assert job() == "went on"


def take_away(bench: Bench, job: Any, token: int | None = None) -> None:
    """Another process believes that the job's dispatcher is dead, and has it run elsewhere."""
    with bench.elsewhere() as there:
        there(job)._token = token


TAKEN = pytest.mark.parametrize("token", [None, 7], ids=["handed back", "running elsewhere"])


@TAKEN
def test_a_job_that_was_taken_away_commits_nothing(
    bench: Bench, counter: Any, token: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    def work() -> None:
        counter.add()
        take_away(bench, job, token)

    job = scripted(bench, work)
    job.addCallback(Job(counter.add, 100))
    bench.commit()

    with pytest.raises(ReassignedError, match=r"things.act\('it'\)"):
        job()

    assert bench.seen(counter, lambda counter: counter.value) == 0
    assert bench.seen(job, lambda job: (job.status, job._token)) == (ACTIVE, token)
    assert len(things.acts) == 1
    [record] = [record for record in caplog.records if "ReassignedError" in record.message]
    assert record.levelno == logging.ERROR


@TAKEN
@pytest.mark.parametrize("look", ["abort", "begin"])
def test_a_new_look_at_the_database_does_not_let_it_commit(
    bench: Bench, counter: Any, token: int | None, look: str
) -> None:
    def work() -> None:
        take_away(bench, job, token)
        getattr(bench.manager, look)()
        counter.add()

    job = scripted(bench, work)

    with pytest.raises(ReassignedError):
        job()

    assert bench.seen(counter, lambda counter: counter.value) == 0


@TAKEN
def test_its_own_commits_are_fenced_too(bench: Bench, counter: Any, token: int | None) -> None:
    def work() -> None:
        take_away(bench, job, token)
        counter.add()
        with pytest.raises(ConflictError):
            bench.manager.commit()
        bench.manager.abort()
        counter.add()
        with pytest.raises(ReassignedError):
            bench.manager.commit()
        bench.manager.abort()

    job = scripted(bench, work)

    with pytest.raises(ReassignedError):
        job()
    assert bench.seen(counter, lambda counter: counter.value) == 0
    assert len(things.acts) == 1


@TAKEN
def test_a_deferred_of_a_job_that_was_taken_away_commits_nothing(
    bench: Bench, counter: Any, token: int | None
) -> None:
    def work() -> Any:
        counter.add()
        take_away(bench, job, token)
        return Deferred()

    job = scripted(bench, work)

    with pytest.raises(ReassignedError):
        job()
    assert bench.seen(counter, lambda counter: counter.value) == 0


def test_an_error_that_only_looks_like_ours_is_an_error(bench: Bench) -> None:
    assert scripted(bench, Script(ReassignedError("somebody else's")))().check(ReassignedError)


# Jobs in jobs


def test_a_job_may_call_another_one(bench: Bench, counter: Any) -> None:
    inner = bench.stored(counter.add, 5)
    job = scripted(bench, lambda: inner() + 1)

    assert job() == 6
    assert inner.result == 5


def test_the_surroundings_are_those_of_the_inner_job_and_then_of_the_outer(bench: Bench) -> None:
    things.script["inner"] = lambda: local.getJob().oid
    inner = bench.stored(things.act, "inner")
    job = scripted(bench, lambda: (local.getJob().oid, inner(), local.getJob().oid))

    assert job() == (job.oid, inner.oid, job.oid)
    with pytest.raises(RuntimeError):
        local.getJob()


def test_an_inner_job_that_was_taken_away_is_an_error_of_the_outer_one(bench: Bench) -> None:
    things.script["inner"] = lambda: take_away(bench, inner)
    inner = bench.stored(things.act, "inner")
    job = scripted(bench, lambda: inner())

    assert job().check(ReassignedError)
    assert job.status == COMPLETED


@TAKEN
def test_an_outer_job_that_was_taken_away_stops_the_inner_one(
    bench: Bench, counter: Any, token: int | None
) -> None:
    inner = bench.stored(counter.add)
    inner.addCallback(Job(counter.add))
    bench.commit()

    def work() -> Any:
        take_away(bench, job, token)
        bench.manager.begin()
        with pytest.raises(ReassignedError):
            inner()

    job = scripted(bench, work)

    with pytest.raises(ReassignedError):
        job()
    assert bench.seen(counter, lambda counter: counter.value) == 0


def test_a_stop_during_an_inner_job_stops_the_outer_one(bench: Bench, counter: Any) -> None:
    things.script["inner"] = Script(ClientDisconnected())
    inner = bench.stored(things.act, "inner")

    def work() -> Any:
        stop.set()
        inner()
        counter.add()

    stop = threading.Event()
    token = attempts.stop_signal.set(stop)
    job = scripted(bench, work)
    try:
        with pytest.raises(attempts.Stopped):
            job()
    finally:
        attempts.stop_signal.reset(token)
    assert bench.seen(job, lambda job: job.status) == ACTIVE
    assert bench.seen(counter, lambda counter: counter.value) == 0


# Policies


class Answering:
    """A policy that answers what the test says."""

    answers: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, job: Any) -> None:
        pass

    def _answer(self, question: str, *args: Any) -> Any:
        answer = self.answers[question]
        return answer(*args) if callable(answer) else answer

    def jobError(self, *args: Any) -> Any:
        return self._answer("jobError", *args)

    def commitError(self, *args: Any) -> Any:
        return self._answer("commitError", *args)

    def interrupted(self) -> Any:
        return self._answer("interrupted")

    def updateData(self, data_cache: Any) -> None:
        self._answer("updateData", data_cache)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found: dict[str, Any] = {"updateData": None}
    monkeypatch.setattr(Answering, "answers", found)
    return found


def test_a_plain_policy_decides_and_what_it_noted_survives(bench: Bench, counter: Any) -> None:
    def fail() -> None:
        counter.add()
        raise KeyError

    script = Script(fail, fail, fail)
    job = scripted(bench, script, retry_policy_factory=PlainPolicy)

    assert job().check(KeyError)

    assert script.calls == 3
    assert bench.seen(job, lambda job: job.getRetryPolicy().notes) == {"errors": 3}
    assert bench.seen(counter, lambda counter: counter.value) == 0


def test_a_policy_knows_its_data_in_the_next_attempt(bench: Bench) -> None:
    script = Script(KeyError(), lambda: dict(job.getRetryPolicy().notes))
    job = scripted(bench, script, retry_policy_factory=PlainPolicy)

    assert job() == {"errors": 1}


@pytest.mark.parametrize("bad", ["soon", 1, datetime(2026, 1, 1)], ids=repr)
@pytest.mark.parametrize("held", [False, True])
def test_an_answer_that_is_none_fails_the_job(
    bench: Bench, answers: Any, bad: Any, held: bool, caplog: pytest.LogCaptureFixture
) -> None:
    answers["jobError"] = bad
    things.script["it"] = Script(KeyError("first"))
    job = (bench.held if held else bench.stored)(things.act, "it")
    job.retry_policy_factory = Answering
    job.begin_by  # noqa: B018
    bench.commit()

    assert job().check(KeyError)

    [record] = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert "retry policy" in record.message


def test_no_answer_means_no_retry(bench: Bench, answers: Any) -> None:
    answers["jobError"] = None

    assert scripted(bench, Script(KeyError()), retry_policy_factory=Answering)().check(KeyError)


@pytest.mark.parametrize("question", ["jobError", "updateData"])
def test_a_policy_that_raises_does_not_stop_the_jobs_end(
    bench: Bench, answers: Any, question: str, caplog: pytest.LogCaptureFixture
) -> None:
    def note(failure: Any, cache: Any) -> bool:
        cache["note"] = 1
        return False

    answers["jobError"] = note
    answers[question] = Script(RuntimeError("policy"), RuntimeError("policy"))
    job = scripted(bench, Script(KeyError()), retry_policy_factory=Answering)

    assert job().check(KeyError)
    assert bench.seen(job, lambda job: job.status) == COMPLETED
    assert any("retry policy of" in record.message for record in caplog.records)


def test_what_a_policy_cannot_store_does_not_stop_the_jobs_end(bench: Bench, answers: Any) -> None:
    def note(failure: Any, cache: Any) -> bool:
        cache["note"] = 1
        return False

    def update(cache: Any) -> None:
        job.getRetryPolicy().lock = threading.Lock()

    answers.update(jobError=note, updateData=update)
    job = scripted(bench, Script(KeyError()), retry_policy_factory=Answering)

    assert job().check(KeyError)
    assert bench.seen(job, lambda job: job.status) == COMPLETED


def test_a_missing_adapter_fails_the_job_instead_of_holding_its_place(bench: Bench) -> None:
    job = scripted(bench, Script(KeyError()), retry_policy_factory="nowhere")

    assert job().check(KeyError)


def test_a_registered_adapter_is_asked(bench: Bench) -> None:
    zope.component.provideAdapter(PlainPolicy, (IJob,), IRetryPolicy)
    script = Script(*[KeyError()] * 3)

    scripted(bench, script)()

    assert script.calls == 3


def test_a_storage_that_goes_away_while_the_policy_is_asked_is_waited_for(
    bench: Bench, answers: Any
) -> None:
    asked = []

    def ask(*args: Any) -> bool:
        asked.append(args)
        if len(asked) == 1:
            raise ClientDisconnected
        return False

    answers["jobError"] = ask

    assert scripted(bench, Script(KeyError()), retry_policy_factory=Answering)().check(KeyError)
    assert len(asked) == 2


RESCHEDULED = [timedelta(hours=1), datetime(2026, 3, 1, 13, tzinfo=UTC)]


@pytest.mark.parametrize("answer", RESCHEDULED, ids=["timedelta", "datetime"])
def test_a_job_is_put_back_for_later(
    bench: Bench, answers: Any, standing: StandingClock, answer: Any
) -> None:
    answers["jobError"] = answer
    script = things.script["it"] = Script(KeyError(), "later")
    job = bench.held(things.act, "it")
    job.retry_policy_factory = Answering

    assert job() is None

    assert (job.status, job.parent, len(bench.agent)) == (PENDING, bench.queue, 0)
    assert job.begin_after == standing.now() + timedelta(hours=1)
    assert bench.work() == 0
    standing.move(hours=1)
    assert bench.work() == 1
    assert (job.result, script.calls) == ("later", 2)


def test_an_empty_timedelta_means_first_in_line(bench: Bench, answers: Any) -> None:
    answers["jobError"] = timedelta()
    things.script["it"] = Script(KeyError(), "soon")
    job = bench.held(things.act, "it")
    job.retry_policy_factory = Answering
    other = bench.queue.put(Job(multiply, 1))
    bench.commit()

    job()

    assert list(bench.queue) == [job, other]
    bench.work()
    assert job.result == "soon"


def test_without_a_queue_a_rescheduled_job_is_new_again(bench: Bench, answers: Any) -> None:
    answers["jobError"] = timedelta(hours=1)
    job = scripted(bench, Script(KeyError(), "again"), retry_policy_factory=Answering)

    assert job() is None
    assert (job.status, job.parent) == (NEW, None)
    assert job() == "again"


@pytest.mark.parametrize("answer", [True, *RESCHEDULED], ids=["now", "timedelta", "datetime"])
def test_no_attempt_begins_after_the_deadline(
    bench: Bench, answers: Any, standing: StandingClock, answer: Any
) -> None:
    answers["jobError"] = answer
    script = things.script["it"] = Script(lambda: standing.move(minutes=31) and boom(), "late")
    job = bench.queue.put(Job(things.act, "it"), begin_by=timedelta(minutes=30))
    job.retry_policy_factory = Answering
    bench.commit()

    bench.work()

    assert job.result.check(ValueError)
    assert script.calls == 1


def boom() -> None:
    raise ValueError


def test_before_the_deadline_an_attempt_is_repeated(bench: Bench, standing: StandingClock) -> None:
    script = things.script["it"] = Script(ConflictError(), "in time")
    job = bench.queue.put(Job(things.act, "it"), begin_by=timedelta(minutes=30))
    bench.commit()
    standing.move(minutes=10)

    bench.work()

    assert (job.result, script.calls) == ("in time", 2)


# Waiting for other jobs


def test_a_job_waits_for_the_job_that_it_returns(bench: Bench) -> None:
    inner = bench.stored(multiply, 21)
    job = scripted(bench, lambda: inner)
    callback = job.addCallback(multiply)
    bench.commit()

    assert job() is inner
    assert (job.status, job.result, job.awaited) == (ACTIVE, inner, inner)

    inner()

    assert (job.status, job.result, callback.result) == (COMPLETED, 42, 84)
    assert job.active_end is not None


def test_a_job_waits_through_several_levels(bench: Bench) -> None:
    things.script["middle"] = lambda: bench.queue.put(Job(multiply, 4))
    things.script["outer"] = lambda: Job(things.act, "middle")  # nobody has put this one
    job = bench.queue.put(Job(things.act, "outer"))
    bench.commit()

    while bench.work():
        pass

    assert (job.status, job.result) == (COMPLETED, 8)
    assert list(bench.agent) == []
    assert job in bench.agent.completed


def test_an_inner_failure_is_the_outer_result_and_is_logged(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    inner = bench.stored(things.boom, "inside")
    inner.failure_log_level = logging.DEBUG
    job = scripted(bench, lambda: inner, failure_log_level=logging.WARNING)
    job()

    inner()

    assert job.result.check(ValueError)
    assert [r.levelno for r in caplog.records if f"oid {job.oid}" in r.message] == [logging.WARNING]


@pytest.mark.parametrize("wait", [False, True])
def test_the_result_of_a_job_that_has_ended_is_taken_at_once(bench: Bench, wait: bool) -> None:
    inner = bench.stored(multiply, 3)
    if wait:
        things.script["slow"] = lambda result: bench.stored(multiply, 1)
        inner.addCallback(Job(things.act, "slow"))
        bench.commit()
    inner()
    assert inner.status == (CALLBACKS if wait else COMPLETED)

    assert scripted(bench, lambda: inner)() == 6


def test_a_job_cannot_wait_for_itself(bench: Bench) -> None:
    job = scripted(bench, lambda: job)

    assert job().check(ValueError)
    assert "cannot wait for itself" in job.result.getErrorMessage()


def test_jobs_cannot_wait_for_each_other(bench: Bench) -> None:
    things.script["one"] = lambda: two
    things.script["two"] = lambda: one
    one, two = bench.stored(things.act, "one"), bench.stored(things.act, "two")
    one()

    two()

    assert one.result.check(ValueError)
    assert (one.status, two.status) == (COMPLETED, COMPLETED)


def test_a_job_cannot_wait_for_its_own_callback(bench: Bench) -> None:
    job = scripted(bench, lambda: callback)
    callback = job.addCallback(things.same)
    bench.commit()

    assert job().check(ValueError)
    assert callback.result.check(ValueError)


def test_two_jobs_may_wait_for_the_same(bench: Bench) -> None:
    inner = bench.stored(multiply, 3)
    things.script["it"] = lambda: inner
    jobs = [bench.stored(things.act, "it") for _ in range(2)]
    for job in jobs:
        job()

    inner()

    assert [job.result for job in jobs] == [6, 6]


# Deferreds and coroutines


def test_a_deferred_is_waited_for_and_fired_from_another_thread(bench: Bench, counter: Any) -> None:
    deferred: Any = Deferred()

    def work() -> Any:
        counter.add()
        return deferred

    job = scripted(bench, work)
    callback = job.addCallback(multiply)
    bench.commit()

    assert job() is None
    assert bench.seen(counter, lambda counter: counter.value) == 1
    assert bench.seen(job, lambda job: job.status) == ACTIVE

    thread = threading.Thread(target=deferred.callback, args=[21])
    thread.start()
    thread.join()

    bench.begin()
    assert (job.status, job.result, callback.result) == (COMPLETED, 21, 42)


def test_a_deferred_that_has_fired_already_gives_its_result_at_once(bench: Bench) -> None:
    deferred: Any = Deferred()
    deferred.callback(5)

    assert scripted(bench, lambda: deferred)() == 5


def test_a_failing_deferred_gives_its_failure(bench: Bench) -> None:
    deferred: Any = Deferred()
    job = scripted(bench, lambda: deferred)
    job()

    deferred.errback(twisted_failure.Failure(ValueError("from afar")))
    deferred.addErrback(lambda failure: None)

    bench.begin()
    assert type(job.result) is Failure
    assert job.result.check(ValueError)


def test_a_deferred_may_lead_to_a_deferred_or_a_job(bench: Bench) -> None:
    deferred, inner_deferred = Deferred(), Deferred()  # type: ignore[var-annotated]
    deferred.addCallback(lambda value: inner_deferred)
    job = scripted(bench, lambda: deferred)
    job()
    deferred.callback(None)
    bench.begin()
    assert job.status == ACTIVE

    with bench.elsewhere():
        inner = bench.stored(multiply, 8)
        inner()
    inner_deferred.callback(7)
    bench.begin()

    assert job.result == 7


def test_a_result_that_is_awaitable_itself_is_waited_for(bench: Bench) -> None:
    class Awaitable:
        def __init__(self) -> None:
            self.callbacks: list[Any] = []

        def addBoth(self, callback: Any) -> None:
            self.callbacks.append(callback)

    first, second = Awaitable(), Awaitable()
    job = scripted(bench, lambda: first)
    job()

    first.callbacks[0](second)
    bench.begin()
    assert job.status == ACTIVE
    second.callbacks[0]("both")

    bench.begin()
    assert job.result == "both"


def test_a_deferred_of_a_job_that_was_handed_back_meanwhile_is_ignored(
    bench: Bench, counter: Any
) -> None:
    deferred: Any = Deferred()
    job = scripted(bench, lambda: deferred)
    job()
    take_away(bench, job, 7)

    deferred.callback(1)

    bench.begin()
    assert (job.status, job.result) == (ACTIVE, None)


def test_a_conflict_when_the_result_lands_does_not_repeat_the_work(
    bench: Bench, counter: Any
) -> None:
    deferred: Any = Deferred()

    def work() -> Any:
        counter.add()
        return deferred

    job = scripted(bench, work)
    job()
    bench.storage.fail("vote", ConflictError(), times=2)

    deferred.callback("landed")

    bench.begin()
    assert job.result == "landed"
    assert counter.value == 1
    assert len(things.acts) == 1


def test_a_storage_that_is_away_when_the_result_lands_is_waited_for(bench: Bench) -> None:
    deferred: Any = Deferred()
    job = scripted(bench, lambda: deferred, retry_policy_factory=NeverRetry)
    job()
    bench.storage.fail("load", ClientDisconnected(), times=2)

    deferred.callback("landed")

    bench.begin()
    assert job.result == "landed"


def test_a_result_from_afar_that_cannot_be_stored_fails_the_job(bench: Bench) -> None:
    deferred: Any = Deferred()
    job = scripted(bench, lambda: deferred)
    job()

    deferred.callback(threading.Lock())

    bench.begin()
    assert job.result.check(NotStorableError)


def test_a_suspension_that_conflicts_is_tried_again(bench: Bench, counter: Any) -> None:
    deferreds: list[Any] = []

    def work() -> Any:
        counter.add()
        deferreds.append(Deferred())
        return deferreds[-1]

    job = scripted(bench, work)
    bench.storage.fail("vote", ConflictError(), skip=1)
    job()

    deferreds[-1].callback("second")

    bench.begin()
    assert (job.result, counter.value, len(deferreds)) == ("second", 1, 2)


def test_a_coroutine_needs_a_dispatcher(bench: Bench) -> None:
    assert bench.stored(things.coroutine, 1)().check(TypeError)
    result = scripted(bench, lambda: things.coroutine(1))()
    assert "called by hand it has no event loop" in result.getErrorMessage()


def test_a_coroutine_of_an_attempt_that_fails_is_closed(bench: Bench) -> None:
    import zasync.job.performance as performance

    made: list[Any] = []

    class Host(ByHand):
        def takes(self, awaitable: Any) -> bool:
            return True

    def work() -> Any:
        made.append(things.coroutine(1))
        return made[-1]

    job = scripted(bench, work, retry_policy_factory=NeverRetry)
    job.start(5)
    bench.commit()
    bench.storage.fail("vote", ConflictError())

    outcome = performance.perform(Run(job, 5, Host()))

    assert outcome.failed
    assert made[0].cr_frame is None


def test_a_coroutine_of_a_job_that_was_taken_away_is_closed(bench: Bench) -> None:
    import zasync.job.performance as performance

    made: list[Any] = []

    class Host(ByHand):
        def takes(self, awaitable: Any) -> bool:
            return True

    def work() -> Any:
        take_away(bench, job, 7)
        made.append(things.coroutine(1))
        return made[-1]

    job = scripted(bench, work)
    job.start(5)
    bench.commit()

    outcome = performance.perform(Run(job, 5, Host()))

    assert outcome.ending is Ending.SUPERSEDED
    assert made[0].cr_frame is None


def test_an_async_job_gets_no_stored_objects(bench: Bench, counter: Any) -> None:
    import functools

    for callable in [
        counter.later,
        functools.partial(things.coroutine, counter),
        functools.partial(things.coroutine, value=counter),
    ]:
        result = bench.stored(callable)()
        assert result.check(TypeError)
        assert "cannot get the persistent object" in result.getErrorMessage()
    assert "cannot get" in bench.stored(things.coroutine, counter)().getErrorMessage()


def test_a_coroutine_that_raised_is_decided_upon(bench: Bench) -> None:
    import zasync.job.performance as performance

    script = Script(lambda: Deferred(), "second")
    job = scripted(bench, script)
    job.start(5)
    bench.commit()
    run = Run(job, 5, ByHand())
    performance.perform(run)

    outcome = performance.resume(run, error=ConflictError())

    assert outcome.ending is Ending.COMPLETED
    assert (job.result, script.calls) == ("second", 2)


def test_forever_is_the_policy_of_a_callback_after_commit_errors(
    bench: Bench, counter: Any, standing: StandingClock
) -> None:
    job = bench.stored(multiply, 1)
    callback = job.addCallback(Job(things.act, "callback"))
    things.script["callback"] = lambda result: counter.add()
    bench.commit()
    bench.storage.fail("vote", KeyError("odd"), skip=3, times=2)

    job()

    assert type(callback.getRetryPolicy()) is RetryCommonForever
    assert (callback.result, counter.value) == (1, 1)
    assert 5 in standing.waits
    assert 10 in standing.waits


def test_a_returned_job_of_another_connection_fails_the_job(bench: Bench) -> None:
    foreign = bench.stored(multiply, 1)
    another = bench.open_another()
    job = scripted(bench, lambda: another.connection.get(foreign._p_oid))

    assert job().check(NotStorableError)
    assert "the job that tests.unit.job.things.act answers" in job.result.getErrorMessage()
    another.close()
