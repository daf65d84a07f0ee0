# SPDX-License-Identifier: ZPL-2.1
"""A queue whose jobs are performed by every active dispatcher."""

from __future__ import annotations

import operator
import sys
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.support.clocks import StandingClock
from tests.support.queues import FIRST, SECOND, THIRD, View, install_queue
from zasync.agent import Agent
from zasync.failure import Failure
from zasync.interfaces import ACTIVE, COMPLETED, KEY, AbortedError, IQueue
from zasync.job import Job, NeverRetry, RetryCommonFourTimes, parallel
from zasync.queue import BroadcastQueue, OnlyThere


class Greeting(Job):
    """A job with a setting of its own."""

    greeting = "hello"

    def greet(self) -> str:
        return self.greeting


def words_of(job: Any) -> str:
    return str(job.greeting)


def keys_of(result: Any) -> list[Any]:
    return sorted(result)


def inner_job() -> Job:
    return Job(operator.mul, 3, 4)


@pytest.fixture
def broadcast(view: View) -> View:
    """A view of a database whose queue '' is a BroadcastQueue."""
    view.queues[""] = BroadcastQueue()
    view.commit()
    return view


def perform_one(view: View, uuid: Any) -> Any:
    """Have the dispatcher `uuid` claim one job and run it by hand; answers it, or None."""
    view.commit()
    job = view.queue.dispatchers[uuid]["main"].claimJob()
    view.commit()
    if job is not None:
        job()
    return job


def perform_all(view: View, *uuids: Any) -> None:
    while any([perform_one(view, uuid) for uuid in uuids]):
        pass


def test_every_active_dispatcher_performs_the_job_once(broadcast: View) -> None:
    broadcast.dispatcher(FIRST)
    broadcast.dispatcher(SECOND)
    broadcast.queue.dispatchers.register(THIRD)
    job = Job(operator.mul, 2, 3)
    assert broadcast.queue.put(job) is job
    assert job.status == ACTIVE
    assert len(broadcast.queue) == 2
    perform_all(broadcast, FIRST, SECOND)
    assert job.status == COMPLETED
    assert job.result == {FIRST: 6, SECOND: 6}
    assert not broadcast.queue


def test_a_dispatcher_claims_its_own_copy_only(broadcast: View) -> None:
    broadcast.dispatcher(FIRST, size=9)
    broadcast.dispatcher(SECOND, size=9)
    broadcast.queue.put(Job(operator.mul, 2, 3))
    agent = broadcast.queue.dispatchers[FIRST]["main"]
    assert agent.claimJob() is not None
    assert agent.claimJob() is None
    assert broadcast.queue.claim() is None
    assert len(broadcast.queue) == 1


def claim_any(agent: Any) -> Any:
    return agent.queue.claim()


def test_an_agent_with_a_chooser_claims_its_own_copy(broadcast: View) -> None:
    for uuid in (FIRST, SECOND):
        broadcast.dispatcher(uuid)["main"] = Agent(chooser=claim_any)
    job = broadcast.queue.put(Job(operator.mul, 2, 3))
    perform_all(broadcast, SECOND, FIRST)
    assert job.result == {FIRST: 6, SECOND: 6}
    assert broadcast.queue.claim() is None


def test_without_dispatchers_the_result_is_empty_as_soon_as_one_comes(broadcast: View) -> None:
    job = broadcast.queue.put(Job(operator.mul, 2, 3))
    broadcast.commit()
    assert job.status == ACTIVE
    broadcast.dispatcher(FIRST)
    perform_all(broadcast, FIRST)
    assert job.status == COMPLETED
    assert job.result == {}


def test_options_are_those_of_the_copies(broadcast: View, standing_clock: StandingClock) -> None:
    broadcast.queue.quotas.create("catalog")
    broadcast.dispatcher(FIRST)
    job = Job(operator.mul, 2, 3)
    job.quota_names = ("catalog",)
    broadcast.queue.put(
        job,
        begin_after=standing_clock.now() + timedelta(hours=1),
        begin_by=timedelta(minutes=5),
        failure_log_level=10,
        retry_policy_factory=NeverRetry,
    )
    (copy,) = broadcast.queue
    assert copy.begin_after == standing_clock.now() + timedelta(hours=1)
    assert copy.begin_by == timedelta(minutes=5)
    assert copy.failure_log_level == 10
    assert copy.retry_policy_factory is NeverRetry
    assert copy.quota_names == ("catalog",)


