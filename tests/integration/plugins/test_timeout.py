# SPDX-License-Identifier: ZPL-2.1
"""A plugin's timeout ends its job; what is composed of plugins runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from persistent.mapping import PersistentMapping

from tests.support import handlers
from tests.support.running import Runner, Site, until
from zasync import plugins
from zasync.failure import Failure
from zasync.interfaces import COMPLETED, BadStatusError, TimeoutError
from zasync.job import Job, cancelling
from zasync.plugins import Plugin

SHORT = timedelta(milliseconds=50)


@pytest.mark.parametrize("handler", [handlers.wait_for_ever, handlers.wait_with_twisted])
def test_a_coroutine_and_a_deferred_are_cancelled(
    site: Site, runner: Runner, handler: object
) -> None:
    plugins.register(Plugin("wait", handler, timeout=SHORT))  # type: ignore[arg-type]

    job = site.put(plugins.job_for("wait", "this one"))
    site.completed(job)

    assert isinstance(job.result, Failure)
    assert job.result.type is TimeoutError
    assert job.result.getErrorMessage() == "the job took longer than its timeout of 0.05 s"
    assert handlers.ended == ["this one"]


def test_one_that_ends_in_time_has_its_own_end(site: Site, runner: Runner) -> None:
    plugins.register(Plugin("soon", handlers.fired_soon, timeout=timedelta(hours=4)))
    plugins.register(Plugin("own", handlers.raise_a_timeout_of_its_own, timeout=timedelta(hours=4)))

    fired, own = site.put(plugins.job_for("soon", "x")), site.put(plugins.job_for("own"))
    site.completed(fired, own)

    assert fired.result == "x"
    assert own.result.getErrorMessage() == "mine"
    until(lambda: not runner.dispatcher.reactor.getDelayedCalls() or is_short(runner), "no timer")


def is_short(runner: Runner) -> bool:
    """Whether no timer of hours is left."""
    calls = runner.dispatcher.reactor.getDelayedCalls()
    return all(call.getTime() - runner.dispatcher.reactor.seconds() < 3600 for call in calls)


def test_a_timeout_can_be_set_until_the_job_begins() -> None:
    job = Job(handlers.double, 4)

    with pytest.raises(TypeError, match="must be a timedelta, not 5"):
        job.timeout = 5  # type: ignore[assignment]
    with pytest.raises(ValueError, match="more than nothing"):
        job.timeout = timedelta()
    job.timeout = SHORT
    job.timeout = None
    job._status = COMPLETED
    with pytest.raises(BadStatusError, match="new or pending only"):
        job.timeout = SHORT


def test_an_aggregate_has_all_results_and_a_scheduled_call_waits(
    site: Site, runner: Runner
) -> None:
    plugins.register(Plugin("double", handlers.double))
    plugins.register(Plugin("fail", handlers.fail))

    group = site.put(plugins.job_for("aggregate", ("double", [1]), ("fail", ["no"])))
    later = site.put(plugins.job_for("schedule", 3600, "double", 2))
    soon = site.put(plugins.job_for("schedule", 0.05, "double", 3))
    site.completed(group, soon)

    assert group.result[0] == 2
    assert group.result[1].getErrorMessage() == "no"
    assert soon.result == 6
    assert later.status == "pending-status"


@pytest.mark.parametrize("conflicts", [0, 2])
def test_a_landing_commits_with_the_end_of_its_job_once(
    site: Site, runner: Runner, conflicts: int
) -> None:
    counter = site.commit(lambda: make_counter(site))
    handlers.Landings.coroutines = handlers.Landings.calls = 0
    handlers.Landings.conflicts = conflicts

    job = site.put(Job(handlers.land, int.from_bytes(counter._p_oid, "big"), 5))
    site.completed(job)

    assert job.result == 5
    assert counter["value"] == 5
    assert handlers.Landings.calls == conflicts + 1
    assert handlers.Landings.coroutines == 1


def make_counter(site: Site) -> Any:
    site.root["counter"] = PersistentMapping(value=0)
    return site.root["counter"]


def test_a_thread_goes_on_and_commits_nothing_any_more(site: Site, runner: Runner) -> None:
    counter = site.commit(lambda: make_counter(site))
    plugins.register(Plugin("hang", handlers.count_late, timeout=SHORT))

    job = site.put(plugins.job_for("hang", counter))
    after = site.commit(lambda: job.addCallback(handlers.keep_failure))
    site.completed(job, after)

    assert job.result.type is TimeoutError
    assert job.result.getErrorMessage() == "the job took longer than its timeout of 0.05 s"
    assert after.result == "TimeoutError"
    assert job.agent is not None  # whose place it keeps until the thread comes back

    handlers.go_on.set()
    site.until(lambda: site.held() == 0, "its place to be free")
    assert handlers.ended == ["told: True"]
    assert site.sees(lambda: counter["value"]) == 0
    assert job.result.type is TimeoutError


def test_a_thread_that_cannot_be_ended_is_told_of(
    site: Site, runner: Runner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: Any) -> bool:
        raise ValueError("not this one")

    monkeypatch.setattr(cancelling, "expire", refuse)
    plugins.register(Plugin("hang", handlers.wait_in_a_thread, timeout=SHORT))
    job = site.put(plugins.job_for("hang", "x"))

    until(lambda: "could not be ended" in caplog.text, "the report")
    handlers.go_on.set()
    site.completed(job)
    assert job.result == "x"
