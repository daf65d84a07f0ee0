# SPDX-License-Identifier: ZPL-2.1
"""Looking at what waits, and taking it out again."""

from __future__ import annotations

import operator
from datetime import timedelta

import pytest
import zope.component
from ZODB.interfaces import IConnection

from tests.support.clocks import StandingClock
from tests.support.queues import View, numbered
from zasync.foundation import wakeup
from zasync.interfaces import KEY, NEW, PENDING, IQueue
from zasync.job import Job
from zasync.queue import Queue, getDefaultQueue


def test_an_empty_queue_is_false_and_has_no_jobs(view: View) -> None:
    assert not view.queue
    assert len(view.queue) == 0
    assert list(view.queue) == []
    assert view.queue.next_due() is None


def test_length_and_truth_follow_what_waits(view: View, standing_clock: StandingClock) -> None:
    view.put(1, 2)
    view.put(3, begin_after=standing_clock.now() + timedelta(days=1))
    assert view.queue
    assert len(view.queue) == 3
    view.queue.claim()
    assert len(view.queue) == 2
    view.queue.putBack(numbered(4))
    assert len(view.queue) == 3


def test_jobs_are_found_by_index_from_both_ends(view: View) -> None:
    jobs = view.put(1, 2, 3)
    assert [view.queue[index] for index in (0, 1, 2)] == jobs
    assert [view.queue[index] for index in (-3, -2, -1)] == jobs


@pytest.mark.parametrize("index", [3, -4])
def test_an_index_beyond_the_ends_is_an_index_error(view: View, index: int) -> None:
    view.put(1, 2, 3)
    with pytest.raises(IndexError):
        view.queue[index]
    with pytest.raises(IndexError):
        view.queue.pull(index)
    assert len(view.queue) == 3


def test_a_job_that_is_pulled_is_new_again_and_can_be_put_again(view: View) -> None:
    first, second, third = view.put(1, 2, 3)
    assert view.queue.pull() is first
    assert view.queue.pull(-1) is third
    assert (first.status, first.parent, first.queue) == (NEW, None, None)
    assert list(view.queue) == [second]
    view.queue.put(first)
    assert list(view.queue) == [second, first]


def test_a_job_that_is_removed_is_new_again(view: View) -> None:
    first, second = view.put(1, 2)
    view.queue.remove(first)
    assert (first.status, first.parent) == (NEW, None)
    assert list(view.queue) == [second]


def test_removing_what_is_not_in_the_queue_is_a_lookup_error(view: View) -> None:
    other = view.queues["other"] = Queue()
    foreign = other.put(numbered(1))
    view.put(2)
    claimed = view.queue.claim()
    for item in (foreign, claimed, numbered(3), operator.mul, None):
        with pytest.raises(LookupError) as caught:
            view.queue.remove(item)
        assert caught.value.args == ("item not in queue", item)
    assert foreign.status == PENDING


def test_jobs_can_be_taken_out_while_they_are_looked_at(view: View) -> None:
    view.put(*range(100))
    for job in view.queue:
        view.queue.remove(job)
    assert len(view.queue) == 0


def test_the_next_moment_is_that_of_the_first_job_that_is_not_due_yet(
    view: View, standing_clock: StandingClock
) -> None:
    now = standing_clock.now()
    view.queue.quotas.create("catalog")
    view.queue.put(numbered(1, "catalog"), begin_after=now + timedelta(minutes=2))
    view.put(2, begin_after=now + timedelta(minutes=1))
    view.put(3)
    assert view.queue.next_due() == now + timedelta(minutes=1)
    standing_clock.move(minutes=1)  # the first is due now, but nobody has claimed it
    assert view.queue.next_due() == now + timedelta(minutes=2)
    standing_clock.move(minutes=1)
    assert view.queue.next_due() is None


def test_every_put_changes_one_of_the_counters_that_dispatchers_watch(
    view: View, standing_clock: StandingClock
) -> None:
    view.queue.quotas.create("catalog")

    def total() -> int:
        return sum(counter() for counter in view.queue.counters())

    before = total()
    view.put(1)
    view.put(2, begin_after=standing_clock.now() + timedelta(days=1))
    view.queue.put(numbered(3, "catalog"))
    view.queue.putBack(numbered(4))
    assert total() == before + 4
    view.queue.claim()
    assert total() == before + 4


def test_a_put_rings_once_its_transaction_is_committed_and_not_when_it_is_aborted(
    view: View,
) -> None:
    rings: list[str] = []
    listener = wakeup.Listener(view.connection.db(), lambda: rings.append("rung"))
    listener.start()
    try:
        view.queue.put(numbered(1))
        view.abort()
        assert rings == []
        view.queue.put(numbered(1))
        view.queue.put(numbered(2))
        assert rings == []
        view.commit()
        assert rings == ["rung"]
    finally:
        listener.stop()


# The default queue


def test_stored_objects_and_connections_lead_to_the_default_queue(view: View) -> None:
    (job,) = view.put(1)
    assert getDefaultQueue(view.root) is view.queue
    assert getDefaultQueue(job) is view.queue
    assert getDefaultQueue(view.connection) is view.queue


def test_the_default_queue_is_an_adapter(view: View) -> None:
    registry = zope.component.getGlobalSiteManager()
    registry.registerAdapter(getDefaultQueue)
    registry.registerAdapter(getDefaultQueue, [IConnection])
    try:
        assert IQueue(view.root) is view.queue
        assert IQueue(view.connection) is view.queue
        assert IQueue(Job(operator.mul), None) is None
    finally:
        registry.unregisterAdapter(getDefaultQueue)
        registry.unregisterAdapter(getDefaultQueue, [IConnection])


def test_without_a_database_or_queues_or_a_queue_of_that_name_there_is_none(view: View) -> None:
    assert getDefaultQueue(Job(operator.mul)) is None
    del view.queues[""]
    assert getDefaultQueue(view.root) is None
    del view.root[KEY]
    assert getDefaultQueue(view.root) is None
