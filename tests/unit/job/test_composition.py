# SPDX-License-Identifier: ZPL-2.1
"""serial and parallel: order, results, failures, jobs added meanwhile, groups in groups."""

from __future__ import annotations

import functools
import operator
import threading
from typing import Any

import pytest
import zope.component

from tests.support.bench import Bench
from zasync.interfaces import (
    ACTIVE,
    COMPLETED,
    PENDING,
    BadStatusError,
    NotStorableError,
)
from zasync.job import Job, parallel, serial
from zasync.queue import getDefaultQueue

from . import things
from .test_callbacks import called, names
from .test_calling import Script
from .things import Counter, multiply

BOTH = pytest.mark.parametrize("make", [serial, parallel])


def work(bench: Bench) -> None:
    while bench.work():
        pass


def put(bench: Bench, group: Any) -> Any:
    bench.queue.put(group)
    assert bench.agent is not None
    bench.commit()
    return group


def add_up(*jobs: Any) -> Any:
    return sum(job.result for job in jobs)


@BOTH
def test_the_result_is_the_tuple_of_results(bench: Bench, make: Any) -> None:
    group = put(bench, make(Job(multiply, 1), Job(multiply, 2), Job(multiply, 3)))

    work(bench)

    assert (group.status, group.result) == (COMPLETED, (2, 4, 6))
    assert [job.status for job in group.args] == [COMPLETED] * 3
    assert group in bench.agent.completed
    assert list(bench.agent) == []


@BOTH
def test_postprocess_gets_the_jobs(bench: Bench, make: Any) -> None:
    group = put(bench, make(Job(multiply, 1), Job(multiply, 2), postprocess=add_up))

    work(bench)

    assert group.result == 6


@BOTH
def test_postprocess_may_be_a_partial_or_a_method(bench: Bench, make: Any) -> None:
    counter = bench.keep(Counter(3))
    one = put(bench, make(Job(multiply, 1), postprocess=functools.partial(keyed_sum, extra=10)))
    two = put(bench, make(postprocess=counter.add))

    work(bench)

    assert (one.result, two.result) == (12, 4)


def keyed_sum(*jobs: Any, extra: int) -> Any:
    return add_up(*jobs) + extra


@BOTH
def test_members_may_be_callables_and_partials(bench: Bench, make: Any) -> None:
    group = put(bench, make(functools.partial(multiply, 4), functools.partial(operator.mul, 3, 5)))

    work(bench)

    assert group.result == (8, 15)


@BOTH
def test_an_empty_group_has_an_empty_result(bench: Bench, make: Any) -> None:
    group = put(bench, make())

    work(bench)

    assert (group.status, group.result) == (COMPLETED, ())


@BOTH
def test_failures_inside_can_be_looked_at(bench: Bench, make: Any) -> None:
    group = put(bench, make(Job(multiply, 1), Job(things.boom), Job(multiply, 2)))

    work(bench)

    first, second, third = group.result
    assert (first, third) == (2, 4)
    assert second.check(ValueError)


@BOTH
def test_a_failing_postprocess_fails_the_group(bench: Bench, make: Any) -> None:
    group = put(bench, make(Job(things.boom), postprocess=add_up))

    work(bench)

    assert group.result.check(TypeError)


@BOTH
def test_a_group_may_lie_in_a_group(bench: Bench, make: Any) -> None:
    group = put(
        bench,
        make(Job(multiply, 1), serial(Job(multiply, 2)), parallel(Job(multiply, 3), serial())),
    )

    work(bench)

    assert group.result == (2, (4,), (6, ()))


@BOTH
def test_callbacks_of_group_and_members_are_called(bench: Bench, make: Any) -> None:
    group = make(Job(multiply, 1))
    group.args[0].addCallback(called("of the member"))
    group.addCallback(called("of the group"))
    put(bench, group)

    work(bench)

    assert names() == ["of the member", "of the group"]


def test_serial_goes_one_by_one(bench: Bench) -> None:
    group = put(bench, serial(called("1"), called("2"), called("3")))

    bench.begin()
    bench.agent.claimJob()()
    assert (group.status, len(bench.queue)) == (ACTIVE, 1)
    bench.agent.claimJob()()
    assert (names(), len(bench.queue)) == (["1"], 1)
    work(bench)

    assert names() == ["1", "2", "3"]


def test_parallel_starts_all_at_once(bench: Bench) -> None:
    group = put(bench, parallel(called("1"), called("2"), called("3")))

    bench.begin()
    bench.agent.claimJob()()

    assert (group.status, len(bench.queue)) == (ACTIVE, 3)
    assert [job.status for job in group.args] == [PENDING] * 3


@BOTH
def test_jobs_added_while_it_runs_belong_to_it(bench: Bench, make: Any) -> None:
    group = make(called("1"), called("2"))
    things.script["1"] = lambda: group.args.append(called("3"))
    put(bench, group)

    work(bench)

    assert sorted(names()) == ["1", "2", "3"]
    assert len(group.result) == 3


@BOTH
def test_a_job_added_by_another_connection_belongs_to_it(bench: Bench, make: Any) -> None:
    def add() -> None:
        with bench.elsewhere() as there:
            there(group).args.append(functools.partial(multiply, 13))

    things.script["1"] = Script(add, "done")
    group = put(bench, make(Job(things.act, "1")))

    work(bench)

    assert group.result[1] == 26


@BOTH
def test_a_job_added_after_all_have_ended_is_waited_for(bench: Bench, make: Any) -> None:
    group = put(bench, make(called("1")))
    while group._conclusion is None or group._conclusion.status != PENDING:
        bench.begin()
        bench.agent.claimJob()()

    group.args.append(called("2"))
    bench.commit()
    work(bench)

    assert group.result == ("1", "2")


