# SPDX-License-Identifier: ZPL-2.1
"""Dispatchers that come and go in a queue, and what becomes of their jobs."""

from __future__ import annotations

import logging
import operator
import sys
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import zope.component
from ZODB.POSException import ConflictError
from zope.interface.interfaces import IObjectEvent
from zope.interface.verify import verifyObject

from tests.support.clocks import StandingClock
from tests.support.queues import FIRST, SECOND, THIRD, View, numbered, numbers
from zasync.agent import Agent
from zasync.failure import Failure
from zasync.interfaces import (
    ACTIVE,
    CALLBACKS,
    COMPLETED,
    NEW,
    PENDING,
    AbortedError,
    IDispatcherActivated,
    IDispatcherAgents,
    IDispatcherDeactivated,
    IDispatcherReactivated,
    IDispatcherRegistered,
    IDispatchers,
    IDispatcherUnregistered,
    IObjectAdded,
)
from zasync.job import Job, NeverRetry, RetryCommonForever
from zasync.queue import DispatcherAgents
from zasync.queue.registration import hand_back

EVENTS = (
    IDispatcherRegistered,
    IDispatcherUnregistered,
    IDispatcherActivated,
    IDispatcherReactivated,
    IDispatcherDeactivated,
)


class PassingJob(Job):
    """A job whose class one of the processes does not have."""


def names(events: list[Any]) -> list[str]:
    return [type(event).__name__ for event in events]


# Records


def test_dispatchers_and_their_records_fulfil_their_interfaces(view: View) -> None:
    assert verifyObject(IDispatchers, view.queue.dispatchers)
    assert verifyObject(IDispatcherAgents, view.queue.dispatchers.register(FIRST))


def test_a_registered_dispatcher_has_a_record_and_is_told_about(view: View, heard: Any) -> None:
    events = heard(*EVENTS)
    record = view.queue.dispatchers.register(FIRST)
    assert view.queue.dispatchers[FIRST] is record
    assert list(view.queue.dispatchers) == [FIRST]
    assert (record.UUID, record.parent, record.activated) == (FIRST, view.queue, None)
    assert record.last_ping.value is None
    assert record.ping_interval == timedelta(seconds=15)
    assert record.ping_death_interval == timedelta(seconds=60)
    assert names(events) == ["DispatcherRegistered"]
    assert events[0].object is record
    assert IObjectEvent.providedBy(events[0])


def test_a_dispatcher_is_registered_once(view: View) -> None:
    record = view.queue.dispatchers.register(FIRST)
    with pytest.raises(ValueError, match="already registered") as caught:
        view.queue.dispatchers.register(FIRST)
    assert caught.value.args[1] == FIRST
    assert view.queue.dispatchers[FIRST] is record


def test_a_subclass_of_uuid_is_kept_as_a_plain_one(view: View) -> None:
    class OurUUID(UUID):
        pass

    view.queue.dispatchers.register(OurUUID(int=FIRST.int))
    assert [type(uuid) for uuid in view.queue.dispatchers] == [UUID]
    view.commit()


def test_an_unregistered_dispatcher_is_gone_and_told_about(view: View, heard: Any) -> None:
    record = view.queue.dispatchers.register(FIRST)
    events = heard(*EVENTS)
    assert view.queue.dispatchers.unregister(FIRST) is record
    assert FIRST not in view.queue.dispatchers
    assert record.parent is None
    assert names(events) == ["DispatcherUnregistered"]
    assert events[0].object is record
    assert events[0].parent is view.queue


def test_an_activated_or_unknown_dispatcher_cannot_be_unregistered(view: View) -> None:
    view.dispatcher(FIRST)
    with pytest.raises(ValueError, match="deactivate it first"):
        view.queue.dispatchers.unregister(FIRST)
    assert FIRST in view.queue.dispatchers
    with pytest.raises(KeyError):
        view.queue.dispatchers.unregister(SECOND)


