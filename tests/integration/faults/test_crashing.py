# SPDX-License-Identifier: ZPL-2.1
"""The helper that crashes a user's job at every commit: it passes what is good, and only that."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from persistent.mapping import PersistentMapping

from zasync.interfaces import AbortedError
from zasync.job import Job, NeverRetry, RetryCommonForever, serial
from zasync.testing import Reactor, crashing
from zasync.testing.crashing import CRASHES, Accident, EndedBadly
from zasync.testing.pytest_plugin import crash_at_every_commit  # noqa: F401

sent: list[str] = []


class Ledger(PersistentMapping):
    """Counts what was committed, by name."""

    def note(self, name: str, *args: Any) -> str:
        self[name] = self.get(name, 0) + 1
        return name

    def note_and_send(self, name: str) -> None:
        self.note(name)
        sent.append(name)


class AlwaysLater(RetryCommonForever):
    def jobError(self, failure: Any, data_cache: Any) -> Any:
        return timedelta(seconds=1)


def fail() -> None:
    raise ValueError("never works")


def with_callback(root: Any) -> Any:
    ledger = root["ledger"] = Ledger()
    job = Job(ledger.note, "job")
    job.addCallback(Job(ledger.note, "callback"))
    return job


def each_once(root: Any, job: Any) -> None:
    assert dict(root["ledger"]) == {"job": 1, "callback": 1}


def test_a_job_of_the_database_alone_survives_all_accidents(
    crash_at_every_commit: Any,  # noqa: F811
    record_property: Any,
) -> None:
    crashes = crash_at_every_commit(with_callback, each_once)

    # The claim, the result, two for the callback, the end, and the tidying.
    assert crashes.commits >= 5
    assert crashes.tried >= len(Accident) * 5


def test_jobs_in_series_survive_all_crashes() -> None:
    def set_up(root: Any) -> Any:
        ledger = root["ledger"] = Ledger()
        return serial(Job(ledger.note, "job"), Job(ledger.note, "callback"))

    assert crashing.crash_at_every_commit(set_up, each_once, accidents=CRASHES).tried > 10


def test_what_reaches_the_outside_twice_is_found_and_the_place_is_named() -> None:
    def set_up(root: Any) -> Any:
        sent.clear()
        root["ledger"] = Ledger()
        return Job(root["ledger"].note_and_send, "letter")

    def check(root: Any, job: Any) -> None:
        assert sent == ["letter"], f"sent {len(sent)} times"

    with pytest.raises(EndedBadly) as caught:
        crashing.crash_at_every_commit(set_up, check)

    message = str(caught.value)
    assert "killed before the vote of its commit 2 (in zasync.job.attempt._commit" in message
    assert "AssertionError: sent 2 times" in message


def test_work_that_never_runs_twice_fails_instead_which_a_check_may_want() -> None:
    def set_up(root: Any) -> Any:
        sent.clear()
        root["ledger"] = Ledger()
        job = Job(root["ledger"].note_and_send, "letter")
        job.retry_policy_factory = NeverRetry
        return job

    def check(root: Any, job: Any) -> None:
        assert len(sent) <= 1
        assert root["ledger"].get("letter") == 1 or job.result.check(AbortedError)

    assert crashing.crash_at_every_commit(set_up, check, accidents=CRASHES).tried > 6


def test_a_check_that_fails_without_an_accident_is_told_from_the_others() -> None:
    def check(root: Any, job: Any) -> None:
        raise LookupError("nothing is right")

    with pytest.raises(EndedBadly, match=r"even if nothing goes wrong.*\n.*nothing is right"):
        crashing.crash_at_every_commit(with_callback, check)


def test_a_job_without_an_end_is_reported_with_its_state() -> None:
    def set_up(root: Any) -> Any:
        job = Job(fail)
        job.retry_policy_factory = AlwaysLater
        return job

    with pytest.raises(EndedBadly, match=r"in vain for the end of 1 jobs[^$]*pending-status"):
        crashing.crash_at_every_commit(set_up, lambda root, job: None)


@pytest.mark.parametrize("accident", Accident)
def test_each_accident_really_happens_and_only_some_kill(accident: Accident) -> None:
    deaths = []

    def set_up(root: Any) -> Any:
        return with_callback(root)

    def check(root: Any, job: Any) -> None:
        deaths.append(len(job.queue.dispatchers))
        each_once(root, job)

    crashes = crashing.crash_at_every_commit(set_up, check, accidents=[accident])

    assert crashes.tried >= crashes.commits - 1
    assert len(deaths) == crashes.tried + 2, "one try without, and one that had no such commit"


def test_time_is_not_taken_from_a_reactor_that_runs() -> None:
    reactor = Reactor()
    reactor.start()
    with pytest.raises(RuntimeError, match="another testing reactor runs"):
        crashing.crash_at_every_commit(with_callback, each_once)
    reactor.stop()
