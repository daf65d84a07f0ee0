# SPDX-License-Identifier: ZPL-2.1
"""The job as a record: its properties, their errors, its arguments, what it is stored as."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import zope.component
from persistent import Persistent
from ZODB.utils import p64
from zope.interface.verify import verifyObject

import zasync.calls
import zasync.foundation.containers
import zasync.job
import zasync.queue
import zasync.z3
from tests.support.bench import Bench
from tests.support.clocks import StandingClock
from zasync import agent
from zasync.interfaces import (
    ACTIVE,
    ASSIGNED,
    COMPLETED,
    NEW,
    PENDING,
    BadStatusError,
    ICallbackProxy,
    IJob,
    IRetryPolicy,
    NotStorableError,
)
from zasync.job import Job, NeverRetry, RetryCommonForever, RetryCommonFourTimes, serial

from . import things
from .things import Counter, Plain, multiply

BIG = "x" * 2000
STORED_MODULES = [
    zasync.job,
    zasync.queue,
    zasync.calls,
    zasync.z3,
    agent,
    zasync.foundation.containers,
]


# Interfaces and addresses


def test_jobs_and_proxies_keep_their_interfaces(bench: Bench) -> None:
    job = bench.stored(multiply, 1)

    assert verifyObject(IJob, job)
    assert verifyObject(IJob, serial())
    assert verifyObject(ICallbackProxy, job.addCallbacks(multiply))


def stored_classes(*modules: Any) -> set[str]:
    return {
        f"{each.__module__}.{each.__qualname__}"
        for module in modules
        for each in vars(module).values()
        if isinstance(each, type)
        and issubclass(each, Persistent)
        and each.__module__.startswith("zasync")
    }


def test_stored_classes_have_the_addresses_that_databases_know() -> None:
    assert stored_classes(*STORED_MODULES) == {
        "zasync.agent.Agent",
        "zasync.calls.Bucket",
        "zasync.calls.Call",
        "zasync.calls.Calls",
        "zasync.foundation.containers.CompletedCollection",
        "zasync.foundation.containers.Day",
        "zasync.foundation.containers.ReadMapping",
        "zasync.job.Box",
        "zasync.job.CallbackProxy",
        "zasync.job.Conclusion",
        "zasync.job.Extras",
        "zasync.job.Fence",
        "zasync.job.Group",
        "zasync.job.Job",
        "zasync.job.Markers",
        "zasync.job.NeverRetry",
        "zasync.job.Payload",
        "zasync.job.RetryCommonForever",
        "zasync.job.RetryCommonFourTimes",
        "zasync.job.Slot",
        "zasync.queue.Broadcast",
        "zasync.queue.BroadcastQueue",
        "zasync.queue.DispatcherAgents",
        "zasync.queue.Dispatchers",
        "zasync.queue.LastPing",
        "zasync.queue.Line",
        "zasync.queue.OnlyThere",
        "zasync.queue.Parked",
        "zasync.queue.Queue",
        "zasync.queue.Queues",
        "zasync.queue.Quota",
        "zasync.queue.Quotas",
        "zasync.queue.Waiting",
        "zasync.z3.Job",
    }


def test_every_stored_class_is_found_at_its_address() -> None:
    import importlib

    for address in stored_classes(*STORED_MODULES):
        module, name = address.rsplit(".", 1)
        assert getattr(importlib.import_module(module), name).__name__ == name


def test_methods_that_records_name_exist() -> None:
    for name in ["handleInterrupt", "resumeCallbacks", "continue_callbacks", "take_inner_result"]:
        assert callable(getattr(Job, name))
    for name in ["fail", "perform_members", "member_ended", "conclude"]:
        assert callable(getattr(zasync.job.Group, name))


def test_an_old_record_without_newer_attributes_works(bench: Bench) -> None:
    job = Job.__new__(Job)
    job.__setstate__({"_names": ("global", things.__name__, "multiply"), "_args": (3,)})
    bench.keep(job)

    with bench.elsewhere() as there:
        assert there(job)() == 6
    assert bench.seen(job, lambda job: job.status) == COMPLETED


def test_every_attribute_has_a_default_in_the_class(bench: Bench) -> None:
    job = bench.stored(multiply, BIG)
    job.addCallbacks(multiply, multiply).addCallback(multiply)
    job.annotations["a"] = 1
    job()

    attributes = set(vars(job)) | set(vars(serial(Job(multiply, 1), postprocess=multiply)))

    assert [name for name in attributes if not hasattr(zasync.job.Group, name)] == []
    assert [name for name in vars(job.callbacks[0]) if not hasattr(job.callbacks[0], name)] == []


def test_a_plain_job_is_one_record(bench: Bench) -> None:
    bench.commit()
    before = len(bench.storage.storage.changes)

    bench.stored(multiply, 1, b=(2, [3]))

    assert len(bench.storage.storage.changes) == before + 1


# Arguments


@pytest.mark.parametrize("filler", ["", BIG], ids=["in the record", "in a payload"])
def test_arguments_can_be_changed_in_place(bench: Bench, filler: str) -> None:
    job = bench.stored(things.keyed, 1, 2, filler=filler)
    job.args.append(3)
    job.args[0] = 10
    job.kwargs["key"] = "value"
    job.kwargs.update(other=4)
    bench.commit()

    with bench.elsewhere() as there:
        seen = there(job)
        assert seen.args == [10, 2, 3]
        assert seen.kwargs == {"filler": filler, "key": "value", "other": 4}
        assert isinstance(seen.args, list)
        assert isinstance(seen.kwargs, dict)


def test_arguments_grow_out_of_the_record_and_go_on(bench: Bench) -> None:
    job = bench.stored(things.keyed, 1)
    view = job.args
    view.append(BIG)
    bench.commit()
    view.append(Plain(3))
    job.kwargs["more"] = BIG
    bench.commit()

    assert bench.seen(job, lambda job: job.args[:2]) == [1, BIG]
    assert bench.seen(job, lambda job: job.args[2].value) == 3
    assert bench.seen(job, lambda job: job.kwargs) == {"more": BIG}


def test_arguments_can_be_replaced(bench: Bench) -> None:
    job = bench.stored(things.keyed, 1)
    old = job.args
    job.args = (4, 5)
    job.args += [6]
    job.kwargs = {"a": 1}
    job.kwargs |= {"b": 2}
    bench.commit()

    assert bench.seen(job, lambda job: (job.args, job.kwargs)) == ([4, 5, 6], {"a": 1, "b": 2})
    assert old == [1]


def test_a_view_from_before_an_abort_does_not_bring_back_what_was_aborted(bench: Bench) -> None:
    job = bench.stored(things.keyed, 1)
    view = job.args
    view.append("aborted")
    bench.manager.abort()

    view.append(2)

    assert job.args == [1, 2]


def test_a_view_works_after_the_job_was_dropped_from_memory(bench: Bench) -> None:
    job = bench.stored(things.keyed, 1)
    view = job.args
    bench.connection.cacheMinimize()

    view.append(2)
    bench.commit()

    assert bench.seen(job, lambda job: job.args) == [1, 2]


def test_bind_puts_the_job_before_its_arguments(bench: Bench) -> None:
    job = bench.keep(Job.bind(things.keyed, 1, a=2))

    assert job.args == [job, 1]
    assert bench.seen(job, lambda job: job.args[0] is job)


def test_any_name_can_be_a_keyword() -> None:
    job = Job(things.keyed, self=1, callable=2, job=3)

    assert job.kwargs == {"self": 1, "callable": 2, "job": 3}


def test_the_callable_can_be_changed_until_the_job_is_started(bench: Bench) -> None:
    counter = bench.keep(Counter(3))
    job = bench.stored(multiply, 4)
    job.callable = counter.add
    bench.commit()
    assert bench.seen(job, lambda job: job.args) == [4]
    job.callable = multiply
    bench.commit()

    with bench.elsewhere() as there:
        assert there(job)() == 8

    bench.begin()
    with pytest.raises(BadStatusError, match=r"callable of .*completed-status"):
        job.callable = multiply


def test_an_inline_job_can_get_another_function(bench: Bench) -> None:
    job = bench.stored(multiply, 4)
    job.callable = things.same
    bench.commit()

    assert bench.seen(job, lambda job: job()) == 4
    assert job._payload is None


@pytest.mark.parametrize(
    ("args", "kwargs", "named"),
    [
        ((1, threading.Lock()), {}, "argument 1 of .*multiply"),
        ((), {"key": lambda: None}, "argument 'key' of .*multiply"),
        ((Counter(threading.Lock()),), {}, "argument 0 of .*multiply"),  # type: ignore[arg-type]
    ],
)
def test_an_argument_that_cannot_be_stored_is_refused_by_its_name(
    bench: Bench, args: Any, kwargs: Any, named: str
) -> None:
    with pytest.raises(NotStorableError, match=named):
        bench.queue.put(Job(multiply, *args, **kwargs))
    assert len(bench.queue) == 0


def test_a_callable_that_cannot_be_stored_is_refused_by_its_name(bench: Bench) -> None:
    with pytest.raises(NotStorableError, match=r"the callable .*Plain.get cannot be stored"):
        bench.queue.put(Plain(threading.Lock()).get)  # type: ignore[arg-type]


def test_views_of_a_job_can_be_arguments_and_results_of_others(bench: Bench) -> None:
    first = bench.stored(multiply, 3)
    second = bench.stored(things.same, first.args)
    bench.commit()

    with bench.elsewhere() as there:
        assert there(second)() == [3]
    bench.begin()
    things.script["view"] = lambda: bench.connection.get(first._p_oid).args
    assert bench.stored(things.act, "view")() == [3]


# Properties


def test_a_new_job_knows_nothing_yet() -> None:
    job = Job(multiply, 1)

    assert job.status == NEW
    for name in ["result", "parent", "queue", "agent", "begin_after", "begin_by", "assignerUUID"]:
        assert getattr(job, name) is None
    for name in ["active_start", "active_end", "initial_callbacks_end", "failure_log_level"]:
        assert getattr(job, name) is None
    assert job.retry_policy_factory is None
    assert job.quota_names == ()
    assert len(job.callbacks) == 0


@pytest.mark.parametrize("name", ["status", "result", "callbacks", "annotations"])
def test_what_a_job_tells_of_itself_cannot_be_set(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(Job(multiply), name, 1)


def test_begin_after_is_kept_in_utc() -> None:
    job = Job(multiply)

    job.begin_after = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))

    assert job.begin_after == datetime(2026, 1, 1, 10, tzinfo=UTC)
    assert job.begin_after.tzinfo is UTC
    job.begin_after = None
    assert job.begin_after is None


def test_a_bad_begin_after_is_refused() -> None:
    job = Job(multiply)

    with pytest.raises(ValueError, match="begin_after must be timezone-aware"):
        job.begin_after = datetime(2026, 1, 1)
    with pytest.raises(TypeError, match="begin_after must be a datetime, not 'soon'"):
        job.begin_after = "soon"  # type: ignore[assignment]


def test_begin_after_can_be_set_while_new_only(bench: Bench) -> None:
    job = bench.queue.put(Job(multiply, 1))

    with pytest.raises(BadStatusError, match="begin_after"):
        job.begin_after = datetime.now(UTC)


def test_begin_by_is_checked() -> None:
    job = Job(multiply)
    job.begin_by = timedelta(hours=1)
    assert job.begin_by == timedelta(hours=1)

    with pytest.raises(ValueError, match="begin_by must not be negative"):
        job.begin_by = timedelta(seconds=-1)
    with pytest.raises(TypeError, match="begin_by must be a timedelta, not 26"):
        job.begin_by = 26  # type: ignore[assignment]
    assert job.begin_by == timedelta(hours=1)


def test_begin_by_can_be_set_while_pending_and_moves_the_deadline(
    bench: Bench, standing: StandingClock
) -> None:
    job = bench.queue.put(Job(multiply, 1))
    job.begin_by = timedelta(seconds=5)
    bench.commit()
    standing.move(seconds=6)

    bench.work()

    assert job.result.check(TimeoutError)
    with pytest.raises(BadStatusError, match="begin_by"):
        job.begin_by = None


def test_run_limit_is_checked(bench: Bench) -> None:
    job = Job(multiply)
    assert job.run_limit is None
    job.run_limit = timedelta(hours=1)
    assert job.run_limit == timedelta(hours=1)

    with pytest.raises(ValueError, match="run_limit must be more than nothing"):
        job.run_limit = timedelta()
    with pytest.raises(TypeError, match="run_limit must be a timedelta, not 26"):
        job.run_limit = 26  # type: ignore[assignment]
    held = bench.held(multiply, 1)
    with pytest.raises(BadStatusError, match="run_limit"):
        held.run_limit = None
    pending = bench.queue.put(Job(multiply, 1))
    pending.run_limit = timedelta(seconds=1)
    pending.run_limit = None
    assert pending.run_limit is None


def test_without_begin_by_there_is_no_deadline(bench: Bench, standing: StandingClock) -> None:
    job = bench.queue.put(Job(multiply, 1), begin_by=timedelta(seconds=5))
    job.begin_by = None
    bench.commit()
    standing.move(days=400)

    bench.work()

    assert job.result == 2


def test_quota_names_are_checked(bench: Bench) -> None:
    job = Job(multiply, 1)

    with pytest.raises(TypeError, match="single string 'catalog'"):
        job.quota_names = "catalog"
    job.quota_names = ["unknown"]
    assert job.quota_names == ("unknown",)
    with pytest.raises(ValueError, match="unknown quota name") as raised:
        bench.queue.put(job)
    assert raised.value.args == ("unknown quota name", "unknown")


def test_quota_names_of_a_pending_job_must_be_known_at_once(bench: Bench) -> None:
    bench.queue.quotas.create("catalog")
    job = bench.queue.put(Job(multiply, 1))

    job.quota_names = (name for name in ["catalog"])
    assert job.quota_names == ("catalog",)
    with pytest.raises(ValueError, match="unknown quota name"):
        job.quota_names = ["other"]
    assert job.quota_names == ("catalog",)
    bench.commit()

    bench.work()
    with pytest.raises(BadStatusError, match="quota_names"):
        job.quota_names = ()


def test_the_assigner_is_kept_as_a_uuid() -> None:
    job, assigner = Job(multiply), uuid.uuid4()

    job.assignerUUID = assigner
    assert job.assignerUUID == assigner
    job.assignerUUID = None
    assert job.assignerUUID is None


def test_parents_lead_to_queue_and_agent(bench: Bench) -> None:
    job = bench.queue.put(Job(multiply, 1))
    callback = job.addCallback(multiply).addCallbacks(multiply).success
    assert (job.parent, job.queue, job.agent) == (bench.queue, bench.queue, None)
    assert (callback.queue, callback.agent) == (bench.queue, None)

    bench.agent.claimJob()

    assert job.status == ASSIGNED
    assert (job.parent, job.queue, job.agent) == (bench.agent, bench.queue, bench.agent)
    assert (callback.queue, callback.agent) == (bench.queue, bench.agent)


def test_times_are_in_utc_and_of_the_clock(bench: Bench, standing: StandingClock) -> None:
    things.script["work"] = lambda: standing.move(seconds=2) and None
    things.script["callback"] = lambda result: standing.move(seconds=3) and None
    job = bench.stored(things.act, "work")
    job.addCallback(Job(things.act, "callback"))
    start = standing.now()

    job()

    assert job.active_start == start
    assert job.active_end == start + timedelta(seconds=2)
    assert job.initial_callbacks_end == start + timedelta(seconds=5)


def test_annotations_are_kept_beside_the_job(bench: Bench) -> None:
    job = bench.stored(multiply, 1)
    job.annotations["progress"] = 0.5
    bench.commit()
    serial_before = job._p_serial
    job.annotations["progress"] = 0.7
    bench.commit()

    assert bench.seen(job, lambda job: dict(job.annotations)) == {"progress": 0.7}
    assert job._p_serial == serial_before


# Retry policy factories


def named_factory(job: Any) -> Any:
    return NeverRetry(job)


class PlainPolicy:
    """Not persistent, with state of its own."""

    def __init__(self, job: Any) -> None:
        self.notes: dict[str, Any] = {}

    def jobError(self, failure: Any, data_cache: dict[str, Any]) -> Any:
        data_cache["errors"] = data_cache.get("errors", 0) + 1
        return data_cache["errors"] < 3

    commitError = jobError

    def interrupted(self) -> Any:
        self.notes["interrupted"] = self.notes.get("interrupted", 0) + 1
        return True

    def updateData(self, data_cache: dict[str, Any]) -> None:
        self.notes.update(data_cache)


def test_the_default_policies_differ_for_jobs_and_callbacks(bench: Bench) -> None:
    job = bench.stored(multiply, 1)
    callback = job.addCallback(multiply)
    chosen = job.addCallbacks(multiply).success

    assert type(job.getRetryPolicy()) is RetryCommonFourTimes
    assert type(callback.getRetryPolicy()) is RetryCommonForever
    assert type(chosen.getRetryPolicy()) is RetryCommonForever


def test_a_policy_once_made_stays(bench: Bench) -> None:
    job = bench.stored(multiply, 1)
    policy = job.getRetryPolicy()
    zope.component.provideAdapter(NeverRetry, (IJob,), IRetryPolicy)

    assert job.getRetryPolicy() is policy
    assert type(Job(multiply).getRetryPolicy()) is NeverRetry


def test_adapters_replace_the_defaults(bench: Bench) -> None:
    zope.component.provideAdapter(NeverRetry, (IJob,), IRetryPolicy)
    zope.component.provideAdapter(RetryCommonFourTimes, (IJob,), IRetryPolicy, name="callback")
    job = bench.stored(multiply, 1)

    assert type(job.getRetryPolicy()) is NeverRetry
    assert type(job.addCallback(multiply).getRetryPolicy()) is RetryCommonFourTimes


def test_a_factory_may_be_a_name_or_a_callable(bench: Bench) -> None:
    zope.component.provideAdapter(NeverRetry, (IJob,), IRetryPolicy, name="careful")
    for factory in ["careful", NeverRetry, named_factory]:
        job = bench.stored(multiply, 1)
        job.retry_policy_factory = factory
        bench.commit()
        with bench.elsewhere() as there:
            seen = there(job)
            assert seen.retry_policy_factory == factory
            assert type(seen.getRetryPolicy()) is NeverRetry


def test_a_missing_adapter_is_named() -> None:
    job = Job(multiply)
    job.retry_policy_factory = "nowhere"

    with pytest.raises(LookupError, match=r"under the name 'nowhere'.*multiply"):
        job.getRetryPolicy()


def test_a_local_factory_is_refused_at_once(bench: Bench) -> None:
    job = Job(multiply)

    with pytest.raises(NotStorableError):
        job.retry_policy_factory = lambda job: NeverRetry(job)
    assert job.retry_policy_factory is None


# Its repr


def test_repr_gives_class_oid_database_and_call(bench: Bench) -> None:
    counter = bench.keep(Counter())
    job = bench.stored(things.keyed, 1, "a", counter, code=b"b", password="secret")
    number = int.from_bytes(counter._p_oid, "big")

    text = repr(job)

    assert f"<zasync.job.Job (oid {job.oid}, db 'unnamed')" in text
    assert "things.keyed(1, 'a', " in text
    assert f"Counter (oid {number}, db 'unnamed')" in text
    assert "code=b'b'" in text
    assert "secret" not in text
    assert "not stored" in repr(Job(multiply))


def test_repr_of_a_subclass_names_it() -> None:
    assert "things.OwnJob (not stored) ``self.method(3)``" in repr(things.OwnJob(3))
    assert "zasync.job.serial(" in repr(serial(Job(multiply, 1)))


def test_repr_is_short_whatever_the_arguments_are() -> None:
    text = repr(Job(things.keyed, *[BIG] * 500, **{f"name{i}": BIG for i in range(500)}))

    assert len(text) < 10_000
    assert "... (1000 in all)" in text


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def test_repr_never_raises(bench: Bench) -> None:
    assert "raised builtins.RuntimeError" in repr(Job(things.keyed, Hostile()))
    lost = bench.connection.get(bench.stored(multiply, 1)._p_oid)
    bench.connection.cacheMinimize()
    lost._p_jar.oldstate = None
    ghost = Job.__new__(Job)
    ghost._p_oid, ghost._p_jar = p64(2**40), bench.connection
    ghost._p_deactivate()

    assert "which cannot be read (POSKeyError)" in repr(ghost)
    assert "zasync.job.Job (oid" in repr(ghost)


def test_a_pending_job_has_its_status(bench: Bench) -> None:
    job = bench.queue.put(Job(multiply, 1))
    bench.commit()

    assert bench.seen(job, lambda job: job.status) == PENDING
    assert job.status != ACTIVE