def test_a_copy_is_not_run_elsewhere_by_default(broadcast: View) -> None:
    broadcast.dispatcher(FIRST)
    broadcast.queue.put(Job(operator.mul, 2, 3))
    (copy,) = broadcast.queue
    assert copy.retry_policy_factory is OnlyThere


@pytest.mark.parametrize(
    ("item", "options", "error"),
    [
        (Job(operator.mul), {"begin_after": datetime(2026, 1, 1)}, "timezone-aware"),
        (Job(operator.mul), {"begin_by": timedelta(-1)}, "negative"),
        (lambda: None, {}, "lambda"),
    ],
)
def test_what_other_queues_refuse_is_refused_without_dispatchers_too(
    broadcast: View, item: Any, options: Any, error: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=error):
        broadcast.queue.put(item, **options)
    assert not broadcast.queue


def test_a_job_that_is_not_new_is_refused(broadcast: View) -> None:
    job = broadcast.queue.put(Job(operator.mul, 2, 3))
    with pytest.raises(ValueError, match="only a new job"):
        broadcast.queue.put(job)


def test_callbacks_that_the_job_had_get_the_results_of_all(broadcast: View) -> None:
    broadcast.dispatcher(FIRST)
    broadcast.dispatcher(SECOND)
    job = Job(operator.mul, 2, 3)
    callback = job.addCallback(keys_of)
    broadcast.queue.put(job)
    perform_all(broadcast, FIRST, SECOND)
    assert job.status == callback.status == COMPLETED
    assert callback.result == [FIRST, SECOND]


def test_copies_are_of_the_jobs_own_class(broadcast: View) -> None:
    broadcast.dispatcher(FIRST)
    job = Greeting.bind(words_of)
    job.greeting = "good morning"
    broadcast.queue.put(job)
    (copy,) = broadcast.queue
    assert type(copy) is Greeting
    assert copy.args == [copy]
    perform_all(broadcast, FIRST)
    assert job.result == {FIRST: "good morning"}


def test_copies_have_arguments_of_their_own(broadcast: View) -> None:
    broadcast.dispatcher(FIRST)
    broadcast.dispatcher(SECOND)
    job = broadcast.queue.put(Job(operator.concat, "x" * 5000, "y"))
    one, other = broadcast.queue
    one.args[1] = "z"
    one.kwargs.clear()
    perform_all(broadcast, FIRST, SECOND)
    assert sorted(result[-1] for result in job.result.values()) == ["y", "z"]
    assert other.args[1] == job.args[1] == "y"


def test_members_of_a_group_are_broadcast_each(broadcast: View) -> None:
    broadcast.dispatcher(FIRST)
    broadcast.dispatcher(SECOND)
    group = parallel(Job(operator.mul, 1, 2), Job(operator.mul, 3, 4))
    broadcast.queue.put(group)
    perform_all(broadcast, FIRST, SECOND)
    assert group.result == ({FIRST: 2, SECOND: 2}, {FIRST: 12, SECOND: 12})


def test_a_job_that_a_copy_answers_is_performed(broadcast: View) -> None:
    broadcast.dispatcher(FIRST)
    job = broadcast.queue.put(Job(inner_job))
    perform_all(broadcast, FIRST)
    assert job.status == COMPLETED
    assert job.result == {FIRST: {FIRST: 12}}


# Dispatchers that go


def aborted(result: Any) -> bool:
    return isinstance(result, Failure) and bool(result.check(AbortedError))


