# SPDX-License-Identifier: ZPL-2.1
"""Which job a claim takes, and which it leaves."""

from __future__ import annotations

import logging
import operator
import sys
import types
from datetime import timedelta
from typing import Any

import pytest
from persistent import Persistent
from ZODB.Connection import TransactionMetaData
from ZODB.POSException import ReadConflictError

from tests.support.clocks import StandingClock
from tests.support.queues import FIRST, SECOND, View, lane_after_lane, numbers
from zasync.failure import Failure
from zasync.interfaces import COMPLETED, NEW, PENDING, TimeoutError, UnresolvableError
from zasync.job import Job
from zasync.queue import ClaimMemory
from zasync.queue.memory import LOOK_AGAIN
from zasync.queue.waiting import LANES, ORDER_BOUND


class BrittleJob(Job):
    """Its record cannot be read while `error` is set."""

    error: Exception | None = None

    def __setstate__(self, state: Any) -> None:
        if BrittleJob.error is not None:
            raise BrittleJob.error
        super().__setstate__(state)


class BrittleArgument(Persistent):
    """What a job's callable is a method of, and cannot be read while `broken`."""

    broken = False

    def __setstate__(self, state: Any) -> None:
        if BrittleArgument.broken:
            raise ValueError("no such thing")
        super().__setstate__(state)

    count = 0

    def work(self) -> None:
        pass


def plain() -> str:
    return "done"


@pytest.fixture(autouse=True)
def _mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BrittleJob, "error", None)
    monkeypatch.setattr(BrittleArgument, "broken", False)


def is_even(job: Any) -> bool:
    return bool(job.args[0] % 2 == 0)


def test_a_claim_takes_the_first_job_out_of_the_queue(view: View) -> None:
    first, second = view.put(1, 2)
    assert view.queue.claim() is first
    assert (first.status, first.parent) == (NEW, None)
    assert list(view.queue) == [second]


def test_a_claim_of_an_empty_queue_answers_the_default(view: View) -> None:
    assert view.queue.claim() is None
    assert view.queue.claim(default=42) == 42
    assert view.queue.claim(lambda job: True, 42) == 42


def test_claims_take_every_job_once_in_order(view: View) -> None:
    view.put(*range(200))
    assert numbers(view.queue.claims()) == list(range(200))
    assert len(view.queue) == len(list(view.queue)) == 0


def test_a_claim_takes_the_first_job_that_the_filter_lets_through(view: View) -> None:
    view.put(1, 2, 3, 4)
    assert numbers(view.queue.claims(is_even)) == [2, 4]
    assert numbers(view.queue) == [1, 3]
    assert view.queue.claim(is_even) is None


