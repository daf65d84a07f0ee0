# SPDX-License-Identifier: ZPL-2.1
"""What goes into a queue, what is refused, and in which order it lies there."""

from __future__ import annotations

import logging
import operator
from datetime import UTC, datetime, timedelta, timezone

import pytest
import zope.component
from persistent import Persistent
from zope.interface.verify import verifyObject

from tests.support.clocks import StandingClock
from tests.support.queues import FIRST, View, numbered, numbers
from zasync.interfaces import (
    IUUID,
    NEW,
    PENDING,
    BadStatusError,
    IQueue,
    IQueues,
    NotStorableError,
)
from zasync.job import Job, NeverRetry
from zasync.queue import Queue, Queues


class Unpicklable:
    def method(self) -> None:
        pass

    def __reduce__(self) -> str:
        raise TypeError("this one stays here")


class Counter(Persistent):
    def count(self) -> None:
        pass


def test_queue_and_queues_fulfil_their_interfaces(view: View) -> None:
    assert verifyObject(IQueues, view.queues)
    assert verifyObject(IQueue, view.queue)


def test_a_job_that_is_put_is_pending_and_its_parent_is_the_queue(view: View) -> None:
    job = numbered(1)
    assert view.queue.put(job) is job
    assert job.status == PENDING
    assert job.parent is job.queue is view.queue


def test_a_plain_callable_that_is_put_becomes_a_job(view: View) -> None:
    job = view.queue.put(operator.mul)
    assert isinstance(job, Job)
    assert job.callable is operator.mul


def test_jobs_can_be_put_in_a_queue_that_is_not_stored_yet() -> None:
    queue = Queue()
    jobs = [queue.put(numbered(number)) for number in range(70)]
    assert list(queue) == jobs


def test_put_takes_over_all_options(view: View, standing_clock: StandingClock) -> None:
    job = view.queue.put(
        numbered(1),
        begin_after=standing_clock.now() + timedelta(hours=1),
        begin_by=timedelta(minutes=5),
        failure_log_level=logging.DEBUG,
        retry_policy_factory=NeverRetry,
    )
    assert job.begin_after == standing_clock.now() + timedelta(hours=1)
    assert job.begin_by == timedelta(minutes=5)
    assert job.failure_log_level == logging.DEBUG
    assert job.retry_policy_factory is NeverRetry


def test_options_that_the_job_has_stay_where_put_does_not_say_otherwise(
    view: View, standing_clock: StandingClock
) -> None:
    job = numbered(1)
    job.begin_after = standing_clock.now() + timedelta(hours=1)
    job.begin_by = timedelta(minutes=5)
    job.failure_log_level = logging.DEBUG
    view.queue.put(job)
    assert job.begin_after == standing_clock.now() + timedelta(hours=1)
    assert job.begin_by == timedelta(minutes=5)
    assert job.failure_log_level == logging.DEBUG


def test_begin_after_is_kept_in_utc(view: View, standing_clock: StandingClock) -> None:
    east = timezone(timedelta(hours=2))
    job = view.queue.put(numbered(1), begin_after=datetime(2026, 3, 1, 16, tzinfo=east))
    assert job.begin_after == datetime(2026, 3, 1, 14, tzinfo=UTC)
    assert job.begin_after.tzinfo is UTC


def test_the_uuid_of_the_instance_is_noted(view: View) -> None:
    registry = zope.component.getGlobalSiteManager()
    registry.registerUtility(FIRST, IUUID)
    try:
        job = view.queue.put(numbered(1))
    finally:
        registry.unregisterUtility(FIRST, IUUID)
    assert job.assignerUUID == FIRST
    assert view.queue.put(numbered(2)).assignerUUID is None


def test_a_naive_begin_after_is_refused(view: View) -> None:
    with pytest.raises(ValueError, match="timezone-aware"):
        view.queue.put(numbered(1), begin_after=datetime(2026, 1, 1))
    assert not view.queue


def test_a_negative_begin_by_is_refused(view: View) -> None:
    with pytest.raises(ValueError, match="negative"):
        view.queue.put(numbered(1), begin_by=timedelta(seconds=-1))
    assert not view.queue


@pytest.mark.parametrize(
    "moment", [datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)]
)
def test_the_ends_of_time_are_moments_like_others(view: View, moment: datetime) -> None:
    job = view.queue.put(numbered(1), begin_after=moment)
    other = view.queue.put(numbered(2), begin_after=moment)
    assert list(view.queue) == [job, other]
    assert view.queue.claim() is (None if moment.year > 2026 else job)


def test_a_job_that_waits_already_is_refused(view: View) -> None:
    job = view.queue.put(numbered(1))
    with pytest.raises(ValueError, match="only a new job can be put"):
        view.queue.put(job)
    assert list(view.queue) == [job]


