# SPDX-License-Identifier: ZPL-2.1
"""What zasync 1.0 offered, row by row of docs/coming-from-zasync-1.md, done the present way.

The numbers are those of the table there.  What needs whole processes is in tests/acceptance/zope;
the table names those tests, too.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import transaction
from AccessControl import SpecialUsers
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.unauthorized import Unauthorized
from ZODB.POSException import ConflictError

import zasync
from tests.integrations.zope import jobs
from tests.support.running import running, until
from tests.support.zope_place import Place
from zasync import plugins
from zasync.calls import ANYBODY, CallNotFound, Calls, CallState
from zasync.calls.answer import answer
from zasync.integrations.zope import execution
from zasync.integrations.zope.expressions import tales_callback
from zasync.integrations.zope.job import ZopeJob
from zasync.integrations.zope.manager import AsynchronousCallManager
from zasync.integrations.zope.settings import Settings
from zasync.interfaces import KEY, AbortedError, NotStorableError
from zasync.job import NeverRetry
from zasync.plugins import Plugin, UnknownPlugin
from zasync.queue import Queue

COLLISIONS = []


@pytest.fixture
def manager(place: Place) -> Any:
    """A call manager in the root."""
    place.app._setObject("asynchronous_call_manager", AsynchronousCallManager())
    place.app.manage_permission("View", ["Anonymous", "Manager"])
    transaction.commit()
    return place.app.asynchronous_call_manager


@pytest.fixture
def who() -> Any:
    """A plugin that runs inside of Zope."""
    plugins.provide_zope_jobs(ZopeJob)
    yield plugins.register(Plugin("who", jobs.who_am_i, zope_aware=True))
    plugins.unregister("who")
    plugins.provide_zope_jobs(None)


def collide_four_times(item: Any) -> int:
    COLLISIONS.append(item.title)
    if len(COLLISIONS) < 5:
        raise ConflictError
    return len(COLLISIONS)


def register_in(place: Place, calls: Calls) -> Calls:
    place.connection.root()["calls"] = calls
    transaction.commit()
    return calls


async def answer_later() -> str:
    return "later"


def test_row_01_a_call_manager_is_an_object_in_the_root(place: Place, manager: Any) -> None:
    assert manager.id == "asynchronous_call_manager"
    assert manager.meta_type == "Asynchronous Call Manager"
    assert place.app.restrictedTraverse("asynchronous_call_manager") == manager


def test_row_02_its_settings_have_the_same_defaults_and_floor(manager: Any) -> None:
    assert manager.poll_interval == timedelta(seconds=5)
    assert manager.rotation_period == timedelta(days=1)
    manager.poll_interval = timedelta(seconds=1)
    assert manager.poll_interval == timedelta(seconds=2)
    assert Settings().retention == timedelta(days=1)


def test_row_03_a_call_is_put_with_the_transaction_or_not_at_all(place: Place) -> None:
    with place.logged_in("alice"):
        job = place.queue.put(jobs.nothing)
    newSecurityManager(None, place.user("alice"))
    place.queue.put(jobs.break_down)
    transaction.abort()

    assert list(place.queue) == [job]


def test_row_04_a_session_call_is_seen_by_its_owner_only(
    place: Place, manager: Any, who: Any
) -> None:
    newSecurityManager(None, place.user("alice"))
    call = manager.putSessionCall("who")
    assert manager.getCall(call.id).label == "who"

    newSecurityManager(None, place.user("bob"))
    with pytest.raises(CallNotFound):
        manager.getCall(call.id)


def test_row_05_there_is_a_permission_for_each_kind_of_call(place: Place, manager: Any) -> None:
    manager.manage_permission("Make asynchronous session calls", ["Authenticated"])
    manager.manage_permission("Make asynchronous application calls", ["Manager"])
    newSecurityManager(None, place.user("alice"))

    assert manager.restrictedTraverse("putSessionCall")
    with pytest.raises(Unauthorized):
        manager.restrictedTraverse("putCall")


def test_row_06_what_is_unknown_is_refused_where_it_is_asked_for(
    place: Place, manager: Any
) -> None:
    newSecurityManager(None, place.user("boss"))
    with pytest.raises(UnknownPlugin):
        manager.putCall("nonsense")
    with pytest.raises(NotStorableError):
        place.queue.put(lambda: None)


def test_row_07_a_plugin_answers_a_value_or_something_to_wait_for(place: Place, who: Any) -> None:
    with place.logged_in("alice"):
        value = place.queue.put(plugins.job_for("who"))
        coroutine = place.queue.put(ZopeJob(answer_later))

    place.performed(value, coroutine)

    assert value.result["user"] == "alice"
    assert coroutine.result == "later"


def test_row_08_a_plugin_has_a_name_handler_timeout_retry_and_description(place: Place) -> None:
    plugins.provide_zope_jobs(ZopeJob)
    plugin = plugins.register_from_config(
        {
            "name": "careful",
            "handler": "tests.integrations.zope.jobs:nothing",
            "timeout": "4h",
            "retry": "no",
            "zope-aware": "yes",
            "description": "Does nothing",
        }
    )
    try:
        job = plugins.job_for("careful")
    finally:
        plugins.unregister("careful")
        plugins.provide_zope_jobs(None)

    assert (plugin.description, plugin.timeout) == ("Does nothing", timedelta(hours=4))
    assert isinstance(job, ZopeJob)
    assert job.retry_policy_factory is NeverRetry


def test_row_09_there_is_a_plugin_for_ldap() -> None:
    assert "ldap_search" in plugins.names()  # against real servers: test_ldap_search.py


def test_row_10_something_is_done_inside_of_zope_as_the_portal_product_did(
    place: Place,
) -> None:
    # The call of old: context by path, values for the request, a TALES expression.
    expression = "python: [here.title, request.idxs, user.getId()]"
    with place.logged_in("alice"):
        path = place.app.news.getPhysicalPath()
        job = place.queue.put(execution.zope_exec(path, expression, {"idxs": ["Title"]}))

    place.performed(job)

    assert job.result == ["The news", ["Title"], "alice"]


def test_row_11_calls_are_scheduled_and_grouped(place: Place, who: Any) -> None:
    with place.logged_in("alice"):
        later = place.queue.put(plugins.job_for("schedule", 0.01, "who"))
        group = place.queue.put(plugins.job_for("aggregate", "who", "who"))

    place.performed(later, group)

    assert later.result["user"] == "alice"
    assert [each["user"] for each in group.result] == ["alice", "alice"]


def test_row_12_an_expression_is_called_back_as_the_caller(place: Place) -> None:
    with place.logged_in("alice"):
        job = place.queue.put(jobs.who_am_i)
        callback = tales_callback(job, "python: [user.getId(), result['user']]")

    place.performed(job)

    assert callback.result == ["alice", "alice"]


def test_row_13_a_call_is_asked_until_it_has_its_result(place: Place) -> None:
    calls = register_in(place, Calls())
    call = calls.put(ZopeJob(jobs.who_am_i), owner="alice")
    transaction.commit()
    assert answer(call, url="/calls/1").status == 202

    place.performed(call.job)

    told = answer(call, url="/calls/1")
    assert told.status == 200
    assert told.body["result"]["name"] == "Anonymous User"


def test_row_14_the_worker_may_be_this_process_or_another(place: Place) -> None:
    with place.logged_in("alice"):
        job = place.queue.put(jobs.who_am_i)

    place.performed(job)  # by threads of this process

    assert not job.failed
    assert not Settings().dispatcher  # and without being asked, by `zasync worker --zope` only


def test_row_15_a_worker_works_the_queues_that_it_is_told(place: Place) -> None:
    queues = place.connection.root()[KEY]
    queues["mail"] = Queue()
    elsewhere = queues[""].put(jobs.nothing)
    job = queues["mail"].put(jobs.nothing)
    transaction.commit()

    with running(place.db, queue_names=["mail"]):
        until(lambda: transaction.begin() and not len(queues["mail"]), "the job")
        until(lambda: transaction.begin() and job.result is None and job.active_end, "its end")
    transaction.begin()

    assert list(queues[""]) == [elsewhere]


def test_row_16_calls_are_counted_by_their_states(place: Place) -> None:
    calls = register_in(place, Calls())
    call = calls.put(jobs.nothing)
    transaction.commit()
    assert (calls.counts().new, calls.counts().resolved) == (1, 0)
    assert call.state == CallState.NEW

    place.performed(call.job)

    assert (calls.counts().new, calls.counts().resolved) == (0, 1)


@pytest.mark.usefixtures("standing_clock")
def test_row_17_resolved_calls_go_by_whole_buckets(place: Place, standing_clock: Any) -> None:
    calls = register_in(place, Calls(retention=timedelta(hours=2)))
    call = calls.put(jobs.nothing)
    transaction.commit()
    call.job.fail(AbortedError("over"))
    standing_clock.move(hours=5)

    assert calls.rotate() == 1

    with pytest.raises(CallNotFound):
        calls.get(call.id, owner=ANYBODY)


def test_row_18_a_call_is_cancelled_or_has_to_begin_in_time(place: Place) -> None:
    job = place.queue.put(jobs.nothing)
    late = place.queue.put(jobs.nothing, begin_by=timedelta())
    transaction.commit()

    assert job.cancel("no longer wanted")
    place.performed(late)

    assert "no longer wanted" in job.result.getErrorMessage()
    assert late.result.type.__name__ == "TimeoutError"


def test_row_19_after_conflicts_it_is_tried_five_times(place: Place) -> None:
    COLLISIONS.clear()
    with place.logged_in("alice") as app:
        job = place.queue.put(ZopeJob(collide_four_times, app.news))

    place.performed(job)

    assert job.result == 5
    assert COLLISIONS == ["The news"] * 5


def test_row_21_a_plugin_says_whether_it_may_be_run_again(place: Place) -> None:
    for retry in (True, False):
        plugin = Plugin("careful", jobs.nothing, retry=retry)
        plugins.register(plugin)
        job = plugins.job_for("careful")
        plugins.unregister("careful")
        place.connection.add(job)
        assert job.getRetryPolicy().interrupted() is retry


def test_row_22_a_ping_is_answered_by_whoever_works(place: Place, manager: Any) -> None:
    newSecurityManager(None, SpecialUsers.system)  # such as a script, for whom no job may run
    asked = manager.ping()
    transaction.commit()
    assert manager.getLastPong() is None

    with running(place.db):
        until(lambda: transaction.begin() and manager.getLastPong(), "the pong", 30)

    assert manager.getLastPing() == asked
    assert manager.getLastPong() >= asked


def test_row_25_the_logs_tell_what_happens(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "zasync")
    with place.logged_in("alice"):
        job = place.queue.put(jobs.break_down)

    place.performed(job)

    loggers = {record.name for record in caplog.records}
    assert {"zasync.events", "zasync.trace"} <= loggers
    assert "break_down" in caplog.text
    assert "ValueError: it broke" in caplog.text


def test_row_26_it_is_pure_python() -> None:
    kinds = {path.suffix for path in Path(zasync.__file__).parent.rglob("*.*")}

    assert not kinds & {".so", ".pyd", ".c", ".pyx"}
