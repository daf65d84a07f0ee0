# SPDX-License-Identifier: ZPL-2.1
"""The call manager as code uses it: who makes a call, who sees it, and who works."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import transaction
from AccessControl.SecurityManagement import newSecurityManager, noSecurityManager
from zExceptions import NotFound

from tests.integrations.zope import jobs
from tests.support.zope_place import Place, opened_place
from zasync import plugins
from zasync.calls import CallNotFound
from zasync.integrations.zope.expressions import BadExpression
from zasync.integrations.zope.job import ZopeJob
from zasync.integrations.zope.manager import AsynchronousCallManager, NobodyAsks
from zasync.interfaces import BadStatusError
from zasync.job import Job
from zasync.plugins import Plugin, UnknownPlugin


@pytest.fixture
def manager(place: Place) -> Any:
    return add_manager(place)


def add_manager(place: Place, **options: Any) -> Any:
    place.app._setObject("calls", AsynchronousCallManager("calls", **options))
    transaction.commit()
    return place.app.calls


def become(place: Place, name: str) -> None:
    newSecurityManager(None, place.user(name))


@pytest.fixture
def who() -> Iterator[Plugin]:
    plugins.provide_zope_jobs(ZopeJob)
    yield plugins.register(Plugin("who", jobs.who_am_i, zope_aware=True))
    plugins.unregister("who")
    plugins.provide_zope_jobs(None)


def test_a_callable_a_job_and_a_plugin_can_be_called(place: Place, manager: Any, who: Plugin):
    """Row 3."""
    become(place, "alice")

    by_name = manager.putSessionCall("who")
    function = manager.putSessionCall(jobs.who_am_i)
    job = manager.putSessionCall(Job(sorted, [2, 1]))
    place.performed(by_name.call.job, function.call.job, job.call.job)

    become(place, "alice")
    assert manager.getCall(by_name.id).result["user"] == "alice"
    assert manager.getCall(function.id).result["user"] == "alice"
    assert manager.getCall(job.id).result == [1, 2]
    assert [by_name.label, job.label] == ["who", "builtins.sorted"]


def test_a_method_is_called_if_its_user_may_call_it_then(place: Place, manager: Any):
    become(place, "alice")
    call = manager.putSessionCall(place.app.news.manage_delObjects, ["nothing"])

    place.performed(call.call.job)

    assert call.outcome == "failed"
    assert "Unauthorized" in call.call.failure.getTraceback()


@pytest.mark.parametrize("what", ["nonsense", "os:system", "os.system", ""])
def test_a_name_that_is_no_plugin_is_refused_and_nothing_is_put(
    place: Place, manager: Any, what: str
):
    """Row 6."""
    become(place, "boss")

    with pytest.raises(UnknownPlugin):
        manager.putCall(what)

    assert len(place.queue) == 0
    assert len(manager.register) == 0


def test_a_job_has_its_arguments_already(place: Place, manager: Any):
    become(place, "boss")

    with pytest.raises(TypeError, match="has its arguments already"):
        manager.putCall(Job(sorted), [2, 1])


def test_a_session_call_needs_somebody_who_asks(place: Place, manager: Any):
    noSecurityManager()
    without_request = place.connection.root()["Application"].calls

    with pytest.raises(NobodyAsks):
        without_request.putSessionCall(jobs.nothing)


def test_what_aborts_was_not_called(place: Place, manager: Any):
    """Row 3."""
    become(place, "alice")
    call = manager.putSessionCall(jobs.nothing)
    transaction.abort()

    with pytest.raises(CallNotFound):
        manager.getCall(call.id)


def test_somebody_elses_call_is_not_found_and_a_404(place: Place, manager: Any):
    """Row 4."""
    become(place, "alice")
    call = manager.putSessionCall(jobs.nothing)
    become(place, "boss")
    of_nobody = manager.putCall(jobs.nothing)
    transaction.commit()

    become(place, "bob")
    for call_id in (call.id, of_nobody.id, "nothing", "", 17, None):
        with pytest.raises(NotFound) as caught:
            manager.getCall(call_id)
        assert isinstance(caught.value, CallNotFound)
        assert caught.value.getStatus() == 404
    become(place, "boss")
    assert manager.getCall(call.id).id == call.id


def test_a_call_that_failed_is_done_again_under_its_id(place: Place, manager: Any):
    become(place, "alice")
    call = manager.putSessionCall(jobs.break_down)
    with pytest.raises(BadStatusError):
        call.retry()
    place.performed(call.call.job)
    assert (call.state, call.outcome, call.error) == ("resolved", "failed", "it broke")
    assert call.result is None

    call.retry()

    assert (call.state, call.outcome, call.error) == ("new", None, None)
    assert call.cancel()
    assert not call.cancel()
    assert call.outcome == "cancelled"


def test_an_expression_is_called_back_as_whoever_added_it(place: Place, manager: Any):
    """Row 12."""
    become(place, "alice")
    call = manager.putSessionCall(jobs.who_am_i)
    call.addCallback("python: [user.getId(), result['user'], here.getId()]", context=place.app.news)
    with pytest.raises(BadExpression):
        call.addCallback("python: (")

    place.performed(call.call.job)

    [proxy] = call.call.job.callbacks
    assert proxy.success.result == ["alice", "alice", "news"]


def test_calls_work_with_the_queues_in_a_database_of_their_own(who: Plugin):
    with opened_place("async") as place:
        manager = add_manager(place)
        become(place, "alice")
        call = manager.putSessionCall("who")

        place.performed(call.call.job)

        become(place, "alice")
        assert manager.getCall(call.id).result["user"] == "alice"
        assert manager.live_workers() in (0, 1)
        become(place, "boss")
        assert manager.lenResolvedCalls() == 1


def test_it_is_told_when_there_is_no_queue(place: Place):
    manager = add_manager(place, queue="nowhere")
    become(place, "boss")

    assert manager.live_workers() == 0
    assert manager.getLastPong() is None
    for ask in (manager.ping, lambda: manager.putCall(jobs.nothing)):
        with pytest.raises(LookupError, match="nowhere"):
            ask()
    with pytest.raises(LookupError, match="no queue"):
        AsynchronousCallManager("new").queue()


def test_a_dispatchers_own_ping_is_a_sign_of_life(place: Place, manager: Any):
    """Row 22."""
    become(place, "boss")
    record = place.queue.dispatchers.register(UUID(int=1))
    assert (manager.getLastPing(), manager.getLastPong(), manager.live_workers()) == (None, None, 0)

    record.activate()

    assert manager.getLastPong() == record.last_ping.value
    assert manager.live_workers() == 1
    record.last_ping.value -= timedelta(hours=1)
    assert manager.live_workers() == 0


def test_a_question_that_waits_is_not_asked_again(place: Place, manager: Any):
    """Row 22."""
    become(place, "boss")
    asked = manager.ping()
    assert manager.ping() == asked
    assert len(place.queue) == 1

    place.performed(manager._ping.job)

    answered = manager._ping.last_answer
    assert manager.getLastPong() >= answered >= asked
    become(place, "boss")
    assert manager.ping() > asked
    assert manager._ping.last_answer == answered


def test_settings_have_a_floor(place: Place, manager: Any):
    """Row 2."""
    manager.poll_interval = timedelta(0)
    manager.rotation_period = timedelta(hours=1)
    transaction.commit()

    assert manager.poll_interval == timedelta(seconds=2)
    assert manager.rotation_period == timedelta(hours=1)
    assert manager.queue_name == ""
    with pytest.raises(ValueError, match="retention"):
        manager.rotation_period = timedelta(0)


def test_it_is_no_thing_to_copy(place: Place, manager: Any):
    assert not manager.cb_isCopyable()
