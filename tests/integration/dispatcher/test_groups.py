# SPDX-License-Identifier: ZPL-2.1
"""Short jobs that are committed together, and all that breaks such a group up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import transaction
import ZODB
import zope.component
from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import ConflictError

from tests.integration.dispatcher import jobs_for_tests as jobs
from tests.support.running import Site, running, until
from tests.support.single import TWO, Single, single
from zasync import local
from zasync.agent import Agent
from zasync.interfaces import ACTIVE, COMPLETED, NEW, PENDING, IJob, IRetryPolicy
from zasync.job import Job, NeverRetry, RetryCommonForever, RetryCommonFourTimes
from zasync.job.run import commits_by_itself
from zasync.testing.fail_points import armed
from zasync.testing.faults import FaultyStorage, Killed

AFTER = "after finish"


@pytest.fixture
def storage() -> FaultyStorage:
    return FaultyStorage()


@pytest.fixture
def db(storage: FaultyStorage) -> Iterator[Any]:
    database = ZODB.DB(storage)
    yield database
    storage.revive()
    database.close()


@pytest.fixture
def one(site: Site, monkeypatch: Any) -> Iterator[Single]:
    with single(site, monkeypatch, size=2, batch=10, batch_time=timedelta(seconds=10)) as made:
        made.learn(*(("global", __name__, name) for name in FUNCTIONS))
        made.learn(("global", jobs.__name__, "count_up"), ("global", jobs.__name__, "note"))
        yield made


def fail() -> None:
    count_call()
    raise KeyError("the job's own")


def commit_itself() -> str:
    count_call()
    transaction.commit()
    return "committed"


@commits_by_itself
def known_to_commit() -> None:
    count_call()
    transaction.commit()


def abort_itself() -> str:
    count_call()
    transaction.abort()
    return "aborted"


def answer_a_job() -> Any:
    return Job(jobs.note, "inner")


def answer_a_coroutine() -> Any:
    return jobs.double(4)


def exit_process() -> None:
    raise SystemExit(4)


def add_callback() -> None:
    local.getJob().addCallback(jobs.note)


def answer_what_cannot_be_stored() -> Any:
    return threading.Lock()


def surroundings() -> Any:
    return local.getJob()._p_oid, local.getAgentName()


FUNCTIONS = (
    "fail",
    "commit_itself",
    "known_to_commit",
    "abort_itself",
    "answer_a_job",
    "answer_a_coroutine",
    "exit_process",
    "add_callback",
    "answer_what_cannot_be_stored",
    "surroundings",
)


def count_call() -> None:
    """Change the database in the job's transaction."""
    jobs.seen.append("called")
    root = local.getJob()._p_jar.root()
    root["calls"] = root.get("calls", 0) + 1


def put(site: Site, *items: Any, **options: Any) -> list[Any]:
    made: list[Any] = site.commit(lambda: site.queue.put_many(items, **options))
    return made


def counting(number: int) -> list[Job]:
    return [Job(jobs.count_up) for _ in range(number)]


def completed(site: Site, made: list[Any]) -> bool:
    site.manager.begin()
    return all(job.status == COMPLETED for job in made)


def test_short_jobs_are_committed_together(site: Site, one: Single, storage: FaultyStorage) -> None:
    made = put(site, *counting(8))
    one.poll(ahead=8)
    before = storage.commits
    assert one.work() == 1
    assert storage.commits == before + 1
    assert completed(site, made)
    assert [job.result for job in made] == list(range(1, 9))
    one.poll()
    site.manager.begin()
    assert len(one.agent.completed) == 8


def test_a_group_has_at_most_as_many_members_as_the_agent_says(site: Site, one: Single) -> None:
    made = put(site, *counting(25))
    one.poll(ahead=30)
    assert one.work() == 3
    assert completed(site, made)


def test_each_member_finds_its_own_surroundings(site: Site, one: Single) -> None:
    made = put(site, *(Job(surroundings) for _ in range(3)))
    one.poll(ahead=3)
    assert one.work() == 1
    assert completed(site, made)
    assert [job.result for job in made] == [(job._p_oid, "main") for job in made]