def test_a_callback_of_another_job_is_refused(view: View) -> None:
    for callback in (
        numbered(1).addCallback(operator.mul),
        numbered(1).addCallbacks(operator.mul).success,
    ):
        with pytest.raises(ValueError, match="callback of another job"):
            view.queue.put(callback)
    assert not view.queue


def test_a_new_job_that_belongs_elsewhere_is_refused(view: View) -> None:
    job = numbered(1)
    job.parent = view.queue
    with pytest.raises(ValueError, match="belongs to another object"):
        view.queue.put(job)


def test_an_unknown_quota_is_refused_at_put(view: View) -> None:
    job = numbered(1, "catalog")
    with pytest.raises(ValueError, match="unknown quota name") as caught:
        view.queue.put(job)
    assert caught.value.args == ("unknown quota name", "catalog")
    assert not view.queue
    assert job.status == NEW


@pytest.mark.parametrize(
    ("item", "named"),
    [
        (lambda: None, "lambda"),
        (Unpicklable().method, "Unpicklable"),
        (Job(operator.mul, Unpicklable()), "argument 0 of _operator.mul"),
        (Job(operator.mul, other=Unpicklable()), "argument 'other' of _operator.mul"),
    ],
)
def test_what_cannot_be_stored_is_refused_at_put(view: View, item: object, named: str) -> None:
    with pytest.raises(NotStorableError, match=named):
        view.queue.put(item)
    assert not view.queue


def test_a_local_function_is_refused_at_put(view: View) -> None:
    def local() -> None:
        pass

    with pytest.raises(NotStorableError, match="local function"):
        view.queue.put(local)


def test_an_object_of_another_connection_is_refused_at_put(view: View, open_view: object) -> None:
    other = open_view()  # type: ignore[operator]
    counter = other.root["counter"] = Counter()
    other.commit()
    with pytest.raises(NotStorableError, match="another connection or database"):
        view.queue.put(Job(counter.count))


def test_what_cannot_be_called_is_refused(view: View) -> None:
    with pytest.raises(TypeError, match="something that can be called"):
        view.queue.put(42)


# Order


def test_jobs_lie_in_the_order_of_their_puts(view: View) -> None:
    jobs = view.put(*range(100))
    assert list(view.queue) == jobs


def test_many_puts_in_one_instant_keep_their_order_and_are_all_due(
    view: View, standing_clock: StandingClock
) -> None:
    view.put(*range(500))
    assert numbers(view.queue) == list(range(500))
    assert numbers(view.queue.claims()) == list(range(500))


def test_order_is_kept_over_transactions_and_lanes(
    view: View, standing_clock: StandingClock
) -> None:
    for number in range(60):
        view.put(number)
        standing_clock.move(microseconds=number % 2)
    assert numbers(view.queue) == list(range(60))


def test_a_begin_after_in_the_past_is_the_end_of_the_line(
    view: View, standing_clock: StandingClock
) -> None:
    view.put(1)
    (job,) = view.put(2, begin_after=standing_clock.now() - timedelta(days=1))
    view.put(3)
    assert numbers(view.queue) == [1, 2, 3]
    assert job.begin_after == standing_clock.now()


def test_jobs_for_later_lie_in_the_order_in_which_they_are_due(
    view: View, standing_clock: StandingClock
) -> None:
    now = standing_clock.now()
    view.put(3, begin_after=now + timedelta(minutes=3))
    view.put(1, begin_after=now + timedelta(minutes=1))
    view.put(0)
    view.put(2, begin_after=now + timedelta(minutes=2))
    assert numbers(view.queue) == [0, 1, 2, 3]


def test_a_job_that_has_become_due_comes_before_those_put_since(
    view: View, standing_clock: StandingClock
) -> None:
    view.put(1, begin_after=standing_clock.now() + timedelta(seconds=10))
    view.put(0)
    standing_clock.move(seconds=20)
    view.put(2)
    assert numbers(view.queue) == numbers(view.queue.claims()) == [0, 1, 2]


def test_many_jobs_for_one_moment_keep_their_order_and_are_all_due_then(
    view: View, standing_clock: StandingClock
) -> None:
    moment = standing_clock.now() + timedelta(hours=1)
    view.put(*range(300), begin_after=moment)
    standing_clock.move(hours=1)
    assert numbers(view.queue.claims()) == list(range(300))


def test_no_job_for_later_is_claimed_before_its_time(
    view: View, standing_clock: StandingClock
) -> None:
    view.put(1, begin_after=standing_clock.now() + timedelta(seconds=1))
    standing_clock.move(microseconds=999_999)
    assert view.queue.claim() is None
    standing_clock.move(microseconds=1)
    assert numbers(view.queue.claims()) == [1]


