# SPDX-License-Identifier: ZPL-2.1
"""The agent: which jobs it takes, how many, and what becomes of them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import zope.component
from zope.interface.verify import verifyObject

from tests.support.clocks import StandingClock
from tests.support.queues import (
    FIRST,
    SECOND,
    View,
    db,
    heard,
    numbered,
    numbers,
    open_view,
    view,
)
from zasync.agent import Agent, addMainAgentActivationHandler
from zasync.failure import Failure
from zasync.interfaces import (
    ACTIVE,
    ASSIGNED,
    CALLBACKS,
    COMPLETED,
    NEW,
    PENDING,
    BadStatusError,
    DispatcherActivated,
    IAgent,
    ICompletedCollection,
    IFilterAgent,
    IObjectAdded,
    NotStorableError,
    UnresolvableError,
)
from zasync.job import Job
from zasync.queue import ClaimMemory, DispatcherAgents

__all__ = ["db", "heard", "open_view", "view"]


def is_even(job: Any) -> bool:
    return bool(job.args[0] % 2 == 0)


def is_mul(job: Any) -> bool:
    return bool(job.callable == operator.mul)


def choose_last(agent: Agent) -> Any:
    return agent.queue.pull(-1) if agent.queue else None


def choose_nothing(agent: Agent) -> Any:
    return None


class EvenFirst(Agent):
    """Prefers even numbers, and takes any other where there are none."""

    def _choose(self) -> Any:
        return self.queue.claim(is_even) or super()._choose()


class Rules:
    """Not persistent; can be pickled by reference to its class only."""

    def __call__(self, job: Any) -> bool:
        return True


@pytest.fixture
def record(view: View) -> Any:
    return view.dispatcher(FIRST)


@pytest.fixture
def agent(record: Any) -> Agent:
    main: Agent = record["main"]
    return main


# What it is


def test_an_agent_fulfils_its_interfaces(agent: Agent) -> None:
    assert verifyObject(IAgent, agent)
    assert verifyObject(ICompletedCollection, agent.completed)
    assert not IFilterAgent.providedBy(agent)
    assert verifyObject(IFilterAgent, Agent(filter=is_even))


def test_an_agent_takes_any_three_jobs_unless_it_is_told_otherwise() -> None:
    agent = Agent()
    assert (agent.chooser, agent.filter, agent.size) == (None, None, 3)
    assert Agent(size=5).size == 5


def test_the_first_argument_is_the_chooser_and_the_second_the_filter() -> None:
    assert Agent(choose_last).chooser is choose_last
    assert Agent(None, is_even).filter is is_even
    assert Agent(None, None, 7).size == 7


@pytest.mark.parametrize("size", [-1, 2.5, "3", None, True])
def test_only_a_number_of_jobs_is_a_size(size: Any) -> None:
    agent = Agent()
    with pytest.raises(ValueError, match="the size of an agent"):
        agent.size = size
    with pytest.raises(ValueError, match="the size of an agent"):
        Agent(size=size)
    assert agent.size == 3


def test_a_filter_and_a_chooser_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="a chooser or a filter, not both"):
        Agent(choose_last, is_even)
    filtering = Agent(filter=is_even)
    with pytest.raises(ValueError, match="not both"):
        filtering.chooser = choose_last
    assert (filtering.chooser, filtering.filter) == (None, is_even)
    choosing = Agent(chooser=choose_last)
    with pytest.raises(ValueError, match="not both"):
        choosing.filter = is_even
    assert (choosing.chooser, choosing.filter) == (choose_last, None)
    assert not IFilterAgent.providedBy(choosing)


def test_an_agent_provides_ifilteragent_while_it_has_a_filter() -> None:
    agent = Agent()
    agent.filter = is_even
    agent.filter = is_mul
    assert IFilterAgent.providedBy(agent)
    agent.filter = None
    assert not IFilterAgent.providedBy(agent)
    assert IAgent.providedBy(agent)
    agent.chooser = choose_last
    assert agent.chooser is choose_last
    agent.chooser = None
    agent.filter = is_even
    assert IFilterAgent.providedBy(agent)


def test_filter_and_chooser_are_kept_by_name(view: View, agent: Agent, open_view: Any) -> None:
    agent.filter = is_even
    view.commit()
    there = open_view().see(agent)
    assert there.filter is is_even
    assert IFilterAgent.providedBy(there)


def test_a_filter_that_is_a_pickled_object_is_kept(view: View, agent: Agent) -> None:
    agent.filter = Rules()
    view.commit()
    view.connection.cacheMinimize()
    assert isinstance(agent.filter, Rules)


def test_a_filter_that_no_process_could_find_is_refused(agent: Agent) -> None:
    with pytest.raises(NotStorableError, match="lambda"):
        agent.filter = lambda job: True
    with pytest.raises(TypeError, match="something that can be called"):
        agent.filter = 42
    assert agent.filter is None


def test_a_filter_whose_code_is_gone_is_an_error_that_names_it(agent: Agent) -> None:
    agent._filter = ("global", "module_that_went", "takes"), None
    with pytest.raises(UnresolvableError, match=r"module_that_went\.takes"):
        agent.claimJob()


def test_the_queue_is_found_through_the_parents(view: View, agent: Agent) -> None:
    assert agent.queue is view.queue
    assert Agent().queue is None
    orphan = Agent()
    orphan.parent = DispatcherAgents(FIRST)
    assert orphan.queue is None


# Claiming


def test_a_claimed_job_is_assigned_and_held(view: View, agent: Agent) -> None:
    first, second = view.put(1, 2)
    assert agent.claimJob() is first
    assert (first.status, first.parent, first.agent) == (ASSIGNED, agent, agent)
    assert first.queue is view.queue
    assert list(agent) == [first]
    assert list(view.queue) == [second]


def test_an_agent_holds_no_more_than_its_size(view: View, agent: Agent) -> None:
    view.put(*range(9))
    assert numbers(agent.claimJob() for _ in range(3)) == [0, 1, 2]
    assert agent.claimJob() is None
    agent.size = 4
    assert numbers([agent.claimJob()]) == [3]
    agent.size = 0
    assert agent.claimJob() is None
    assert numbers(agent) == [0, 1, 2, 3]


def test_many_jobs_are_claimed_in_order_at_once(view: View, agent: Agent) -> None:
    agent.size = 50
    view.put(*range(100))
    assert numbers(agent.claim_jobs(40)) == list(range(40))
    assert numbers(agent.claim_jobs(40)) == list(range(40, 50))
    assert len(agent) == agent.running == 50
    assert numbers(view.queue) == list(range(50, 100))


def test_an_empty_queue_gives_no_job(agent: Agent) -> None:
    assert agent.claimJob() is None


def test_an_agent_without_a_dispatcher_claims_nothing(view: View) -> None:
    view.put(1)
    assert Agent().claimJob() is None


def test_an_agent_of_a_deactivated_dispatcher_claims_nothing(
    view: View, record: Any, agent: Agent
) -> None:
    view.put(1)
    record.deactivate()
    assert agent.claimJob() is None
    record.reactivate()
    assert agent.claimJob() is not None


def test_an_agent_of_a_dead_dispatcher_claims_nothing(
    view: View, record: Any, agent: Agent, standing_clock: StandingClock
) -> None:
    record.ping()
    view.put(1)
    standing_clock.move(seconds=61)
    assert agent.claimJob() is None
    record.ping()
    assert agent.claimJob() is not None


def test_an_agent_that_is_not_stored_yet_claims_too(view: View) -> None:
    record = view.queue.dispatchers.register(SECOND)
    agent = record["main"] = Agent()
    record.activate()
    job = view.queue.put(numbered(1))
    assert agent.claimJob() is job


def test_a_filter_lets_the_agent_take_some_jobs_only(view: View, agent: Agent) -> None:
    agent.filter = is_even
    view.put(1, 2, 3, 4)
    assert numbers(agent.claim_jobs(9)) == [2, 4]


def test_a_chooser_gets_the_agent_and_chooses(view: View, agent: Agent) -> None:
    agent.chooser = choose_last
    view.put(1, 2, 3, 4)
    assert numbers(agent.claim_jobs(9)) == [4, 3, 2]
    assert numbers(view.queue) == [1]


def test_a_chooser_that_answers_nothing_ends_the_claims(view: View, agent: Agent) -> None:
    agent.chooser = choose_nothing
    view.put(1)
    assert agent.claimJob() is None


def test_a_subclass_may_choose(view: View, record: Any) -> None:
    agent = record["even"] = EvenFirst(size=4)
    view.put(1, 2, 3, 4, 5)
    assert numbers(agent.claim_jobs(9)) == [2, 4, 1, 3]


def test_a_subclass_that_chooses_may_have_a_filter_or_a_chooser(view: View, record: Any) -> None:
    agent = record["even"] = EvenFirst(filter=is_mul)
    view.queue.put(Job(operator.add, 1, 2))
    view.put(5)
    assert numbers(agent.claim_jobs(9)) == [5]
    choosing = record["choosing"] = EvenFirst(chooser=choose_nothing)
    assert choosing.claimJob() is None


def test_what_could_not_be_run_is_remembered_for_the_caller(
    view: View, agent: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    job = numbered(1)
    job._names = ("global", "module_that_went", "work")
    view.queue._waiting.add(job, (), None)
    memory = ClaimMemory()
    assert list(agent.claim_jobs(1, memory)) == list(agent.claim_jobs(1, memory)) == []
    assert len(caplog.records) == 1


def test_a_number_of_a_claim_is_not_used_twice(
    view: View, agent: Agent, standing_clock: StandingClock
) -> None:
    view.put(1, 2, 3)
    places = []
    for _ in range(3):
        job = agent.claimJob()
        places.append(job._place)
        agent.remove(job)
    assert len(set(places)) == 3


# Holding


@pytest.fixture
def held(view: View, agent: Agent) -> list[Any]:
    """Three jobs that the agent holds."""
    view.put(1, 2, 3)
    jobs = list(agent.claim_jobs(3))
    view.commit()
    return jobs


def test_held_jobs_are_found_like_in_a_list(agent: Agent, held: list[Any]) -> None:
    first, second, third = held
    assert list(agent) == held
    assert len(agent) == 3
    assert (agent[0], agent[1], agent[-1]) == (first, second, third)
    assert [agent.index(job) for job in held] == [0, 1, 2]
    assert second in agent
    assert numbered(2) not in agent
    with pytest.raises(IndexError):
        agent[3]


def test_an_agent_without_jobs_is_true(agent: Agent) -> None:
    assert len(agent) == 0
    assert agent


@pytest.mark.parametrize(
    "take_out",
    [
        lambda agent, job: agent.remove(job),
        lambda agent, job: agent.pull(1),
        lambda agent, job: agent.pull(-2),
        lambda agent, job: agent.__delitem__(1),
    ],
)
def test_a_job_that_is_taken_out_is_new_again(
    view: View, agent: Agent, held: list[Any], take_out: Callable[..., Any]
) -> None:
    job = held[1]
    assert take_out(agent, job) in (None, job)
    assert (job.status, job.parent, job._token, job._place) == (NEW, None, None, None)
    assert list(agent) == [held[0], held[2]]
    view.queue.put(job)
    assert job.status == PENDING


def test_a_running_job_that_is_taken_out_loses_its_run_and_its_place_in_quotas(
    agent: Agent, held: list[Any]
) -> None:
    job = held[0]
    job.start(77)
    job._quota_hold = 5
    agent.remove(job)
    assert (job.status, job._token, job._quota_hold) == (NEW, None, None)


@pytest.mark.parametrize("status", [CALLBACKS, COMPLETED])
def test_a_job_whose_callable_has_ended_is_not_made_new(
    agent: Agent, held: list[Any], status: str
) -> None:
    held[0]._status = status
    with pytest.raises(BadStatusError, match=status):
        agent.remove(held[0])
    assert list(agent) == held
    assert held[0].parent is agent


@pytest.mark.parametrize("method", ["remove", "index", "let_go"])
def test_what_is_not_held_is_a_lookup_error(agent: Agent, held: list[Any], method: str) -> None:
    stranger = numbered(9)
    with pytest.raises(LookupError) as caught:
        getattr(agent, method)(stranger)
    assert caught.value.args == ("item not in agent", stranger)
    with pytest.raises(IndexError):
        agent.pull(3)


def test_jobs_that_wait_for_others_do_not_count_against_the_size(
    view: View, agent: Agent, held: list[Any]
) -> None:
    view.put(4, 5)
    agent.await_others(held[1]._place)
    assert agent.running == 2
    assert len(agent) == 3
    assert agent.awaiting() == [held[1]]
    assert list(agent) == [held[0], held[2], held[1]]
    assert numbers([agent.claimJob()]) == [4]
    assert agent.claimJob() is None
    agent.let_go(held[1])
    assert agent.awaiting() == []


def test_a_job_without_an_agent_can_be_adopted(view: View, agent: Agent) -> None:
    job = numbered(1)
    agent.adopt(job)
    assert job.parent is agent
    assert agent.awaiting() == list(agent) == [job]
    assert agent.running == 0


def test_a_job_that_was_let_go_can_be_adopted_again(agent: Agent, held: list[Any]) -> None:
    agent.let_go(held[0])
    agent.adopt(held[0])
    assert list(agent) == [held[1], held[2], held[0]]


def test_places_lead_to_held_jobs_without_loading_them(
    view: View, agent: Agent, held: list[Any]
) -> None:
    view.connection.cacheMinimize()
    pairs = agent.held()
    assert [job for _place, job in pairs] == held
    assert all(job._p_changed is None for job in held)
    assert agent.take(pairs[0][0]) is held[0]
    assert held[0]._p_changed is None
    assert list(agent) == held[1:]


# The mailbox


def test_what_others_left_for_a_running_job_is_given_to_it_when_it_is_let_go(
    view: View, agent: Agent, held: list[Any], open_view: Any
) -> None:
    other = open_view()
    for job in held:
        other.see(job).addCallback(operator.neg)
    other.commit()
    view.begin()
    assert all(job._extras is None for job in held)
    assert all(len(job.callbacks) == 1 for job in held)
    agent.let_go(held[0])
    agent.take(held[1]._place)
    held[2]._status = COMPLETED
    agent.jobCompleted(held[2])
    assert [len(job._extras.callbacks) for job in held] == [1, 1, 1]
    assert len(agent.mailbox) == 1  # the sentinel


def test_a_callback_that_came_too_late_for_the_run_is_seen_to(
    view: View, agent: Agent, held: list[Any], open_view: Any
) -> None:
    other = open_view()
    for job in held:
        other.see(job).addCallback(operator.neg)
    other.commit()
    view.begin()
    for job in held[:2]:
        job._status = COMPLETED
    agent.jobCompleted(held[0])
    agent.tidy(held[1]._place, failed=False)
    assert [job.callable for job in view.queue] == [
        held[1].continue_callbacks,
        held[0].continue_callbacks,
    ]


# Completed jobs


def test_a_completed_job_moves_to_the_completed_ones(agent: Agent, held: list[Any]) -> None:
    held[1]._status = COMPLETED
    agent.jobCompleted(held[1])
    assert list(agent) == [held[0], held[2]]
    assert list(agent.completed) == [held[1]]
    assert held[1].parent is agent


@pytest.mark.parametrize("status", [ASSIGNED, ACTIVE, CALLBACKS])
def test_a_job_that_has_not_completed_stays(agent: Agent, held: list[Any], status: str) -> None:
    held[0]._status = status
    with pytest.raises(BadStatusError, match=status):
        agent.jobCompleted(held[0])
    assert list(agent) == held
    assert not agent.completed


def test_a_job_that_is_not_held_does_not_complete(agent: Agent) -> None:
    stranger = numbered(1)
    stranger._status = COMPLETED
    with pytest.raises(LookupError, match="item not in agent"):
        agent.jobCompleted(stranger)


def test_a_job_is_tidied_away_without_being_loaded(
    view: View, agent: Agent, held: list[Any]
) -> None:
    places = [job._place for job in held]
    view.connection.cacheMinimize()
    agent.tidy(places[0], failed=False)
    agent.tidy(places[1], failed=True)
    assert held[0]._p_changed is held[1]._p_changed is None
    assert list(agent.completed) == [held[1], held[0]]
    assert (agent.completed.succeeded, agent.completed.failed) == (1, 1)


def test_a_job_that_is_called_by_hand_moves_by_itself(agent: Agent, held: list[Any]) -> None:
    assert held[0]() == 2
    assert list(agent) == held[1:]
    assert list(agent.completed) == [held[0]]


def test_a_failure_is_counted_as_one(agent: Agent, held: list[Any]) -> None:
    held[0]._result, held[0]._status = Failure(ValueError("no")), COMPLETED
    agent.jobCompleted(held[0])
    assert (agent.completed.succeeded, agent.completed.failed) == (0, 1)


@pytest.fixture
def history(agent: Agent, standing_clock: StandingClock) -> list[Any]:
    """Jobs that ended one day after the other, the last just now; newest first."""
    jobs = []
    for number in range(5):
        standing_clock.move(days=1)
        jobs.append(numbered(number))
        agent.completed.add(jobs[-1], failed=False)
    return jobs[::-1]


def test_completed_jobs_are_newest_first(agent: Agent, history: list[Any]) -> None:
    assert list(agent.completed) == list(agent.completed.iter()) == history
    assert agent.completed.first() is history[0]
    assert agent.completed.last() is history[-1]
    assert len(agent.completed) == 5
    assert agent.completed


def test_completed_jobs_are_chosen_by_the_time_of_their_end(
    agent: Agent, history: list[Any], standing_clock: StandingClock
) -> None:
    completed = agent.completed
    now = standing_clock.now()
    a_day = timedelta(days=1)
    assert list(completed.iter(start=now)) == history
    assert list(completed.iter(start=now - a_day)) == history[1:]
    assert list(completed.iter(stop=now - a_day)) == history[:2]
    assert list(completed.iter(now - a_day, now - 3 * a_day)) == history[1:4]
    assert list(completed.iter(a_day, 3 * a_day)) == history[1:4]
    assert list(completed.iter(a_day, now)) == []
    assert completed.first(now - 2 * a_day) is history[2]
    assert completed.first(a_day / 2) is history[1]
    assert completed.last(now - 2 * a_day) is history[2]
    assert completed.last(1.5 * a_day) is history[1]


def test_no_job_at_that_time_is_a_value_error(
    agent: Agent, history: list[Any], standing_clock: StandingClock
) -> None:
    now = standing_clock.now()
    with pytest.raises(ValueError, match="no job has ended at or before"):
        agent.completed.first(now - timedelta(days=30))
    with pytest.raises(ValueError, match="no job has ended at or after"):
        agent.completed.last(now + timedelta(seconds=1))


def test_an_empty_history_has_no_first_and_no_last() -> None:
    completed = Agent().completed
    assert not completed
    assert len(completed) == 0
    assert list(completed) == []
    with pytest.raises(ValueError, match="no job"):
        completed.first()
    with pytest.raises(ValueError, match="no job"):
        completed.last()


def test_naive_times_are_refused(agent: Agent) -> None:
    naive = datetime(2026, 3, 1)
    for ask in (
        lambda: list(agent.completed.iter(naive)),
        lambda: list(agent.completed.iter(stop=naive)),
        lambda: agent.completed.first(naive),
        lambda: agent.completed.last(naive),
    ):
        with pytest.raises(ValueError, match="timezone-aware"):
            ask()


def test_jobs_that_ended_in_one_instant_are_all_there_and_in_order(
    agent: Agent, standing_clock: StandingClock
) -> None:
    jobs = [numbered(number) for number in range(100)]
    for job in jobs:
        agent.completed.add(job, failed=False)
    now = standing_clock.now()
    assert list(agent.completed.iter(now, now)) == jobs[::-1]
    assert agent.completed.first(now) is jobs[-1]
    assert agent.completed.last(now) is jobs[0]
    assert list(agent.completed.iter(now - timedelta(microseconds=1))) == []
    assert len(agent.completed) == 100


def test_completed_jobs_drop_out_after_about_a_week(
    agent: Agent, standing_clock: StandingClock
) -> None:
    old, young = numbered(1), numbered(2)
    agent.completed.add(old, failed=True)
    standing_clock.move(days=7)
    agent.completed.add(young, failed=False)
    assert list(agent.completed) == [young, old]
    standing_clock.move(days=1)
    newest = numbered(3)
    agent.completed.add(newest, failed=False)
    assert list(agent.completed) == [newest, young]
    assert (agent.completed.succeeded, agent.completed.failed) == (2, 0)


# The handler


def test_an_activated_dispatcher_without_a_main_agent_gets_one(view: View, heard: Any) -> None:
    added = heard(IObjectAdded)
    registry = zope.component.getGlobalSiteManager()
    registry.registerHandler(addMainAgentActivationHandler)
    try:
        record = view.queue.dispatchers.register(FIRST)
        record.activate()
    finally:
        registry.unregisterHandler(addMainAgentActivationHandler)
    main = record["main"]
    assert (main.name, main.size, main.filter, main.chooser) == ("main", 3, None, None)
    assert [event.object for event in added] == [main]


def test_a_main_agent_that_is_there_stays(record: Any, agent: Agent) -> None:
    addMainAgentActivationHandler(DispatcherActivated(record))
    assert record["main"] is agent


def test_only_records_of_dispatchers_get_an_agent() -> None:
    something: dict[str, Any] = {}
    addMainAgentActivationHandler(DispatcherActivated(something))
    assert something == {}


# Groups, and jobs claimed ahead


@pytest.mark.parametrize("batch", [0, -1, True, 1.5, "many"])
def test_a_batch_is_a_positive_number(batch: Any) -> None:
    with pytest.raises(ValueError, match="batch of an agent"):
        Agent(batch=batch)


def test_a_batch_time_is_a_positive_span() -> None:
    assert Agent().batch_time == timedelta(milliseconds=50)
    assert Agent(batch=3, batch_time=timedelta(seconds=1)).batch_time == timedelta(seconds=1)
    with pytest.raises(TypeError, match="timedelta"):
        Agent(batch_time=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="more than nothing"):
        Agent(batch_time=timedelta())


def test_jobs_are_claimed_beyond_the_size_only_when_asked_for(view: View, agent: Agent) -> None:
    view.put(*range(20))
    assert len(list(agent.claim_jobs(99))) == agent.size
    assert len(list(agent.claim_jobs(99, ahead=4))) == 4
    assert list(agent.claim_jobs(99, ahead=4)) == []


def test_of_what_is_claimed_ahead_only_the_first_few_may_have_begun(
    view: View, agent: Agent
) -> None:
    view.put(*range(20))
    held = list(agent.claim_jobs(99, ahead=9 - agent.size))
    for job in held:
        job.start(7)
    assert all(map(agent.may_have_begun(), held))  # nobody has said how many
    assert not agent.is_too_narrow(99)
    assert agent.widen(2)
    assert not agent.widen(2)
    assert agent.is_too_narrow(3)
    held[0]._suspension = 5  # waits for a Deferred
    held[1]._again = 0  # is to run again
    held[8]._suspension = 6
    begun = agent.may_have_begun()
    assert [begun(job) for job in held] == [True] * 4 + [False] * 4 + [True]
    agent.await_others(held[7]._place)
    assert agent.may_have_begun()(held[7])
    first = held[2]
    agent.hold_anew(first._place)
    assert agent.held()[-1] == (first._place, first)
    assert not agent.may_have_begun()(first)
    agent.widen(99)
    assert agent.may_have_begun()(first)
