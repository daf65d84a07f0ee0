# SPDX-License-Identifier: ZPL-2.1
"""What is carried over from a commit that was broken off between two databases, and what is not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import transaction
from BTrees.LOBTree import LOBTree
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping
from twisted.internet.defer import Deferred
from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import ConflictError

from tests.support.bench import Bench
from tests.support.two import QUEUES, TwoBench
from zasync import testing, threadlocal
from zasync.failure import Failure
from zasync.foundation import clock
from zasync.interfaces import (
    ACTIVE,
    CALLBACKS,
    COMPLETED,
    PENDING,
    PartialCommitError,
    ReassignedError,
    UnresolvableError,
)
from zasync.job import Job, NeverRetry, carrying, two_databases
from zasync.job.attempt import take_over
from zasync.job.by_hand import ByHand
from zasync.job.marker import FENCES, KEPT, MARKERS, REMOVED_AT_ONCE
from zasync.job.performance import perform
from zasync.job.run import Ending, Run
from zasync.queue import Queue
from zasync.testing.faults import Killed, Point

from . import things
from .things import Counter, Plain, multiply

HALF = "run.half_committed"


@pytest.fixture(autouse=True)
def no_slots_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests did with slots in this process is forgotten."""
    monkeypatch.setattr(two_databases, "names", two_databases.Names())


@pytest.fixture(params=["data first", "queue first"])
def two(request: pytest.FixtureRequest) -> Iterator[TwoBench]:
    order = ("main", QUEUES) if request.param == "data first" else (QUEUES, "main")
    yield from benches(order)


@pytest.fixture
def three() -> Iterator[TwoBench]:
    yield from benches(("more", QUEUES, "main"))


def benches(order: tuple[str, ...]) -> Iterator[TwoBench]:
    things.reset()
    bench = TwoBench(order)
    bench.root["counter"] = Counter()
    if "more" in order:
        bench.connection.get_connection("more").root()["counter"] = Counter()
    bench.commit()
    yield bench
    testing.fail_points.disarm()
    bench.close()
    things.reset()


def counted(bench: TwoBench, name: str = "main") -> int:
    bench.begin()
    return int(bench.connection.get_connection(name).root()["counter"].value)


def put(bench: TwoBench, function: Callable[[], Any], **options: Any) -> bytes:
    """Put a job that changes the data and answers what `function` answers."""

    def work() -> Any:
        bench.root["counter"].add()
        return function()

    things.script["it"] = work
    assert bench.agent is not None
    job = bench.queue.put(Job(things.act, "it"), **options)
    bench.commit()
    return job._p_oid  # type: ignore[no-any-return]


def die(bench: TwoBench) -> Callable[[], None]:
    return bench.storage.kill


def killed_between(bench: TwoBench, function: Callable[[], Any], **options: Any) -> Any:
    """The job, after its process died between the two commits, and another went on."""
    oid = put(bench, function, **options)
    with testing.fail_points.armed(HALF, die(bench)), pytest.raises(Killed):
        bench.work()
    bench.restart()
    while bench.work():
        pass
    bench.begin()
    assert counted(bench) == 1
    assert len(things.acts) == 1
    return bench.home.get(oid)


def returned(bench: TwoBench, function: Callable[[], Any], **options: Any) -> Any:
    job = killed_between(bench, function, **options)
    assert job.status == COMPLETED
    return job.result


# What is carried


@pytest.mark.parametrize("value", [None, 7, "x" * 3000, (1, [2, {"three": 3}])], ids=str)
def test_a_plain_result_is_there(two: TwoBench, value: Any) -> None:
    assert returned(two, lambda: value) == value


def test_an_object_of_a_class_of_users_is_there(two: TwoBench) -> None:
    assert returned(two, Plain).value == 5


def test_a_stored_object_of_the_data_is_the_same_object(two: TwoBench) -> None:
    assert returned(two, lambda: two.root["counter"]) is two.root["counter"]


def test_a_stored_object_of_the_queues_database_is_the_same_object(two: TwoBench) -> None:
    kept = two.keep(Counter(3))

    result = returned(two, lambda: two.home.get(kept._p_oid))

    assert result._p_oid == kept._p_oid
    assert result.value == 3


def test_a_new_persistent_object_comes_to_the_queues_database(two: TwoBench) -> None:
    result = returned(two, lambda: PersistentMapping(inner=Counter(4)))

    assert result["inner"].value == 4
    assert result._p_jar is two.home