def test_what_is_put_back_is_first_and_the_last_of_them_first_of_all(
    view: View, standing_clock: StandingClock
) -> None:
    view.put(*range(5))
    claimed = [view.queue.claim() for _ in range(3)]
    for job in claimed:
        view.queue.putBack(job)
        assert job.status == PENDING
        assert job.parent is view.queue
    assert numbers(view.queue) == numbers(view.queue.claims()) == [2, 1, 0, 3, 4]


def test_what_is_put_back_is_in_order_whatever_its_quotas(
    view: View, standing_clock: StandingClock
) -> None:
    view.queue.quotas.create("a", size=9)
    view.queue.quotas.create("b", size=9)
    for number, names in enumerate([(), ("a",), ("b",), (), ("a", "b"), ("b",), ("a",)]):
        view.queue.put(numbered(number, *names))
    for job in reversed(list(view.queue.claims())):
        view.queue.putBack(job)
    assert numbers(view.queue) == list(range(7))


def test_what_is_put_back_is_first_though_the_clock_went_back(
    view: View, standing_clock: StandingClock
) -> None:
    view.put(1, 2)
    first, second = view.queue.claims()
    view.queue.putBack(second)
    standing_clock.move(hours=-1)
    view.queue.putBack(first)
    assert numbers(view.queue) == [1, 2]


def test_a_job_that_was_never_claimed_can_be_put_first(view: View) -> None:
    view.put(1)
    view.queue.putBack(numbered(0))
    assert numbers(view.queue) == [0, 1]


def test_a_job_that_waits_or_has_ended_cannot_be_put_back(view: View) -> None:
    (job,) = view.put(1)
    with pytest.raises(BadStatusError, match="pending-status"):
        view.queue.putBack(job)
    job = view.queue.claim()
    job()
    with pytest.raises(BadStatusError, match="completed-status"):
        view.queue.putBack(job)
    assert not view.queue


def test_a_job_that_an_agent_holds_leaves_it_when_it_is_put_back(view: View) -> None:
    view.put(1)
    agent = view.dispatcher()["main"]
    job = agent.claimJob()
    view.queue.putBack(job)
    assert list(agent) == []
    assert list(view.queue) == [job]


def test_a_clock_that_goes_back_neither_hides_nor_reorders_jobs_of_one_connection(
    view: View, standing_clock: StandingClock
) -> None:
    view.put(1)
    standing_clock.move(hours=-1)
    view.put(2)
    assert numbers(view.queue.claims()) == [1, 2]


# The mapping of queues


def test_only_queues_go_into_queues(view: View) -> None:
    with pytest.raises(ValueError, match=r"^value must be IQueue$"):
        view.queues["other"] = object()
    assert list(view.queues) == [""]


def test_a_queue_gets_its_name_and_parent_and_loses_them(view: View) -> None:
    queue = view.queues["other"] = Queue()
    assert (queue.name, queue.parent) == ("other", view.queues)
    assert view.queues.pop("other") is queue
    assert (queue.name, queue.parent) == (None, None)
    view.queues["third"] = queue
    del view.queues["third"]
    assert (queue.name, queue.parent) == (None, None)
    assert list(view.queues) == [""]


def test_a_queue_that_is_replaced_loses_its_name_and_parent(view: View) -> None:
    queue = view.queue
    view.queues[""] = Queue()
    assert (queue.name, queue.parent) == (None, None)


def test_queues_are_a_mapping() -> None:
    queues = Queues()
    assert not queues
    one, two = queues["one"], queues["two"] = Queue(), Queue()
    assert list(queues) == list(queues.keys()) == ["one", "two"]
    assert list(queues.values()) == [one, two]
    assert list(queues.items()) == [("one", one), ("two", two)]
    assert len(queues) == 2
    assert "one" in queues
    assert queues.get("three") is None
    assert queues.get("three", 3) == 3
    with pytest.raises(KeyError):
        queues["three"]
    with pytest.raises(KeyError):
        del queues["three"]
    assert queues


# Jobs that are to run again


def test_a_job_rescheduled_for_a_moment_that_is_past_goes_to_the_end_of_the_line(
    view: View, standing_clock: StandingClock
) -> None:
    view.put(1, 2, 3)
    job = view.queue.claim()
    view.queue.reschedule(job, 0)
    assert numbers(view.queue) == [2, 3, 1]
    assert job.begin_after == standing_clock.now()
    assert (job.status, job.parent) == (PENDING, view.queue)


def test_a_waiting_job_cannot_be_rescheduled(view: View) -> None:
    (job,) = view.put(1)
    before = job.begin_after
    with pytest.raises(BadStatusError, match="pending-status"):
        view.queue.reschedule(job, 2**50)
    assert job.begin_after == before
    assert len(view.queue) == len(list(view.queue)) == 1


def test_a_job_emptied_by_a_failed_commit_is_refused_with_advice(view: View) -> None:
    emptied = Job.__new__(Job)  # what ZODB leaves of a new object then
    with pytest.raises(ValueError, match="lost its content"):
        view.queue.put(emptied)