# Agents in a record


def test_an_agent_gets_its_name_and_parent_and_is_told_about(view: View, heard: Any) -> None:
    record = view.queue.dispatchers.register(FIRST)
    events = heard(IObjectAdded)
    agent = record["main"] = Agent()
    assert (agent.name, agent.parent, agent.queue) == ("main", record, view.queue)
    assert list(record) == ["main"]
    (event,) = events
    assert (event.object, event.parent, event.name) == (agent, record, "main")
    assert IObjectEvent.providedBy(event)


def test_only_agents_without_jobs_go_into_a_record(view: View) -> None:
    record = view.dispatcher(FIRST)
    other = view.queue.dispatchers.register(SECOND)
    view.put(1)
    record["main"].claimJob()
    with pytest.raises(ValueError, match="value must be IAgent"):
        other["main"] = object()
    with pytest.raises(ValueError, match="an agent that holds jobs cannot be added"):
        other["main"] = record["main"]
    assert list(other) == []


def test_an_agent_with_jobs_is_neither_taken_out_nor_replaced(view: View) -> None:
    record = view.dispatcher(FIRST)
    agent = record["main"]
    view.put(1)
    job = agent.claimJob()
    with pytest.raises(ValueError, match="'main' holds jobs"):
        del record["main"]
    with pytest.raises(ValueError, match="'main' holds jobs"):
        record.pop("main")
    with pytest.raises(ValueError, match="'main' holds jobs"):
        record["main"] = Agent()
    assert record["main"] is agent
    assert list(agent) == [job]


def test_an_agent_without_jobs_is_taken_out_or_replaced(view: View) -> None:
    record = view.dispatcher(FIRST)
    first = record["main"]
    second = record["main"] = Agent()
    assert (first.name, first.parent) == (None, None)
    assert record.pop("main") is second
    assert (second.name, second.parent) == (None, None)
    third = record["main"] = Agent()
    record["main"] = third
    assert (third.name, third.parent) == ("main", record)
    del record["main"]
    assert list(record) == []
    with pytest.raises(KeyError):
        del record["main"]
    with pytest.raises(KeyError):
        record.pop("main")


# Coming and going


def test_activation_marks_pings_and_tells(
    view: View, standing_clock: StandingClock, heard: Any
) -> None:
    record = view.queue.dispatchers.register(FIRST)
    events = heard(*EVENTS)
    record.activate()
    assert record.activated == record.last_ping.value == standing_clock.now()
    assert names(events) == ["DispatcherActivated"]
    assert events[0].object is record
    for again in (record.activate, record.reactivate):
        with pytest.raises(ValueError, match="already activated") as caught:
            again()
        assert caught.value.args[1] == FIRST


def test_deactivation_marks_and_tells(view: View, heard: Any) -> None:
    record = view.dispatcher(FIRST)
    record.incarnation = 42
    events = heard(*EVENTS)
    record.deactivate()
    assert record.activated is None
    assert record.incarnation is None
    assert names(events) == ["DispatcherDeactivated"]
    with pytest.raises(ValueError, match="not activated") as caught:
        record.deactivate()
    assert caught.value.args[1] == FIRST


def test_reactivation_is_an_event_of_its_own(view: View, heard: Any) -> None:
    record = view.dispatcher(FIRST)
    record.deactivate()
    events = heard(*EVENTS)
    record.reactivate()
    assert record.activated
    assert names(events) == ["DispatcherReactivated"]


def test_handlers_see_the_record_as_it_is_after_what_they_are_told(view: View) -> None:
    seen: list[tuple[str, bool, list[int]]] = []

    def look(event: Any) -> None:
        record = event.object
        seen.append((type(event).__name__, bool(record.activated), numbers(record["main"])))

    registry = zope.component.getGlobalSiteManager()
    registry.registerHandler(look, [IDispatcherActivated])
    registry.registerHandler(look, [IDispatcherDeactivated])
    try:
        record = view.dispatcher(FIRST)
        view.put(1)
        record["main"].claimJob()
        record.deactivate()
    finally:
        registry.unregisterHandler(look, [IDispatcherActivated])
        registry.unregisterHandler(look, [IDispatcherDeactivated])
    assert seen == [("DispatcherActivated", True, []), ("DispatcherDeactivated", False, [])]