def test_a_new_object_of_the_data_is_there(two: TwoBench) -> None:
    def make() -> Any:
        new = two.root["new"] = Counter(8)
        two.connection.add(new)
        return new

    assert returned(two, make) is two.root["new"]


def test_a_failure_that_is_answered_is_the_result(two: TwoBench) -> None:
    assert returned(two, lambda: Failure(KeyError("odd"))).check(KeyError)


def test_a_job_that_must_not_run_twice_has_succeeded(two: TwoBench) -> None:
    assert returned(two, lambda: 7, retry_policy_factory=NeverRetry) == 7


def test_a_new_inner_job_is_run_and_gives_the_result(two: TwoBench) -> None:
    assert returned(two, lambda: Job(multiply, 3)) == 6


def test_an_inner_job_that_was_put_is_run_once(two: TwoBench) -> None:
    assert returned(two, lambda: two.queue.put(Job(multiply, 4))) == 8


def test_an_inner_job_that_waits_already_gives_the_result(two: TwoBench) -> None:
    from datetime import timedelta

    inner = two.queue.put(Job(multiply, 5), begin_after=clock.now() + timedelta(hours=1))
    two.commit()
    job = killed_between(two, lambda: two.home.get(inner._p_oid))
    assert job.status == ACTIVE
    clock.current().move(seconds=4000)  # type: ignore[attr-defined]

    while two.work():
        pass

    two.begin()
    assert job.result == 10
    assert job.status == COMPLETED


def test_what_was_put_keeps_its_time_its_quota_and_its_oid(two: TwoBench) -> None:
    from datetime import timedelta

    two.queue.quotas.create("one")
    two.commit()
    later = clock.now() + timedelta(hours=1)

    def work() -> None:
        job = Job(multiply, 5)
        job.quota_names = ("one",)
        two.queue.put(job, begin_after=later)
        two.root["its job"] = job

    killed_between(two, work)

    (waiting,) = two.queue
    assert waiting.begin_after == later
    assert waiting.quota_names == ("one",)
    assert waiting is two.root["its job"]
    assert waiting.status == PENDING


def test_an_oid_that_something_else_got_is_told(
    two: TwoBench, caplog: pytest.LogCaptureFixture
) -> None:
    oid = put(two, lambda: two.queue.put(Job(multiply, 5)) and None)
    with testing.fail_points.armed(HALF, die(two)), pytest.raises(Killed):
        two.work()
    two.storage.revive()
    two.fresh()
    markers = two.connection.root()[MARKERS]
    (marker,) = markers.present()
    two.home._add(taken := Counter(1), next(iter(_oids(marker, two))))
    two.commit()
    two.restart()
    two.work()

    two.begin()
    assert two.home.get(oid).status == COMPLETED
    assert two.home.get(taken._p_oid).value == 1
    assert "references to it in the data" in caplog.text


def _oids(marker: Any, bench: TwoBench) -> list[bytes]:
    from zasync.job import carrying

    content = carrying._load(marker.carried, bench.home)
    return [oid for _thing, oid in content["oids"]]


def test_a_stored_job_that_was_put_and_one_that_was_put_first_are_there(two: TwoBench) -> None:
    stored = two.keep(Job(multiply, 21))
    claimed = two.keep(Job(multiply, 2))

    def work() -> None:
        two.queue.put(two.home.get(stored._p_oid))
        two.queue.putBack(two.home.get(claimed._p_oid))

    killed_between(two, work)

    assert two.home.get(stored._p_oid).result == 42
    assert two.home.get(claimed._p_oid).result == 4


def test_many_jobs_that_were_put_are_there(two: TwoBench) -> None:
    def work() -> None:
        for number in range(300):
            two.queue.put(Job(multiply, number))
            if number % 100 == 50:
                transaction_of(two).savepoint()

    killed_between(two, work)

    ended = two.agent.completed
    assert sorted(job.result for job in ended if job.result is not None) == [
        number * 2 for number in range(300)
    ]


def transaction_of(bench: TwoBench) -> Any:
    return bench.manager.get()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_queue_whose_trees_grow_hides_nothing(two: TwoBench, count: int) -> None:
    from datetime import timedelta

    moment = clock.now() + timedelta(hours=1)
    for _ in range(600):
        two.queue.put(Job(multiply, 1), begin_after=moment)
    two.commit()

    def work() -> None:
        for _ in range(count * 10):
            two.queue.put(Job(multiply, 2), begin_after=moment)

    assert returned(two, work) is None
    assert len(two.queue) == 600 + count * 10