@pytest.mark.parametrize("policy", [None, RetryCommonFourTimes])
@pytest.mark.parametrize("how_far", ["waiting", "assigned", "active"])
def test_a_dispatcher_that_dies_gives_a_failure_for_its_copy(
    broadcast: View, policy: Any, how_far: str
) -> None:
    broadcast.dispatcher(FIRST)
    dying = broadcast.dispatcher(SECOND)
    job = broadcast.queue.put(Job(operator.mul, 2, 3), retry_policy_factory=policy)
    if how_far != "waiting":
        copy = dying["main"].claimJob()
        if how_far == "active":
            copy.start(77)
    broadcast.commit()
    dying.deactivate()
    perform_all(broadcast, FIRST)
    assert job.status == COMPLETED
    assert job.result[FIRST] == 6
    assert aborted(job.result[SECOND])


def test_a_copy_that_is_to_run_later_fails_when_its_dispatcher_has_gone_meanwhile(
    broadcast: View, standing_clock: StandingClock
) -> None:
    broadcast.dispatcher(FIRST)
    dying = broadcast.dispatcher(SECOND)
    job = broadcast.queue.put(Job(operator.mul, 2, 3))
    copy = dying["main"].claimJob()
    copy.start(77)
    copy._again = int(standing_clock.now().timestamp() + 60) * 1_000_000
    broadcast.commit()
    dying.deactivate()
    broadcast.queue.dispatchers.unregister(SECOND)
    perform_all(broadcast, FIRST)
    assert aborted(job.result[SECOND])


def test_a_copy_put_back_for_a_dispatcher_that_was_unregistered_fails(broadcast: View) -> None:
    broadcast.dispatcher(FIRST)
    dying = broadcast.dispatcher(SECOND)
    job = broadcast.queue.put(Job(operator.mul, 2, 3))
    copy = dying["main"].claimJob()
    dying["main"].let_go(copy)
    dying.deactivate()
    broadcast.queue.dispatchers.unregister(SECOND)
    broadcast.queue.putBack(copy)
    perform_all(broadcast, FIRST)
    assert aborted(job.result[SECOND])


def test_the_copies_of_the_others_stay_when_a_dispatcher_goes(broadcast: View) -> None:
    broadcast.dispatcher(FIRST)
    dying = broadcast.dispatcher(SECOND)
    broadcast.queue.put(Job(operator.mul, 2, 3))
    mine = next(job for job in broadcast.queue if job._only_for == FIRST.int)
    dying.deactivate()
    assert mine in list(broadcast.queue)
    assert broadcast.queue.dispatchers[FIRST]["main"].claimJob() is not None


def test_an_unreadable_job_does_not_keep_a_dispatcher_from_going(
    broadcast: View, open_view: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broadcast.dispatcher(FIRST)
    broadcast.queue.put(Greeting(keys_of, {}))
    broadcast.commit()
    monkeypatch.delattr(sys.modules[__name__], "Greeting")
    other = open_view()
    other.queue.dispatchers[FIRST].deactivate()
    other.commit()
    assert len(other.queue) == 1


def test_a_broadcast_queue_is_a_queue_like_others(db: Any) -> None:
    install_queue(db, BroadcastQueue())
    with db.transaction() as connection:
        assert IQueue.providedBy(connection.root()[KEY][""])


def test_to_cancel_a_broadcast_cancels_the_copies_that_have_not_ended(broadcast: View) -> None:
    broadcast.dispatcher(FIRST)
    broadcast.dispatcher(SECOND)
    job = broadcast.queue.put(Job(operator.mul, 2, 3))
    perform_one(broadcast, FIRST)
    copies = job.result.args
    assert job.cancel("enough")
    broadcast.commit()
    perform_all(broadcast, FIRST, SECOND)

    assert (job.status, job.cancelled) == (COMPLETED, True)
    assert sorted(str(copy.result) for copy in copies)[0] == "6"
    assert [copy.cancelled for copy in copies].count(True) == 1
    assert len(broadcast.queue) == 0


def test_a_broadcast_that_is_asked_for_again_is_performed_by_all_again(broadcast: View) -> None:
    broadcast.dispatcher(FIRST)
    broadcast.dispatcher(SECOND)
    job = broadcast.queue.put(Job(operator.mul, 2, 3))
    perform_all(broadcast, FIRST, SECOND)
    again = broadcast.queue.put(job.again())
    perform_all(broadcast, FIRST, SECOND)
    assert again.result == {FIRST: 6, SECOND: 6} == job.result