# Living


def test_a_dispatcher_is_dead_once_its_last_ping_is_too_old(
    view: View, standing_clock: StandingClock
) -> None:
    record = view.dispatcher(FIRST)
    standing_clock.move(seconds=60)
    assert not record.dead
    standing_clock.move(microseconds=1)
    assert record.dead
    record.ping()
    assert not record.dead


def test_a_dispatcher_that_is_not_activated_is_not_dead(
    view: View, standing_clock: StandingClock
) -> None:
    record = view.dispatcher(FIRST)
    record.deactivate()
    standing_clock.move(days=1)
    assert not record.dead


def test_without_a_ping_the_activation_counts(view: View, standing_clock: StandingClock) -> None:
    record = view.dispatcher(FIRST)
    record.last_ping.value = None
    assert not record.dead
    standing_clock.move(minutes=2)
    assert record.dead


def test_intervals_can_be_set(view: View, standing_clock: StandingClock) -> None:
    record = view.dispatcher(FIRST)
    record.ping_interval = timedelta(seconds=2)
    record.ping_death_interval = timedelta(seconds=5)
    standing_clock.move(seconds=6)
    assert record.dead


def test_a_ping_is_written_when_the_interval_is_over_and_not_before(
    view: View, standing_clock: StandingClock
) -> None:
    record = view.dispatcher(FIRST)
    first = record.last_ping.value
    standing_clock.move(seconds=14)
    view.queue.dispatchers.ping(FIRST)
    assert record.last_ping.value == first
    standing_clock.move(seconds=1)
    view.queue.dispatchers.ping(FIRST)
    assert record.last_ping.value == standing_clock.now()


def test_a_ping_writes_the_small_record_only(view: View, standing_clock: StandingClock) -> None:
    record = view.dispatcher(FIRST)
    standing_clock.move(seconds=15)
    view.queue.dispatchers.ping(FIRST)
    assert record.last_ping._p_changed
    assert not record._p_changed


def test_a_ping_from_the_future_does_not_stop_the_pings(
    view: View, standing_clock: StandingClock
) -> None:
    record = view.dispatcher(FIRST)
    standing_clock.move(hours=-1)
    view.queue.dispatchers.ping(FIRST)
    assert record.last_ping.value == standing_clock.now()


def test_a_first_ping_is_written(view: View) -> None:
    record = view.dispatcher(FIRST)
    record.last_ping.value = None
    view.queue.dispatchers.ping(FIRST)
    assert record.last_ping.value is not None


def test_a_ping_of_an_unknown_dispatcher_is_a_key_error(view: View) -> None:
    with pytest.raises(KeyError):
        view.queue.dispatchers.ping(FIRST)


def test_pinging_while_not_activated_reactivates_with_a_critical_log(
    view: View, heard: Any, caplog: pytest.LogCaptureFixture
) -> None:
    record = view.dispatcher(FIRST)
    record.deactivate()
    events = heard(*EVENTS)
    view.queue.dispatchers.ping(FIRST)
    assert record.activated
    assert names(events) == ["DispatcherReactivated"]
    (log,) = caplog.records
    assert log.levelno == logging.CRITICAL
    assert log.name == "zasync.events"
    assert str(FIRST) in log.getMessage()