@pytest.mark.parametrize(
    "breaker",
    [fail, commit_itself, abort_itself, exit_process, answer_what_cannot_be_stored],
)
def test_when_one_breaks_the_group_up_each_runs_alone_and_has_its_effect_once(
    site: Site, one: Single, breaker: Any, storage: FaultyStorage
) -> None:
    made = put(site, *counting(2), breaker, *counting(2))
    one.poll(ahead=5)
    assert one.work() == 2  # the members up to the breaker, then the others together
    assert completed(site, made)
    assert sorted(job.result for job in made if job.callable == jobs.count_up) == [1, 2, 3, 4]
    calls = site.root.get("calls", 0)
    assert calls == (1 if breaker is commit_itself else 0)


def test_what_broke_a_group_up_runs_alone_for_a_while(site: Site, one: Single) -> None:
    made = put(site, *counting(2), fail)
    one.poll(ahead=3)
    one.work()
    assert jobs.seen == ["called"] * 2
    put(site, *counting(1), fail, *counting(1))
    one.poll(ahead=3)
    assert one.work() == 3  # the first, the breaker, the last
    assert jobs.seen == ["called"] * 3
    assert completed(site, made)


def test_a_conflict_in_the_commit_has_each_run_alone(
    site: Site, one: Single, storage: FaultyStorage
) -> None:
    made = put(site, *counting(4))
    one.poll(ahead=4)
    storage.fail("vote", ConflictError())
    one.work()
    assert completed(site, made)
    assert sorted(job.result for job in made) == [1, 2, 3, 4]
    assert one.pool.grouping.most(10) < 10


@pytest.mark.parametrize("error", [ClientDisconnected(), OSError(), KeyError("odd")])
def test_a_commit_in_doubt_that_took_effect_is_believed_for_each(
    site: Site, one: Single, storage: FaultyStorage, error: Exception
) -> None:
    made = put(site, *counting(4))
    one.poll(ahead=4)
    storage.fail(AFTER, error)
    assert one.work() == 1
    assert completed(site, made)
    assert [job.result for job in made] == [1, 2, 3, 4]


def test_a_commit_in_doubt_that_took_no_effect_is_done_again_by_each(
    site: Site, one: Single, storage: FaultyStorage
) -> None:
    made = put(site, *counting(4))
    one.poll(ahead=4)
    storage.fail("before finish", ClientDisconnected())
    one.work()
    assert completed(site, made)
    assert sorted(job.result for job in made) == [1, 2, 3, 4]


def test_a_member_that_was_taken_away_commits_nothing_and_the_others_do(
    site: Site, one: Single
) -> None:
    made = put(site, *counting(4))
    one.poll(ahead=4)

    def take_away() -> None:
        site.commit(lambda: one.agent.remove(made[2]))

    with armed("group.committing", take_away):
        one.work()
    site.manager.begin()
    assert [job.status == COMPLETED for job in made] == [True, True, False, True]
    assert site.root["count"] == 3


def test_a_member_that_was_taken_away_before_the_group_began_commits_nothing(
    site: Site, one: Single
) -> None:
    made = put(site, *counting(4))
    one.poll(ahead=4)
    site.commit(lambda: one.agent.remove(made[1]))
    one.work()
    site.manager.begin()
    assert [job.status == COMPLETED for job in made] == [True, False, True, True]
    assert made[1].status == NEW
    assert site.root["count"] == 3


def test_a_member_sees_what_was_committed_with_its_put(site: Site, one: Single) -> None:
    """So a job that is put, and claimed, after the group began is not one of it."""
    first = put(site, *counting(2))
    one.poll(ahead=2)
    later: list[Any] = []

    def put_and_claim() -> None:
        def put_with_data() -> Any:
            site.root["data"] = "there"
            return site.queue.put(Job(jobs.read_data))

        if not later:
            later.append(site.commit(put_with_data))
            one.poll(ahead=2)

    one.learn(("global", jobs.__name__, "read_data"))
    with armed("group.called", put_and_claim):
        assert one.work() == 2
    assert completed(site, [*first, *later])
    assert later[0].result == "there"