def test_an_error_of_the_filter_goes_to_the_caller_and_nothing_is_taken(view: View) -> None:
    view.put(1)
    with pytest.raises(ZeroDivisionError):
        view.queue.claim(lambda job: 1 // 0)
    assert numbers(view.queue) == [1]


def test_jobs_for_later_do_not_hold_up_those_behind_them(
    view: View, standing_clock: StandingClock
) -> None:
    view.put(1, begin_after=standing_clock.now() + timedelta(days=1))
    view.put(2)
    assert numbers(view.queue.claims()) == [2]


# Expired jobs


def test_a_job_that_is_too_late_is_replaced_by_one_that_fails_it(
    view: View, standing_clock: StandingClock
) -> None:
    late, other = view.put(1, begin_by=timedelta(minutes=1)) + view.put(2)
    callback = late.addCallback(plain)
    view.commit()
    standing_clock.move(minutes=1, microseconds=1)
    failing = view.queue.claim()
    assert failing is not late
    assert view.queue.claim() is other
    view.root["failing"] = failing
    view.commit()
    failing()
    assert late.status == callback.status == COMPLETED
    assert isinstance(late.result, Failure)
    assert late.result.check(TimeoutError)


def test_a_job_is_in_time_until_the_very_end_of_its_begin_by(
    view: View, standing_clock: StandingClock
) -> None:
    (job,) = view.put(1, begin_by=timedelta(minutes=1))
    standing_clock.move(minutes=1)
    assert view.queue.claim() is job


def test_begin_by_counts_from_begin_after(view: View, standing_clock: StandingClock) -> None:
    (job,) = view.put(
        1, begin_after=standing_clock.now() + timedelta(hours=1), begin_by=timedelta(minutes=1)
    )
    standing_clock.move(hours=1, seconds=30)
    assert view.queue.claim() is job


def test_an_expired_job_that_the_filter_refuses_is_left(
    view: View, standing_clock: StandingClock
) -> None:
    view.put(1, begin_by=timedelta(minutes=1))
    standing_clock.move(hours=1)
    assert view.queue.claim(is_even) is None
    assert numbers(view.queue) == [1]


# What cannot be run here


@pytest.fixture
def gone(view: View) -> Job:
    """A job at the head of the queue whose function has gone; another job is behind it."""
    module = types.ModuleType("module_that_goes")
    exec("def work(): pass", module.__dict__)
    sys.modules["module_that_goes"] = module
    job = view.queue.put(Job(module.work))
    view.put(2)
    del sys.modules["module_that_goes"]
    return job


def test_a_job_whose_callable_is_gone_is_left_where_it_is(view: View, gone: Job) -> None:
    assert numbers(view.queue.claims()) == [2]
    assert list(view.queue) == [gone]
    assert gone.status == PENDING


def test_a_job_whose_callable_is_gone_is_reported_once(
    view: View, gone: Job, caplog: pytest.LogCaptureFixture
) -> None:
    memory = ClaimMemory()
    for _ in range(3):
        list(view.queue.claims(memory=memory))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "module_that_goes.work is not to be found" in record.getMessage()


def test_a_job_is_claimed_as_soon_as_its_callable_is_there_again(view: View, gone: Job) -> None:
    assert view.queue.claim() is not gone
    module = types.ModuleType("module_that_goes")
    exec("def work(): pass", module.__dict__)
    sys.modules["module_that_goes"] = module
    try:
        assert view.queue.claim() is gone
    finally:
        del sys.modules["module_that_goes"]


def test_code_that_is_missing_is_looked_for_again_after_some_seconds(
    view: View, gone: Job, standing_clock: StandingClock
) -> None:
    memory = ClaimMemory()
    assert gone not in list(view.queue.claims(memory=memory))
    module = types.ModuleType("module_that_goes")
    exec("def work(): pass", module.__dict__)
    sys.modules["module_that_goes"] = module
    try:
        standing_clock.move(seconds=LOOK_AGAIN - 0.1)
        assert list(view.queue.claims(memory=memory)) == []
        standing_clock.move(seconds=0.1)
        assert list(view.queue.claims(memory=memory)) == [gone]
    finally:
        del sys.modules["module_that_goes"]


def store_garbage(view: View, job: Any) -> None:
    """Overwrite the record of `job` in the storage with what is no pickle."""
    db = view.connection.db()
    storage = db.storage
    change = TransactionMetaData()
    storage.tpc_begin(change)
    storage.store(job._p_oid, job._p_serial, b"garbage", "", change)
    storage.tpc_vote(change)
    storage.tpc_finish(change)


def test_a_record_that_cannot_be_read_does_not_block_the_head(
    view: View, open_view: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first, _second = view.put(1, 2)
    view.commit()
    store_garbage(view, first)
    other = open_view()
    memory = ClaimMemory()
    assert numbers(other.queue.claims(memory=memory)) == [2]
    assert list(other.queue.claims(memory=memory)) == []
    assert len(other.queue) == 1
    (record,) = [record for record in caplog.records if record.name == "zasync.events"]
    assert record.levelno == logging.ERROR
    assert "cannot be read" in record.getMessage()


def test_a_job_whose_class_refuses_its_state_is_left(
    view: View, open_view: Any, caplog: pytest.LogCaptureFixture
) -> None:
    view.queue.put(BrittleJob(plain))
    view.put(2)
    BrittleJob.error = AttributeError("it is of an old state")
    other = open_view()
    assert numbers(other.queue.claims()) == [2]
    assert len(other.queue) == 1
    (record,) = [record for record in caplog.records if record.name == "zasync.events"]
    assert "it is of an old state" in record.getMessage()


def test_a_job_whose_class_is_gone_waits_for_a_worker_that_has_it(
    view: View,
    open_view: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = view.queue.put(BrittleJob(plain))
    view.put(2)
    monkeypatch.delattr(sys.modules[__name__], "BrittleJob")
    other = open_view()
    assert numbers(other.queue.claims()) == [2]
    assert [found._p_oid for found in other.queue] == [job._p_oid]
    (record,) = [record for record in caplog.records if record.name == "zasync.events"]
    assert record.levelno == logging.WARNING
    assert "BrittleJob is not in this process" in record.getMessage()


@pytest.fixture
def unreadable_payload(view: View, open_view: Any) -> View:
    """A view of a queue with a method of what cannot be read at its head."""
    argument = view.root["argument"] = BrittleArgument()
    view.commit()
    view.queue.put(Job(argument.work))
    view.queue.put(BrittleArgument.work)
    view.commit()
    BrittleArgument.broken = True
    other: View = open_view()
    return other


def reads_target(job: Any) -> bool:
    target = getattr(job.callable, "__self__", None)
    return target is None or target.count == 0


def test_a_filter_that_cannot_read_what_a_job_was_given_leaves_it(
    unreadable_payload: View, caplog: pytest.LogCaptureFixture
) -> None:
    queue = unreadable_payload.queue
    memory = ClaimMemory()
    (job,) = queue.claims(reads_target, memory=memory)
    assert job.callable is BrittleArgument.work
    assert queue.claim(reads_target) is None
    assert len(queue) == 1
    (record,) = [record for record in caplog.records if record.name == "zasync.events"][:1]
    assert "no such thing" in record.getMessage()


def test_a_trouble_of_the_storage_in_a_filter_is_raised(view: View) -> None:
    view.put(1)

    def away(job: Any) -> bool:
        raise ReadConflictError

    with pytest.raises(ReadConflictError):
        view.queue.claim(away)


@pytest.mark.parametrize("error", [ReadConflictError(), OSError("the disk is away")])
def test_a_trouble_of_the_storage_is_not_taken_for_a_bad_record(
    view: View, open_view: Any, error: Exception
) -> None:
    (job,) = view.put(1)
    other = open_view()
    storage = other.connection._storage
    load = storage.load

    def away(oid: bytes) -> Any:
        if oid == job._p_oid:
            raise error
        return load(oid)

    storage.load = away
    with pytest.raises(type(error)):
        other.queue.claim()
    storage.load = load
    assert numbers(other.queue.claims()) == [1]


def test_a_trouble_of_the_storage_while_the_callable_is_loaded_is_raised(
    view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = view.put(1)

    def away(self: Any) -> None:
        raise ReadConflictError

    monkeypatch.setattr(Job, "check_resolvable", away)
    with pytest.raises(ReadConflictError):
        view.queue.claim()
    assert job.status == PENDING


def test_an_odd_error_while_the_callable_is_loaded_leaves_the_job(
    view: View, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    view.put(1)

    def odd(self: Any) -> None:
        raise ArithmeticError("odd")

    monkeypatch.setattr(Job, "check_resolvable", odd)
    assert view.queue.claim() is None
    assert "odd" in caplog.text


# Several dispatchers


@pytest.fixture
def spread(view: View, standing_clock: StandingClock, monkeypatch: Any) -> View:
    """A queue with one job in each lane, 0.1 s apart, and two active dispatchers."""
    monkeypatch.setattr(standing_clock.random, "shuffle", lane_after_lane)
    for uuid in (FIRST, SECOND):
        view.queue.dispatchers.register(uuid).activate()
    for number in range(LANES):
        view.put(number)
        standing_clock.move(seconds=0.1)
    return view


def test_two_dispatchers_prefer_different_jobs(spread: View) -> None:
    turns = [FIRST, SECOND, SECOND, FIRST]
    taken = [next(spread.queue.claims(uuid=uuid)) for uuid in turns]
    assert numbers(taken) == [0, 1, 3, 2]
    assert numbers(spread.queue.claims(uuid=FIRST)) == [4, 6, 5, 7]


def test_a_dispatcher_alone_has_no_preference(spread: View) -> None:
    spread.queue.dispatchers[SECOND].deactivate()
    assert spread.queue.dispatchers.share_of(FIRST) is None
    assert numbers(spread.queue.claims(uuid=FIRST)) == list(range(LANES))


def test_a_dispatcher_that_is_not_active_has_no_preference(spread: View) -> None:
    spread.queue.dispatchers[SECOND].deactivate()
    spread.queue.dispatchers.register(type(FIRST)(int=3)).activate()
    assert spread.queue.dispatchers.share_of(SECOND) is None


def test_nobody_prefers_a_job_that_is_younger_by_more_than_the_bound(
    view: View, standing_clock: StandingClock, monkeypatch: Any
) -> None:
    for uuid in (FIRST, SECOND):
        view.queue.dispatchers.register(uuid).activate()
    monkeypatch.setattr(standing_clock.random, "shuffle", lane_after_lane)
    view.put(0)  # the first dispatcher's lane
    standing_clock.move(microseconds=ORDER_BOUND + 1)
    view.put(1)  # the second one's
    assert numbers(view.queue.claims(uuid=SECOND)) == [0, 1]


def test_a_dispatcher_takes_the_jobs_of_all_lanes_when_its_own_are_empty(spread: View) -> None:
    assert sorted(numbers(spread.queue.claims(uuid=SECOND))) == list(range(LANES))


def test_what_was_put_back_is_first_for_every_dispatcher(spread: View) -> None:
    job = next(spread.queue.claims(uuid=FIRST))
    spread.queue.putBack(job)
    assert next(spread.queue.claims(uuid=SECOND)) is job


def test_a_claim_goes_on_behind_a_job_that_is_too_late(
    view: View, standing_clock: StandingClock
) -> None:
    view.queue.put(Job(operator.pos, 1), begin_by=timedelta(seconds=1))
    view.queue.put(Job(operator.pos, 2))
    standing_clock.move(seconds=2)
    failing, second = view.queue.claims()
    assert failing.callable_name.endswith("fail")
    assert second.args == [2]


def test_a_job_whose_callable_is_gone_is_failed_when_it_is_too_late(
    view: View, standing_clock: StandingClock, gone: Job
) -> None:
    gone.begin_by = timedelta(seconds=1)
    standing_clock.move(seconds=2)
    failing = view.queue.claim()
    assert failing.callable_name.endswith("fail")
    assert gone not in list(view.queue)


def test_what_was_reported_is_forgotten_before_it_fills_the_memory(
    view: View, gone: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zasync.queue.memory.REPORTED_AT_MOST", 1)
    memory = ClaimMemory()
    for place in view.queue._waiting.entries():
        memory.report_once(place.place, gone, UnresolvableError("gone"))
        memory.report_once(place.place._replace(key=1), gone, UnresolvableError("gone"))
        assert len(memory.reported) == 1