@pytest.mark.parametrize("size", [1, 40], ids=["in the record", "in a payload"])
def test_a_job_added_while_it_is_concluded_belongs_to_it(bench: Bench, size: int) -> None:
    members = [Job(multiply, number) for number in range(size)]
    group = put(bench, parallel(*members, postprocess=count_and_race))

    def add() -> None:
        with bench.elsewhere() as there:
            there(group).args.append(functools.partial(multiply, 2))

    things.script["race"] = Script(add, None)

    work(bench)

    assert group.result == size + 1
    assert group.args[-1].result == 4


def count_and_race(*jobs: Any) -> int:
    things.act("race")
    return len(jobs)


@BOTH
def test_nothing_can_be_added_at_the_end(bench: Bench, make: Any) -> None:
    group = put(bench, make(Job(multiply, 1)))
    work(bench)

    with pytest.raises(BadStatusError, match="all of its jobs have ended"):
        group.args.append(Job(multiply, 2))

    assert len(group.args) == 1


@BOTH
def test_started_jobs_stay_where_they_are(bench: Bench, make: Any) -> None:
    group = put(bench, make(called("1"), called("2"), called("3")))
    bench.begin()
    bench.agent.claimJob()()

    for change in [
        lambda: group.args.pop(0),
        lambda: group.args.insert(0, called("0")),
        lambda: setattr(group, "args", []),
    ]:
        with pytest.raises(ValueError, match="cannot be replaced"):
            change()
    assert len(group.args) == 3
    work(bench)
    assert names() == ["1", "2", "3"]


def test_members_can_be_changed_before_it_starts(bench: Bench) -> None:
    group = serial(Job(multiply, 1))
    group.args.insert(0, functools.partial(multiply, 5))
    put(bench, group)

    work(bench)

    assert group.result == (10, 2)


@BOTH
def test_a_member_that_is_done_or_queued_already_is_taken_as_it_is(bench: Bench, make: Any) -> None:
    done = bench.stored(multiply, 1)
    done()
    queued, other = Job(multiply, 2), Job(multiply, 3)
    of_another = other.addCallback(multiply)
    group = make(done, queued, of_another, Job(multiply, 4))
    for job in [group, queued, other]:
        put(bench, job)

    work(bench)

    assert group.result == (2, 4, 12, 8)


@BOTH
@pytest.mark.parametrize("callbacks", [False, True])
def test_a_member_that_the_queue_refuses_fails_and_the_others_go_on(
    bench: Bench, make: Any, callbacks: bool
) -> None:
    quota = bench.queue.quotas.create("passing")
    refused = Job(multiply, 1)
    refused.quota_names = [quota.name]
    if callbacks:
        refused.addCallback(called("told"))
    group = put(bench, make(Job(multiply, 0), refused, Job(multiply, 2)))
    bench.queue.quotas.remove("passing")
    bench.commit()

    work(bench)

    zero, failure, last = group.result
    assert (zero, last) == (0, 4)
    assert failure.check(ValueError)
    assert names() == (["told"] if callbacks else [])


@BOTH
def test_members_are_looked_at_when_it_is_put(bench: Bench, make: Any) -> None:
    for group in [
        make(Job(multiply, threading.Lock())),
        make(Job(lambda: None)),
        make(postprocess=lambda *jobs: None),
    ]:
        with pytest.raises(NotStorableError):
            bench.queue.put(group)


@BOTH
def test_called_by_hand_it_uses_the_queue_of_its_database(bench: Bench, make: Any) -> None:
    zope.component.provideAdapter(getDefaultQueue)
    group = bench.keep(make(Job(multiply, 1)))
    group()

    work(bench)

    assert group.result == (2,)


@BOTH
def test_without_a_queue_it_fails(bench: Bench, make: Any) -> None:
    group = bench.keep(make(Job(multiply, 1)))

    assert group().check(ValueError)
    assert "needs a queue" in group.result.getErrorMessage()


def test_a_postprocess_may_answer_a_job(bench: Bench) -> None:
    things.script["more"] = lambda *jobs: Job(multiply, len(jobs))
    group = put(
        bench, parallel(Job(multiply, 1), postprocess=functools.partial(things.act, "more"))
    )

    work(bench)

    assert group.result == 2


def passing(*jobs: Any) -> int:
    return len(jobs)


def test_the_end_waits_for_a_process_with_the_code_of_the_postprocess(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(things, "passing", passing, raising=False)
    monkeypatch.setattr(passing, "__module__", things.__name__)
    group = put(bench, parallel(Job(multiply, 1), postprocess=passing))
    monkeypatch.delattr(things, "passing")

    work(bench)
    assert (group.status, group.args[0].result, len(bench.queue)) == (ACTIVE, 2, 1)
    assert group._conclusion.code[-1] == "passing"

    monkeypatch.setattr(things, "passing", passing, raising=False)
    work(bench)
    assert group.result == 1


@BOTH
def test_a_member_that_ends_late_changes_nothing(bench: Bench, make: Any) -> None:
    group = put(bench, make(Job(multiply, 1)))
    work(bench)

    group.member_ended(None)
    group.take_inner_result("late")

    assert group.result == (2,)


def test_a_proper_end_is_put_once(bench: Bench) -> None:
    group = put(bench, parallel(Job(multiply, 1)))
    while group._conclusion is None or group._conclusion.status != PENDING:
        bench.begin()
        bench.agent.claimJob()()

    group.member_ended(None)

    assert list(bench.queue) == [group._conclusion]