def test_members_are_not_read_again_by_the_thread_that_runs_them(site: Site, one: Single) -> None:
    made = put(site, *(Job(jobs.note, number) for number in range(8)))
    one.poll(ahead=8)
    one.connection.getTransferCounts(True)
    assert one.work() == 1
    assert one.connection.getTransferCounts()[0] < 8
    assert completed(site, made)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("callable", "code"),
    [(jobs.fork_and_return, 0), (jobs.fork_and_exit, 7)],
)
def test_a_forked_child_of_a_member_ends_where_it_leaves_the_members_code(
    site: Site, one: Single, callable: Any, code: int
) -> None:
    one.learn(("global", jobs.__name__, callable.__name__))
    made = put(site, *counting(1), callable, *counting(1))
    one.poll(ahead=3)
    assert one.work() == 1
    assert completed(site, made)
    assert [job.result for job in made] == [1, code, 2]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_of_a_member_cannot_commit_for_the_group(site: Site, one: Single) -> None:
    one.learn(("global", jobs.__name__, "fork_and_commit"))
    made = put(site, *counting(1), jobs.fork_and_commit, *counting(1))
    one.poll(ahead=3)
    one.work()
    assert completed(site, made)
    assert made[1].result == 1
    assert site.root["count"] == 3


def test_what_is_known_to_commit_by_itself_breaks_the_group_up_before_it_is_called(
    site: Site, one: Single
) -> None:
    made = put(site, *counting(1), known_to_commit, *counting(1))
    one.poll(ahead=3)
    one.work()
    assert completed(site, made)
    assert site.root["count"] == 2
    assert jobs.seen == ["called"]


def test_answers_that_have_to_be_waited_for_are_waited_for(site: Site, one: Single) -> None:
    made = put(site, *counting(1), answer_a_job, *counting(1))
    one.poll(ahead=4)
    one.work()
    one.poll()
    one.work()
    assert completed(site, made)
    assert made[1].result == "inner"


def test_a_coroutine_is_left_and_made_anew(site: Site, one: Single) -> None:
    made = put(site, *counting(1), answer_a_coroutine, Job(jobs.double, 3))
    one.poll(ahead=4)
    one.work()
    until(lambda: (one.work(), completed(site, made))[1], "the coroutines")
    assert [job.result for job in made] == [1, 8, 6]


def test_a_callback_that_is_added_meanwhile_is_called(site: Site, one: Single) -> None:
    made = put(site, *counting(1), add_callback, *counting(1))
    one.poll(ahead=4)
    assert one.work() == 1
    assert completed(site, made)
    assert len(jobs.seen) == 1


def test_a_job_that_comes_too_late_is_not_called(site: Site, one: Single) -> None:
    made = put(site, *counting(1)) + put(site, Job(jobs.note, 1), begin_by=timedelta(hours=1))
    one.poll(ahead=2)
    for tracked in one.pool._stock:
        tracked.deadline = None if tracked.deadline is None else 1
    one.work()
    one.poll()
    one.work()
    assert completed(site, made)
    assert jobs.seen == []


class Hooked(Job):
    def setUp(self) -> None:
        """There is something around the attempt."""


class Careful(RetryCommonFourTimes):
    interruption_limit = 0


class Odd(RetryCommonFourTimes):
    def interrupted(self) -> bool:
        return False


def with_policy(policy: Any) -> Callable[[], Job]:
    def make() -> Job:
        job = Job(jobs.note, 1)
        job.retry_policy_factory = policy
        return job

    return make


def with_limit() -> Job:
    job = Job(jobs.note, 1)
    job.crash_limit = 1
    return job


def with_callback() -> Job:
    job = Job(jobs.note, 1)
    job.addCallback(jobs.note)
    return job


@pytest.mark.parametrize(
    ("make", "joins"),
    [
        (with_policy(None), True),
        (with_policy(RetryCommonForever), True),
        (with_policy(NeverRetry), False),
        (with_policy(Careful), False),
        (with_policy(Odd), False),
        (with_policy("nothing is registered under this"), False),
        (with_limit, False),
        (with_callback, False),
        (lambda: Hooked(jobs.note, 1), False),
    ],
)
def test_who_may_join_a_group(
    site: Site, one: Single, make: Callable[[], Job], joins: bool
) -> None:
    put(site, make())
    one.poll(ahead=1)
    (tracked,) = one.pool.tracked.values()
    assert (tracked.code is not None) is joins
    one.work()