def test_a_callback_for_a_job_that_waits_is_not_lost_in_silence(two: TwoBench) -> None:
    from datetime import timedelta

    other = two.queue.put(Job(multiply, 1), begin_after=clock.now() + timedelta(hours=1))
    two.commit()

    result = returned(two, lambda: two.home.get(other._p_oid).addCallback(multiply) and None)

    assert result.check(PartialCommitError)
    assert len(two.queue) == 1


def test_callbacks_and_annotations_of_the_job_itself_are_there(two: TwoBench) -> None:
    def work() -> int:
        job = next(iter(two.agent))
        job.annotations["step"] = 3
        job.addCallback(Job(multiply, 7))
        return 5

    job = killed_between(two, work)

    assert job.result == 5
    assert job.annotations["step"] == 3
    assert [callback.result for callback in job.callbacks] == [35]


def test_annotations_that_were_there_are_changed(two: TwoBench) -> None:
    oid = put(two, lambda: two.home.get(oid).annotations.update({f"{n}": n for n in range(90)}))
    two.home.get(oid).annotations.update({f"old{number}": number for number in range(90)})
    two.commit()
    with testing.fail_points.armed(HALF, die(two)), pytest.raises(Killed):
        two.work()
    two.restart()
    two.work()

    two.begin()
    assert two.home.get(oid).result is None
    assert len(two.home.get(oid).annotations) == 180


# What is not carried


@pytest.mark.parametrize("kind", [PersistentMapping, OOBTree, LOBTree])
def test_other_changes_in_the_queues_database_end_in_a_failure_that_names_them(
    two: TwoBench, kind: type, caplog: pytest.LogCaptureFixture
) -> None:
    two.home.root()["users"] = kind()
    two.home.root()["users"][1] = 1
    two.commit()

    def work() -> None:
        two.home.root()["users"][1] = 2
        two.queue.put(Job(multiply, 1))

    result = returned(two, work)

    assert result.check(PartialCommitError)
    assert kind.__name__ in result.getErrorMessage()
    assert [job for job in two.agent.completed if job.result == 2]  # what was put is not lost
    assert any(record.levelno == logging.CRITICAL for record in caplog.records)


def test_a_callback_for_another_job_is_not_lost_in_silence(two: TwoBench) -> None:
    other = two.keep(Job(multiply, 1))

    result = returned(two, lambda: two.home.get(other._p_oid).addCallback(multiply) and None)

    assert result.check(PartialCommitError)


