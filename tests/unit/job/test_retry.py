# SPDX-License-Identifier: ZPL-2.1
"""The retry policies as objects: what they answer, count, wait and remember."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta
from typing import Any

import pytest
from transaction.interfaces import TransientError
from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import ConflictError, ReadConflictError, ReadOnlyError
from zope.interface.verify import verifyObject

from tests.support.clocks import StandingClock
from zasync.failure import Failure
from zasync.foundation import attempts
from zasync.interfaces import IRetryPolicy
from zasync.job import Job, NeverRetry, RetryCommonForever, RetryCommonFourTimes

from .things import multiply

POLICIES = [RetryCommonFourTimes, RetryCommonForever, NeverRetry]


class OurTransientError(TransientError):
    pass


@pytest.fixture
def job() -> Any:
    return Job(multiply, 1)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_keeps_its_interface(policy: Any, job: Any) -> None:
    assert verifyObject(IRetryPolicy, policy(job))


@pytest.mark.parametrize("question", ["jobError", "commitError"])
@pytest.mark.parametrize("error", [ConflictError(), ReadConflictError(), OurTransientError()])
def test_a_conflict_is_tried_five_times_in_all(job: Any, question: str, error: Exception) -> None:
    policy, cache = RetryCommonFourTimes(job), {}

    answers = [getattr(policy, question)(Failure(error), cache) for _ in range(5)]

    assert answers == [True] * 4 + [False]
    assert cache["conflicts"] == 5


def test_conflicts_and_commit_errors_count_together(job: Any) -> None:
    policy, cache = RetryCommonFourTimes(job), {}

    answers = [policy.jobError(Failure(ConflictError()), cache) for _ in range(3)]
    answers += [policy.commitError(Failure(ConflictError()), cache) for _ in range(2)]

    assert answers == [True] * 4 + [False]


@pytest.mark.parametrize("question", ["jobError", "commitError"])
@pytest.mark.parametrize("policy", [RetryCommonFourTimes, RetryCommonForever])
@pytest.mark.parametrize("error", [ClientDisconnected(), ReadOnlyError()])
def test_a_storage_that_is_away_is_waited_for_without_end(
    job: Any, standing: StandingClock, policy: Any, question: str, error: Exception
) -> None:
    policy, cache = policy(job), {}

    answers = [getattr(policy, question)(Failure(error), cache) for _ in range(15)]

    assert answers == [True] * 15
    assert standing.waits == [5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 60, 60, 60]
    assert cache["disconnects"] == 15


def test_a_stop_cuts_the_wait_short(job: Any) -> None:
    stop = threading.Event()
    stop.set()
    token = attempts.stop_signal.set(stop)
    try:
        with pytest.raises(attempts.Stopped):
            RetryCommonFourTimes(job).jobError(Failure(ClientDisconnected()), {})
    finally:
        attempts.stop_signal.reset(token)


@pytest.mark.parametrize("question", ["jobError", "commitError"])
def test_any_other_error_is_not_retried(job: Any, question: str) -> None:
    assert getattr(RetryCommonFourTimes(job), question)(Failure(KeyError()), {}) is False


def test_an_os_error_is_the_storages_only_when_it_comes_from_a_commit(job: Any) -> None:
    policy = RetryCommonFourTimes(job)

    assert policy.jobError(Failure(OSError()), {}) is False
    assert policy.commitError(Failure(OSError()), {}) is True


def test_nine_interruptions_are_allowed_and_counted(job: Any) -> None:
    policy = RetryCommonFourTimes(job)

    answers = [policy.interrupted() for _ in range(10)]

    assert answers == [True] * 9 + [False]
    assert policy.data.get("interruptions") == 10


def test_what_is_cached_is_kept_except_for_the_next_wait(job: Any) -> None:
    policy = RetryCommonFourTimes(job)
    cache: dict[str, Any] = {}
    policy.jobError(Failure(ConflictError()), cache)
    policy.jobError(Failure(ClientDisconnected()), cache)

    policy.updateData(cache)

    assert policy.data == {"conflicts": 1, "disconnects": 1}
    assert policy.jobError(Failure(ConflictError()), {}) is True
    assert [policy.jobError(Failure(ConflictError()), {"conflicts": 4})] == [False]


def test_what_is_known_already_does_not_change_the_record(job: Any) -> None:
    policy = RetryCommonFourTimes(job)
    policy.updateData({"conflicts": 1})
    before = policy.data

    policy.updateData({"conflicts": 1, "next_wait": 5})

    assert policy.data is before


def test_forever_has_no_limits(job: Any) -> None:
    policy, cache = RetryCommonForever(job), {}

    assert all(policy.jobError(Failure(ConflictError()), cache) for _ in range(50))
    assert all(policy.commitError(Failure(ConflictError()), cache) for _ in range(50))
    assert all(policy.interrupted() for _ in range(50))
    assert policy.jobError(Failure(KeyError()), cache) is False


def test_forever_repeats_any_commit_error_with_pauses_and_says_so_now_and_then(
    job: Any, standing: StandingClock, caplog: pytest.LogCaptureFixture
) -> None:
    policy, cache = RetryCommonForever(job), {}

    answers = [policy.commitError(Failure(KeyError("odd")), cache) for _ in range(10)]

    assert answers == [True] * 10
    assert standing.waits == [5, 10, 15, 20, 25, 30, 35, 40, 45, 50]
    critical = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert len(critical) == 2
    assert "multiply" in critical[0].getMessage()
    assert "odd" in critical[0].getMessage()


def test_never_is_never(job: Any) -> None:
    policy = NeverRetry(job)
    policy.updateData({"conflicts": 1})

    assert policy.jobError(Failure(ConflictError()), {}) is False
    assert policy.commitError(Failure(ClientDisconnected()), {}) is False
    assert policy.interrupted() is False
    assert policy.data == {}


def test_the_last_interruption_has_its_time(job: Any, standing: StandingClock) -> None:
    policy = RetryCommonFourTimes(job)
    standing.move(hours=1)

    policy.interrupted()

    assert policy.data["last_interruption"] == standing.now()
    assert standing.now() - timedelta(hours=1) != policy.data["last_interruption"]
