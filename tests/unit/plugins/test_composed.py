# SPDX-License-Identifier: ZPL-2.1
"""schedule and aggregate: made and refused where they are asked for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.support import handlers
from tests.support.clocks import StandingClock
from zasync import plugins
from zasync.interfaces import NotStorableError
from zasync.job import Job, NeverRetry
from zasync.plugins import Plugin, UnknownPlugin


@pytest.fixture(autouse=True)
def double() -> None:
    plugins.register(Plugin("double", handlers.double, timeout=timedelta(seconds=9), retry=False))


def test_schedule_is_the_job_of_the_other_plugin_for_later(standing_clock: StandingClock) -> None:
    job = plugins.job_for("schedule", 90, "double", number=4)

    assert job.callable is handlers.double
    assert job.begin_after == standing_clock.now() + timedelta(seconds=90)
    assert job.timeout == timedelta(seconds=9)
    assert isinstance(job.getRetryPolicy(), NeverRetry)


def test_schedules_in_each_other_take_the_later_time(standing_clock: StandingClock) -> None:
    job = plugins.job_for("schedule", 5, "schedule", 90, "double", 4)

    assert job.begin_after == standing_clock.now() + timedelta(seconds=90)


@pytest.mark.parametrize(
    ("seconds", "error"),
    [
        (-1, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        (367 * 86400, ValueError),
        ("5", TypeError),
        (True, TypeError),
        (None, TypeError),
    ],
)
def test_schedule_refuses_what_is_no_time(seconds: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="schedule"):
        plugins.job_for("schedule", seconds, "double", 4)


def test_schedule_refuses_an_unknown_plugin_and_bad_arguments_at_the_call() -> None:
    with pytest.raises(UnknownPlugin):
        plugins.job_for("schedule", 5, "dubble", 4)
    with pytest.raises(TypeError, match="plugin 'double'"):
        plugins.job_for("schedule", 5, "double")
    with pytest.raises(TypeError, match="plugin 'schedule'"):
        plugins.job_for("schedule")


def test_aggregate_makes_a_group_of_the_calls() -> None:
    own = Job(handlers.fail, "no")
    group = plugins.job_for(
        "aggregate", ("double", [1]), ["double", (), {"number": 2}], own, ("double", (3,))
    )

    members = group.args
    assert [member.callable for member in members] == [
        handlers.double,
        handlers.double,
        handlers.fail,
        handlers.double,
    ]
    assert members[2] is own
    assert all(isinstance(members[index].getRetryPolicy(), NeverRetry) for index in (0, 1, 3))


@pytest.mark.parametrize(
    "call", [7, None, (), ("double", 4), ("double", [4], 5), ("double", [4], {}, 5), {"a": 1}]
)
def test_aggregate_names_the_call_that_is_none(call: Any) -> None:
    with pytest.raises(TypeError, match="call 1 of the aggregate is a name"):
        plugins.job_for("aggregate", ("double", [1]), call)


def test_aggregate_refuses_an_unknown_plugin_and_says_which_call_is_bad() -> None:
    with pytest.raises(UnknownPlugin, match="'dubble'"):
        plugins.job_for("aggregate", ("double", [1]), "dubble")
    with pytest.raises(TypeError) as raised:
        plugins.job_for("aggregate", ("double", [1]), ("double",))
    assert raised.value.__notes__ == ["it is call 1 of the aggregate"]


def test_aggregate_has_bounds() -> None:
    with pytest.raises(ValueError, match="at least one call"):
        plugins.job_for("aggregate")
    with pytest.raises(ValueError, match="up to 10000 calls, not 10001"):
        plugins.job_for("aggregate", *[("double", (1,))] * 10_001)


def test_a_callable_that_cannot_be_stored_is_refused_when_it_is_put() -> None:
    job = plugins.job_for(lambda: 1)

    with pytest.raises(NotStorableError, match="lambda"):
        job.check_storable(None)