def test_what_cannot_be_packed_ends_in_a_failure(
    two: TwoBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise TypeError("not today")

    monkeypatch.setattr(two_databases.carrying, "_dump", refuse)

    result = returned(two, lambda: 5)

    assert result.check(PartialCommitError)
    assert "not today" in result.getErrorMessage()


# Several databases of users


def test_three_databases_are_changed_once(three: TwoBench) -> None:
    def work() -> int:
        three.connection.get_connection("more").root()["counter"].add()
        return 5

    assert returned(three, work) == 5
    assert counted(three, "more") == 1


def test_a_death_between_two_databases_of_users_is_a_clear_failure(
    three: TwoBench, caplog: pytest.LogCaptureFixture
) -> None:
    def work() -> None:
        three.connection.get_connection("more").root()["counter"].add()

    oid = put(three, work)
    finish = three.storages["main"].storage.tpc_finish

    def dying(*args: Any) -> Any:
        if things.acts:
            die(three)()
        return finish(*args)

    three.storages["main"].storage.tpc_finish = dying  # type: ignore[method-assign]
    with pytest.raises(Killed):
        three.work()
    three.storages["main"].storage.tpc_finish = finish  # type: ignore[method-assign]
    three.restart()
    three.work()

    assert (counted(three), counted(three, "more")) == (0, 1)
    result = three.home.get(oid).result
    assert result.check(PartialCommitError)
    assert "not in main" in result.getErrorMessage()
    assert any(record.levelno == logging.CRITICAL for record in caplog.records)


def test_a_database_that_is_only_read_gets_no_marker(three: TwoBench) -> None:
    put(three, lambda: three.connection.get_connection("more").root()["counter"].value)

    three.work()

    assert MARKERS in three.connection.root()
    assert MARKERS not in three.connection.get_connection("more").root()


def test_a_job_that_changes_the_queues_database_only_leaves_no_marker(two: TwoBench) -> None:
    two.queue.put(Job(multiply, 4))
    two.commit()
    assert two.agent is not None
    two.work()
    commits = two.storages["main"].commits

    two.queue.put(Job(multiply, 4))
    two.commit()
    two.work()

    assert two.storages["main"].commits == commits
    assert MARKERS not in two.connection.root()


def test_one_database_has_no_markers_and_no_bytes_of_them(bench: Bench) -> None:
    bench.root["counter"] = Counter()
    things.script["it"] = lambda: bench.root["counter"].add()
    job = bench.queue.put(Job(things.act, "it"))
    assert bench.agent is not None
    bench.commit()
    bench.storage.fail(Point.BEFORE_FINISH, Killed(), skip=1)
    with pytest.raises(Killed):
        bench.work()
    bench.restart()
    assert "_interrupted" not in bench.connection.get(job._p_oid).__getstate__()
    while bench.work():
        pass

    bench.begin()
    again = bench.connection.get(job._p_oid)
    assert again.result == 1
    assert "_interrupted" not in again.__getstate__()
    assert MARKERS not in bench.root


# The process lives on


@pytest.mark.parametrize("error", [ClientDisconnected(), OSError(), KeyError("odd")])
def test_an_error_between_the_databases_is_looked_into(two: TwoBench, error: Exception) -> None:
    calls = iter([error])

    def fail() -> None:
        for each in calls:
            raise each

    oid = put(two, lambda: 9)
    with testing.fail_points.armed(HALF, fail):
        two.work()

    assert counted(two) == 1
    assert two.home.get(oid).result == 9
    assert len(things.acts) == 1


def test_an_interrupt_of_the_keyboard_between_the_databases_loses_nothing(two: TwoBench) -> None:
    def interrupt() -> None:
        testing.fail_points.disarm()
        raise KeyboardInterrupt

    oid = put(two, lambda: 9)
    testing.fail_points.arm(HALF, interrupt)
    with pytest.raises(KeyboardInterrupt):
        two.work()

    assert counted(two) == 1
    assert two.home.get(oid).result == 9


def test_an_error_before_the_first_finish_has_the_job_run_again(two: TwoBench) -> None:
    oid = put(two, lambda: 9)
    two.storage.fail(Point.BEFORE_FINISH, ClientDisconnected(), skip=1)

    two.work()

    assert counted(two) == 1
    assert two.home.get(oid).result == 9
    assert len(things.acts) == 2


def test_a_suspended_job_goes_on_after_an_error_between_the_databases(two: TwoBench) -> None:
    waiting: Deferred[int] = Deferred()
    calls = iter([ClientDisconnected()])

    def fail() -> None:
        for each in calls:
            raise each

    oid = put(two, lambda: waiting)
    with testing.fail_points.armed(HALF, fail):
        two.work()
    waiting.callback(17)

    assert counted(two) == 1
    assert two.home.get(oid).result == 17
    assert len(things.acts) == 1


def test_a_suspended_job_whose_process_dies_is_interrupted(two: TwoBench) -> None:
    oid = put(two, lambda: two.queue.put(Job(multiply, 3)) and Deferred())
    with testing.fail_points.armed(HALF, die(two)), pytest.raises(Killed):
        two.work()
    things.script["it"] = lambda: 5
    two.restart()
    while two.work():
        pass

    two.begin()
    assert two.home.get(oid).result == 5
    assert [job.result for job in two.agent.completed if job.result == 6] == [6]


def test_conflicts_repeat_the_job_with_one_marker(two: TwoBench) -> None:
    steps = iter([True, True, False])

    def work() -> int:
        if next(steps):
            with_another(two)
        return 5

    oid = put(two, work)

    two.work()

    assert counted(two) == 3  # two by the others
    assert two.home.get(oid).result == 5
    assert len(list(two.connection.root()[MARKERS].present())) == 1


def with_another(bench: TwoBench) -> None:
    manager = transaction.TransactionManager()
    connection = bench.db.open(transaction_manager=manager)
    connection.root()["counter"].add()
    manager.commit()
    connection.close()


def test_callbacks_that_change_the_data_do_so_once(two: TwoBench) -> None:
    oid = put(two, lambda: 5)
    two.home.get(oid).addCallback(Job(things.act, "callback"))
    two.commit()
    things.script["callback"] = lambda result: two.root["counter"].add(10)
    dying = iter([None, die(two)])

    def second() -> None:
        action = next(dying, None)
        if action is not None:
            action()

    with testing.fail_points.armed(HALF, second), pytest.raises(Killed):
        two.work()
    two.restart()
    while two.work():
        pass

    assert counted(two) == 11
    assert two.home.get(oid).status == COMPLETED
    assert two.home.get(oid).callbacks[0].result == 11


# Taking over


def test_a_job_that_ran_by_hand_is_taken_over(two: TwoBench) -> None:
    things.script["it"] = lambda: two.root["counter"].add()
    job = two.keep(Job(things.act, "it"))
    with testing.fail_points.armed(HALF, die(two)), pytest.raises(Killed):
        job()
    two.storage.revive()
    two.fresh()

    again = two.home.get(job._p_oid)
    assert again.status == ACTIVE
    again.handleInterrupt()

    assert again.result == 1
    assert again.status == COMPLETED
    assert counted(two) == 1


def test_recovery_can_die_and_be_done_again(two: TwoBench) -> None:
    for point in (Point.BEFORE_FINISH, Point.AFTER_FINISH):
        for number in range(12):
            bench = TwoBench(("main", QUEUES))
            bench.root["counter"] = Counter()
            bench.commit()
            things.reset()
            oid = put(bench, lambda bench=bench: bench.queue.put(Job(multiply, 3)) and None)
            with testing.fail_points.armed(HALF, die(bench)), pytest.raises(Killed):
                bench.work()
            bench.restart()
            bench.storage.fail(point, Killed(), skip=number)
            try:
                while bench.work():
                    pass
            except Killed:
                bench.restart()
                while bench.work():
                    pass
            assert counted(bench) == 1
            assert bench.home.get(oid).status == COMPLETED
            results = [job.result for job in bench.agent.completed]
            assert results.count(6) == 1
            bench.close()


def test_a_run_whose_job_was_looked_into_commits_nothing_any_more(two: TwoBench) -> None:
    """Even if its lock on the queue's database was lost, so that only the fence is left."""
    things.script["it"] = lambda: two.root["counter"].add()
    job = two.keep(Job(things.act, "it"))

    def work() -> int:
        manager = transaction.TransactionManager()
        connection = two.db.open(transaction_manager=manager)
        value = two.root["counter"].add()
        fence = two_databases.markers_in(two.connection).fence(job._token)
        two_databases._touch_fences(connection.get_connection(QUEUES), "main", [job._token])
        assert fence is not None
        manager.commit()
        connection.close()
        return int(value)

    things.script["it"] = _once(work, lambda: two.root["counter"].add())
    two_databases.markers_in(two.connection)
    two.commit()

    assert job() == 1

    assert len(things.acts) == 2  # the first commit was refused
    assert counted(two) == 1


def _once(first: Callable[[], Any], others: Callable[[], Any]) -> Callable[[], Any]:
    steps = iter([first])
    return lambda: next(steps, others)()


def test_what_the_job_commits_itself_is_fenced_too(two: TwoBench) -> None:
    job = two.keep(Job(things.act, "it"))
    two_databases.markers_in(two.connection)
    two.commit()

    def work() -> None:
        two.root["counter"].add()
        manager = transaction.TransactionManager()
        connection = two.db.open(transaction_manager=manager)
        two_databases._touch_fences(connection.get_connection(QUEUES), "main", [job._token])
        manager.commit()
        connection.close()
        with pytest.raises(ConflictError):
            two.manager.commit()
        two.manager.abort()

    things.script["it"] = work

    job()

    assert counted(two) == 0


def test_a_taken_away_job_commits_to_no_database(two: TwoBench) -> None:
    job = two.keep(Job(things.act, "it"))

    def work() -> None:
        two.root["counter"].add()
        manager = transaction.TransactionManager()
        connection = two.db.open(transaction_manager=manager)
        connection.get_connection(QUEUES).get(job._p_oid)._token = 7
        manager.commit()
        connection.close()

    things.script["it"] = work

    with pytest.raises(ReassignedError):
        job()

    assert counted(two) == 0


def test_a_process_without_the_other_database_leaves_the_job(
    two: TwoBench, caplog: pytest.LogCaptureFixture
) -> None:
    oid = put(two, lambda: 5)
    with testing.fail_points.armed(HALF, die(two)), pytest.raises(Killed):
        two.work()
    two.restart()
    main = two.db.databases.pop("main")
    manager = transaction.TransactionManager()
    connection = main.databases[QUEUES].open(transaction_manager=manager)
    job = connection.get(oid)

    job.handleInterrupt()

    assert job.status == ACTIVE
    assert "not open in this process: main" in caplog.text
    connection.close()
    main.databases["main"] = main
    clock.current().move(seconds=120)  # type: ignore[attr-defined]
    while two.work():
        pass
    two.begin()
    assert two.home.get(oid).result == 5
    assert counted(two) == 1
    assert len(things.acts) == 1


def test_a_callback_without_the_other_database_is_left_too(two: TwoBench) -> None:
    job = two.keep(Job(things.act, "it"))
    job._interrupted = ((5, ("gone",)),)
    job._status = ACTIVE
    two.commit()

    with pytest.raises(UnresolvableError, match="gone"):
        job.handleInterrupt()

    assert job.status == ACTIVE


def test_callbacks_without_the_other_database_are_left_to_another_worker(
    two: TwoBench, caplog: pytest.LogCaptureFixture
) -> None:
    job = two.keep(Job(multiply, 1))
    callback = job.addCallback(Job(things.act, "callback"))
    job.parent, job._status, job._result = two.queue, CALLBACKS, 2
    callback._status, callback._interrupted = ACTIVE, ((5, ("gone",)),)
    two.commit()

    job.resumeCallbacks()

    assert (job.status, callback.status) == (CALLBACKS, ACTIVE)
    assert "not open in this process: gone" in caplog.text
    two.begin()
    (again,) = two.queue
    assert again.begin_after > clock.now()
    assert again.callable == job.resumeCallbacks


# Slots


def present(bench: TwoBench) -> list[Any]:
    bench.begin()
    return list(bench.connection.root()[MARKERS].present())


def test_jobs_one_after_the_other_use_one_slot(two: TwoBench) -> None:
    for _ in range(5):
        put(two, lambda: None)
        two.work()

    assert len(present(two)) == 1


def test_a_thousand_restarts_leave_few_slots(two: TwoBench) -> None:
    job = two.keep(Job(multiply, 1))
    markers = two_databases.markers_in(two.connection)
    two.commit()
    names = set()
    for number in range(1000):
        two_databases.names = two_databases.Names()
        known = lambda old: two_databases.is_known(old, two.home)  # noqa: E731
        name = two_databases.names.take("the dispatcher", [markers], known)
        names.add(name)
        markers.write(name, marker_for(two, job, number), known)
        two.commit()

    assert names == {"the dispatcher/0"}


def test_runners_that_never_come_back_leave_few_slots(two: TwoBench) -> None:
    job = two.keep(Job(multiply, 1))
    markers = two_databases.markers_in(two.connection)
    two.commit()
    known = lambda old: two_databases.is_known(old, two.home)  # noqa: E731
    for number in range(1000):
        clock.current().move(seconds=600)  # type: ignore[attr-defined]
        name = two_databases.names.take(f"dispatcher {number}", [markers], known)
        markers.write(name, marker_for(two, job, number), known)
    two.commit()

    assert len(present(two)) <= KEPT // 600_000_000 + 2


def test_of_many_old_slots_a_few_are_removed_at_once(two: TwoBench) -> None:
    job = two.keep(Job(multiply, 1))
    markers = two_databases.markers_in(two.connection)
    for number in range(5):
        markers.write(str(number), marker_for(two, job, number), lambda old: True)
    clock.current().move(days=3)  # type: ignore[attr-defined]
    markers.write("new", marker_for(two, job, 9), lambda old: True)
    two.commit()

    assert len(present(two)) == 5 - REMOVED_AT_ONCE + 1


def marker_for(bench: TwoBench, job: Any, token: int) -> Any:
    return two_databases.Marker(
        QUEUES, job.oid, token + FENCES, None, False, ("main",), b"", (), clock.now_micros()
    )


def test_a_slot_is_not_used_again_before_its_job_is_recovered(two: TwoBench) -> None:
    oid = put(two, lambda: 5)
    with testing.fail_points.armed(HALF, die(two)), pytest.raises(Killed):
        two.work()
    two.restart()
    two.begin()
    first = two.queue[0]  # handles the interruption
    two.queue.remove(first)
    two.commit()
    things.script["it"] = lambda: two.root["counter"].add(10)
    other = two.keep(Job(things.act, "it"))
    other()
    assert len(present(two)) == 2

    two.home.get(oid).handleInterrupt()
    other_one = two.keep(Job(things.act, "it"))
    other_one()

    assert two.home.get(oid).result == 5
    assert len(present(two)) == 2
    assert counted(two) == 21


def test_the_marker_of_a_job_that_is_gone_is_needed_no_more(two: TwoBench) -> None:
    home = two.home
    nothing = two_databases.Marker(QUEUES, 2**40, 1, None, False, ("main",), b"", (), 1)
    no_job = nothing._replace(oid=0)
    elsewhere = nothing._replace(database="gone")

    assert two_databases.is_known(nothing, home)
    assert two_databases.is_known(no_job, home)
    assert not two_databases.is_known(elsewhere, home)
    assert isinstance(two.queue, Queue)


def test_the_order_of_the_storages_is_what_the_tests_say() -> None:
    for order in (("main", QUEUES), (QUEUES, "main")):
        bench = TwoBench(order)
        keys = [bench.connection.get_connection(name).sortKey() for name in order]
        bench.close()
        assert keys == sorted(keys)
        assert [key.partition(":")[0] for key in keys] == ["0", "1"]


# A job that its dispatcher finds with its agent, and starts again without handing it back


def started_again(bench: TwoBench, function: Callable[[], Any]) -> Run:
    """A run of a job that another one has left between the databases."""
    things.script["it"] = function
    job = bench.keep(Job(things.act, "it"))
    with testing.fail_points.armed(HALF, die(bench)), pytest.raises(Killed):
        job()
    bench.storage.revive()
    two_databases.names = two_databases.Names()
    bench.fresh()
    job = bench.home.get(job._p_oid)
    two_databases.note_interruption(job)
    job._token = 77
    bench.commit()
    return Run(job, 77, ByHand())


def test_a_job_that_is_started_again_finds_what_it_did(two: TwoBench) -> None:
    run = started_again(two, lambda: two.root["counter"].add())

    assert perform(run).ending is Ending.COMPLETED

    assert run.job.result == 1
    assert run.job._interrupted == ()
    assert counted(two) == 1


def test_a_job_that_is_started_again_waits_for_what_it_answered(two: TwoBench) -> None:
    run = started_again(two, lambda: two.root["counter"].add() and two.queue.put(Job(multiply, 2)))

    assert perform(run).ending is Ending.WAITING
    two.work()

    two.begin()
    assert run.job.result == 4
    assert counted(two) == 1


def test_a_job_that_is_started_again_gets_its_callbacks(two: TwoBench) -> None:
    def work() -> int:
        two.home.get(things_oid[0]).addCallback(multiply)
        return int(two.root["counter"].add())

    things_oid: list[bytes] = []
    things.script["it"] = work
    job = two.keep(Job(things.act, "it"))
    things_oid.append(job._p_oid)
    with testing.fail_points.armed(HALF, die(two)), pytest.raises(Killed):
        job()
    two.storage.revive()
    two.fresh()
    job = two.home.get(job._p_oid)
    two_databases.note_interruption(job)
    job._token = 77
    two.commit()

    assert perform(Run(job, 77, ByHand())).ending is Ending.COMPLETED
    assert job.callbacks[0].result == 2


def test_a_suspended_job_that_is_started_again_runs_again(two: TwoBench) -> None:
    run = started_again(two, lambda: two.root["counter"].add() and Deferred())
    things.script["it"] = lambda: 5

    assert perform(run).ending is Ending.COMPLETED

    assert run.job.result == 5
    assert counted(two) == 1  # what a job does before it is suspended is committed as it is


def test_a_job_that_is_started_again_and_did_nothing_runs(two: TwoBench) -> None:
    things.script["it"] = lambda: two.root["counter"].add()
    job = two.keep(Job(things.act, "it"))
    job.start(5)
    two_databases.note_interruption(job)
    job._token = 77
    two.commit()

    assert perform(Run(job, 77, ByHand())).ending is Ending.COMPLETED

    assert counted(two) == 1
    assert job._interrupted == ()


def test_a_job_that_was_taken_away_is_not_taken_over(two: TwoBench) -> None:
    run = started_again(two, lambda: two.root["counter"].add())
    found = two_databases.find(run.job)
    assert found is not None
    run.job._token = 99
    two.commit()

    with pytest.raises(ReassignedError):
        take_over(run, found)

    assert run.job.status == ACTIVE


def test_what_was_taken_over_already_is_left(two: TwoBench) -> None:
    run = started_again(two, lambda: two.root["counter"].add())
    found = two_databases.find(run.job)
    assert found is not None
    assert take_over(run, found).ending is Ending.COMPLETED

    assert take_over(run, found).ending is Ending.COMPLETED


# Odds and ends


def test_two_runs_of_a_process_use_two_slots(two: TwoBench) -> None:
    markers = two_databases.markers_in(two.connection)
    names = two_databases.Names()

    assert names.take("one", [markers], bool) == "one/0"
    assert names.take("one", [markers], bool) == "one/1"
    names.give_back("one/0")
    assert names.take("one", [markers], bool) == "one/0"


def test_a_slot_that_cannot_be_looked_at_is_given_back(two: TwoBench) -> None:
    job = two.keep(Job(multiply, 1))
    markers = two_databases.markers_in(two.connection)
    markers.write("one/0", marker_for(two, job, 1), bool)
    names = two_databases.Names()

    def fail(old: Any) -> bool:
        raise ClientDisconnected

    with pytest.raises(ClientDisconnected):
        names.take("one", [markers], fail)

    assert names.take("one", [markers], lambda old: True) == "one/0"


def test_the_slots_of_a_dispatcher_have_its_name(two: TwoBench) -> None:
    class AnyDispatcher:
        UUID = "the dispatcher"

    put(two, lambda: 5)
    around = threadlocal.Surroundings(lambda: None, dispatcher=AnyDispatcher())
    token = threadlocal.surroundings.set(around)
    try:
        two.work()
    finally:
        threadlocal.surroundings.reset(token)

    two.begin()
    assert two.connection.root()[MARKERS].marker("the dispatcher/0") is not None


def test_a_suspended_job_s_marker_is_known_once_the_queue_has_it(two: TwoBench) -> None:
    waiting: Deferred[int] = Deferred()
    oid = put(two, lambda: waiting)
    two.work()
    (marker,) = present(two)

    assert two.home.get(oid).status == ACTIVE
    assert two_databases.is_known(marker, two.home)
    assert not two_databases.is_known(marker._replace(suspension=1), two.home)


def test_a_hook_before_the_commit_may_make_a_savepoint(two: TwoBench) -> None:
    def work() -> int:
        two.manager.get().addBeforeCommitHook(lambda: two.manager.savepoint().rollback())
        return 5

    oid = put(two, lambda: None)
    things.script["it"] = work
    two.work()

    two.begin()
    assert two.home.get(oid).result == 5


def test_a_job_that_has_callbacks_hides_no_other_change(two: TwoBench) -> None:
    two.home.root()["users"] = PersistentMapping()
    oid = put(two, lambda: two.home.root()["users"].update(a=1))
    two.home.get(oid).addCallback(multiply)
    two.commit()
    with testing.fail_points.armed(HALF, die(two)), pytest.raises(Killed):
        two.work()
    two.restart()
    while two.work():
        pass

    two.begin()
    assert two.home.get(oid).result.check(PartialCommitError)


def test_what_is_not_there_any_more_is_not_new(two: TwoBench) -> None:
    put(two, lambda: two.root.update({"its job": two.queue.put(Job(multiply, 5))}))
    with testing.fail_points.armed(HALF, die(two)), pytest.raises(Killed):
        two.work()
    two.storage.revive()
    two.fresh()

    assert not carrying.is_new(two.root["its job"], two.home)


def test_a_job_that_another_job_calls_is_taken_over_whole(two: TwoBench) -> None:
    inner = two.keep(Job(things.act, "inner"))
    things.script["inner"] = lambda: two.root["counter"].add()
    outer = two.keep(Job(things.act, "outer"))
    things.script["outer"] = lambda: two.home.get(inner._p_oid)()

    def second() -> None:
        if two.home.get(inner._p_oid).status != ACTIVE:
            die(two)()

    with testing.fail_points.armed(HALF, second), pytest.raises(Killed):
        outer()
    two.storage.revive()
    two.fresh()
    two.home.get(inner._p_oid).handleInterrupt()

    assert two.home.get(inner._p_oid).result == 1
    assert counted(two) == 1


def test_a_job_that_is_interrupted_again_amid_its_recovery_is_left(
    two: TwoBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its recovery has not looked for the marker of the latest attempt; another one will."""
    job = two.keep(Job(multiply, 1))
    job.start(5)
    two.commit()
    find = two_databases.find

    def late(job: Any) -> Any:
        found = find(job)
        job._token = 6
        two.commit()
        return found

    monkeypatch.setattr(two_databases, "find", late)

    job.handleInterrupt()

    assert job.status == ACTIVE
    assert job._token == 6