def test_a_registered_policy_is_asked(site: Site, one: Single) -> None:
    zope.component.provideAdapter(NeverRetry, [IJob], IRetryPolicy)
    try:
        put(site, Job(jobs.note, 1))
        one.poll(ahead=1)
    finally:
        zope.component.getGlobalSiteManager().unregisterAdapter(NeverRetry, [IJob], IRetryPolicy)
    (tracked,) = one.pool.tracked.values()
    assert tracked.code is None
    one.work()


def test_very_short_jobs_and_polls_take_turns(site: Site, one: Single) -> None:
    turns: list[bool] = []

    def look() -> None:
        with one.dispatcher.turns.turn() as mine:
            turns.append(mine)

    put(site, *counting(2))
    with armed("poll.committing", look):
        one.poll(ahead=2)
    with armed("group.called", look):
        one.work()
    assert turns == [False] * 3


def test_who_may_have_to_wait_for_something_takes_no_turn(site: Site, one: Single) -> None:
    turns: list[bool] = []

    def look() -> None:
        with one.dispatcher.turns.turn() as mine:
            turns.append(mine)

    put(site, *counting(2))
    one.poll(ahead=2)
    for _ in range(2):
        one.pool.grouping.took(("global", jobs.__name__, "count_up"), 0.001)
    with armed("group.called", look):
        one.work()
    assert turns == [True] * 2


def test_jobs_of_unknown_or_long_duration_run_alone(site: Site, one: Single) -> None:
    put(site, *(Job(jobs.surroundings) for _ in range(3)))
    one.poll(ahead=3)
    one.pool.batch_time = 0.05
    one.do(one.begin())
    one.pool.grouping.took(("global", jobs.__name__, "surroundings"), 1.0)
    assert one.work() == 2


def test_what_takes_longer_than_a_group_may_last_runs_alone(site: Site, one: Single) -> None:
    put(site, *counting(4))
    one.poll(ahead=6)
    one.learn(("global", jobs.__name__, "count_up"), seconds=100.0)
    assert one.work() == 4


@pytest.mark.parametrize("point", ["group.called", "group.committing", "group.settled"])
def test_a_death_in_a_group_costs_no_effect_and_blames_nobody(
    site: Site, storage: FaultyStorage, monkeypatch: Any, point: str
) -> None:
    with single(site, monkeypatch, size=1, batch=10) as one:
        one.learn(("global", jobs.__name__, "count_up"))
        made = put(site, *counting(5))
        one.poll(ahead=5)

        def die() -> None:
            storage.kill()
            raise Killed

        with armed(point, die):
            one.do(one.begin())
        storage.revive()
        one.dispatcher.activated = None
        site.commit(lambda: site.queue.dispatchers[one.dispatcher.UUID].deactivate(crashed=True))
        with single(site, monkeypatch, TWO, size=9, batch=10) as two:
            two.learn(("global", jobs.__name__, "count_up"))
            for _ in range(3):
                two.poll()
                two.work()
            assert completed(site, made)
    assert site.root["count"] == 5
    assert [job._crash_count for job in made] == [0] * 5
    assert all(job._alone for job in made) == (point != "group.settled")


def test_a_job_that_kills_is_parked_though_it_began_in_a_group(site: Site) -> None:
    job = put(site, Job(jobs.note, 1))[0]
    for death in range(1, 5):
        site.manager.begin()
        record = site.queue.dispatchers.register(type(TWO)(int=10 + death))
        agent = record["main"] = Agent(size=3, batch=10)
        record.activate()
        found = [each for each in agent.claim_jobs(9) if each is job or each.start(7)]
        assert found == [job] or job.status == ACTIVE
        if job.status != ACTIVE:
            job.start(death)
        record.deactivate(crashed=True)
        site.manager.commit()
        job.handleInterrupt()
        assert (job.status == PENDING) == (death < 4)
    assert job in site.queue.parked


def test_real_threads_share_the_work_of_groups(site: Site) -> None:
    with running(site.db, size=3) as runner:
        site.commit(lambda: setattr(site.queue.dispatchers[runner.uuid]["main"], "batch", 20))
        made = put(site, *(Job(jobs.note, number) for number in range(300)))
        site.completed(*made)
    assert sorted(jobs.seen) == [(number,) for number in range(300)]
    assert [job.result for job in made] == list(range(300))