def test_a_ping_deactivates_the_next_active_sibling_if_it_is_dead(
    view: View, standing_clock: StandingClock, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = (view.dispatcher(uuid) for uuid in (FIRST, SECOND, THIRD))
    standing_clock.move(minutes=5)
    view.queue.dispatchers.ping(SECOND)
    assert third.activated is None
    assert first.activated
    assert second.activated
    view.queue.dispatchers.ping(SECOND)  # now the next one is that at the other end of the ring
    assert first.activated is None
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    view.queue.dispatchers.ping(SECOND)  # alone
    assert second.activated


def test_a_ping_leaves_a_sibling_that_lives_alone(view: View) -> None:
    view.dispatcher(FIRST)
    sibling = view.dispatcher(SECOND)
    view.queue.dispatchers.ping(FIRST)
    assert sibling.activated


def test_only_the_next_sibling_is_looked_at(view: View, standing_clock: StandingClock) -> None:
    view.dispatcher(FIRST)
    third = view.dispatcher(THIRD)
    standing_clock.move(minutes=5)
    view.dispatcher(SECOND)
    view.queue.dispatchers.ping(FIRST)
    assert third.activated  # dead, but the second lives and will see to it


def test_a_dispatcher_may_judge_its_siblings_in_its_own_way(
    view: View, standing_clock: StandingClock
) -> None:
    view.dispatcher(FIRST)
    sibling = view.dispatcher(SECOND)
    standing_clock.move(minutes=5)
    view.queue.dispatchers.ping(FIRST, lambda record: False)
    assert sibling.activated
    view.queue.dispatchers.ping(FIRST, lambda record: record is sibling)
    assert sibling.activated is None


# What becomes of the jobs


@pytest.fixture
def record(view: View) -> DispatcherAgents:
    return view.dispatcher(FIRST, size=9)  # type: ignore[no-any-return]


def claim_all(view: View, record: Any) -> list[Any]:
    jobs = list(record["main"].claim_jobs(99))
    view.commit()
    return jobs


def test_assigned_jobs_go_back_in_their_order_and_first_in_line(
    view: View, record: Any, standing_clock: StandingClock
) -> None:
    view.put(*range(6))
    record["main"].size = 4
    jobs = claim_all(view, record)
    record.deactivate()
    assert len(record["main"]) == 0
    assert numbers(view.queue) == list(range(6))
    assert {(job.status, job.parent) for job in jobs} == {(PENDING, view.queue)}


def test_the_jobs_of_several_agents_go_back(view: View, record: Any) -> None:
    view.put(*range(4))
    record["main"].size = 2
    record["other"] = Agent(size=2)
    claim_all(view, record)
    list(record["other"].claim_jobs(9))
    record.deactivate()
    assert sorted(numbers(view.queue)) == [0, 1, 2, 3]


def test_an_active_job_gets_a_job_that_handles_its_interruption(view: View, record: Any) -> None:
    view.put(1, 2)
    active, _assigned = claim_all(view, record)
    active.start(77)
    record.deactivate()
    interruption, following = view.queue
    assert interruption.callable == active.handleInterrupt
    assert interruption.retry_policy_factory is RetryCommonForever
    assert interruption.failure_log_level == logging.CRITICAL
    assert numbers([following]) == [2]
    assert (active.status, active.parent, active.agent) == (ACTIVE, view.queue, None)
    assert active._token is None  # the run that had it commits nothing more


def test_an_interrupted_job_is_first_in_line_again(view: View, record: Any) -> None:
    view.put(1, 2)
    job, _other = claim_all(view, record)
    job.start(77)
    record.deactivate()
    view.commit()
    interruption = view.queue.claim()
    view.root["interruption"] = interruption
    view.commit()
    interruption()
    assert numbers(view.queue) == [1, 2]
    assert job.status == PENDING


def test_an_interrupted_job_that_must_not_run_again_is_aborted(view: View, record: Any) -> None:
    (job,) = view.put(1, retry_policy_factory=NeverRetry)
    claim_all(view, record)
    job.start(77)
    record.deactivate()
    view.root["interruption"] = interruption = view.queue.claim()
    view.commit()
    interruption()
    assert job.status == COMPLETED
    assert isinstance(job.result, Failure)
    assert job.result.check(AbortedError)


def test_a_job_in_its_callbacks_gets_a_job_that_resumes_them(view: View, record: Any) -> None:
    (job,) = view.put(1)
    callback = job.addCallback(Job(operator.mul, 8))
    claim_all(view, record)
    job._result, job._status = 2, CALLBACKS
    record.deactivate()
    (resumption,) = view.queue
    assert resumption.callable == job.resumeCallbacks
    assert resumption.retry_policy_factory is RetryCommonForever
    assert resumption.failure_log_level == logging.CRITICAL
    view.commit()
    assert job.status == CALLBACKS
    view.root["resumption"] = view.queue.claim()
    view.commit()
    resumption()
    assert (callback.status, callback.result) == (COMPLETED, 16)
    assert job.status == COMPLETED


def test_a_completed_job_goes_to_the_completed_ones(view: View, record: Any) -> None:
    (job,) = view.put(1)
    claim_all(view, record)
    job._result, job._status = 2, COMPLETED
    record.deactivate()
    assert list(record["main"].completed) == [job]
    assert not view.queue


def test_a_job_that_was_to_run_again_goes_back_for_then(
    view: View, record: Any, standing_clock: StandingClock
) -> None:
    first, second = view.put(1, 2)
    claim_all(view, record)
    due = standing_clock.now() + timedelta(minutes=5)
    first.start(77)
    first._again = int(due.timestamp()) * 1_000_000
    second.start(78)
    second._again = 0
    record.deactivate()
    assert list(view.queue) == [second, first]
    assert first.begin_after == due
    assert view.queue.next_due() == due


def test_a_new_job_in_an_agent_is_only_let_go(view: View, record: Any) -> None:
    (job,) = view.put(1)
    claim_all(view, record)
    job._status = NEW
    hand_back(record["main"], view.queue)
    assert len(record["main"]) == len(view.queue) == 0


def test_a_job_whose_class_is_missing_is_left_and_does_not_stop_the_recovery(
    view: View,
    record: Any,
    open_view: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    view.put(1)
    view.queue.put(PassingJob(numbered))
    view.put(2)
    jobs = claim_all(view, record)
    assert len(jobs) == 3
    other = open_view()
    with monkeypatch.context() as elsewhere:
        elsewhere.delattr(sys.modules[__name__], "PassingJob")
        other.queue.dispatchers[FIRST].deactivate()
        other.commit()
    assert numbers(other.queue) == [1, 2]
    assert "PassingJob is not in this process" in caplog.text
    # A process that has the class gives it back when it takes part again.
    view.begin()
    assert list(record["main"]) == [jobs[1]]
    record.activate()
    assert view.queue[0] is jobs[1]
    assert len(record["main"]) == 0


# Forgetting


def test_a_dispatcher_that_does_not_come_back_is_forgotten_after_eight_days(
    view: View, standing_clock: StandingClock
) -> None:
    for uuid in (FIRST, SECOND, THIRD):
        view.queue.dispatchers.register(uuid)
    view.queue.dispatchers[FIRST].activate()
    view.queue.dispatchers[FIRST].deactivate()
    view.queue.dispatchers[SECOND].activate()
    standing_clock.move(days=8)
    assert view.queue.dispatchers.prune() == []
    standing_clock.move(seconds=1)
    assert view.queue.dispatchers.prune() == [FIRST]
    assert list(view.queue.dispatchers) == sorted([SECOND, THIRD]), "they live, or never began"


def test_a_dispatcher_whose_agent_holds_a_job_is_not_forgotten(
    view: View, standing_clock: StandingClock
) -> None:
    record = view.queue.dispatchers.register(FIRST)
    record["main"] = agent = Agent()
    record.activate()
    record.deactivate()
    agent.adopt(Job(operator.mul, 2, 3))
    standing_clock.move(days=30)
    assert view.queue.dispatchers.prune() == []


# Intervals


def test_the_queue_says_how_often_its_dispatchers_ping(view: View) -> None:
    record, own = view.dispatcher(FIRST), view.dispatcher(SECOND)
    own.ping_death_interval = timedelta(hours=1)
    own.ping_interval = timedelta(minutes=1)
    dispatchers = view.queue.dispatchers
    dispatchers.ping_death_interval = timedelta(minutes=10)
    dispatchers.ping_interval = timedelta(minutes=2)

    assert record.ping_interval == timedelta(minutes=2)
    assert record.ping_death_interval == timedelta(minutes=10)
    assert own.ping_interval == timedelta(minutes=1)
    assert own.ping_death_interval == timedelta(hours=1)
    record.deactivate()
    dispatchers.unregister(FIRST)
    assert record.ping_interval == timedelta(seconds=15)


@pytest.mark.parametrize("of", ["queue", "record"])
@pytest.mark.parametrize(
    ("name", "span", "error"),
    [
        ("ping_interval", timedelta(), ValueError),
        ("ping_interval", timedelta(seconds=-1), ValueError),
        ("ping_interval", timedelta(seconds=60), ValueError),
        ("ping_death_interval", timedelta(seconds=15), ValueError),
        ("ping_interval", 5, TypeError),
        ("ping_death_interval", None, TypeError),
    ],
)
def test_intervals_that_cannot_be_are_refused(
    view: View, of: str, name: str, span: Any, error: type[Exception]
) -> None:
    thing = view.queue.dispatchers if of == "queue" else view.dispatcher(FIRST)
    with pytest.raises(error, match="interval"):
        setattr(thing, name, span)
    assert getattr(thing, name) in (timedelta(seconds=15), timedelta(seconds=60))


def test_both_intervals_can_be_set_at_once(view: View) -> None:
    record = view.dispatcher(FIRST)
    record.set_intervals(timedelta(minutes=5), timedelta(minutes=20))
    assert record.ping_interval == timedelta(minutes=5)
    assert record.ping_death_interval == timedelta(minutes=20)
    with pytest.raises(ValueError, match="must be longer"):
        record.set_intervals(timedelta(minutes=5), timedelta(minutes=5))


# In batches


def test_a_deactivation_may_leave_jobs_for_later(view: View) -> None:
    record = view.dispatcher(FIRST, size=9)
    record["other"] = Agent(size=2)
    view.put(*range(7))
    list(record["main"].claim_jobs(5))
    list(record["other"].claim_jobs(2))
    record.deactivate(crashed=True, limit=4)
    assert record.left_behind
    assert view.queue.dispatchers.left_behind() == [record]
    assert (len(record["main"]), len(record["other"])) == (1, 2)
    assert record.hand_back(2) == 2
    assert record.hand_back(2) == 1
    assert not record.left_behind
    assert len(view.queue) == 7
    assert record.hand_back(2) == 0


def test_a_dispatcher_with_jobs_left_behind_is_not_forgotten(
    view: View, standing_clock: StandingClock
) -> None:
    record = view.dispatcher(FIRST)
    view.put(1)
    record["main"].claimJob()
    record.deactivate(crashed=True, limit=0)
    standing_clock.move(days=30)
    assert view.queue.dispatchers.prune() == []
    record.hand_back()
    assert view.queue.dispatchers.prune() == [FIRST]


def test_who_hands_back_conflicts_with_who_comes_back(view: View, open_view: Any) -> None:
    record = view.dispatcher(FIRST)
    view.put(1)
    record["main"].claimJob()
    record.deactivate(crashed=True, limit=0)
    view.commit()
    other = open_view()
    other.queue.dispatchers[FIRST].hand_back()
    record.reactivate()
    view.commit()
    with pytest.raises(ConflictError):
        other.commit()
