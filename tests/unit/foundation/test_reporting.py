# SPDX-License-Identifier: ZPL-2.1
"""What the logs say: every event has a line, at its level, in the right log."""

from __future__ import annotations

import inspect
import logging
import operator
from datetime import UTC, datetime
from logging import CRITICAL, DEBUG, ERROR, INFO, WARNING
from typing import Any
from uuid import UUID

import pytest

from zasync.failure import Failure
from zasync.foundation.reporting import Events, events
from zasync.job import Job

JOB = Job(operator.mul, 3, 4)
TEXT = "job 17"
TROUBLE = ValueError("what went wrong")
FAILURE = Failure(TROUBLE)
UUID_ = UUID(int=5)
MOMENT = datetime(2026, 3, 1, tzinfo=UTC)

# name, arguments, {log: level}, and what the line must contain
LINES: list[tuple[str, tuple[Any, ...], dict[str, int], list[str]]] = [
    (
        "storage_trouble",
        ("commit", TROUBLE, 2.5),
        {"events": WARNING},
        ["commit", "ValueError", "2.5 s"],
    ),
    ("job_started", (JOB,), {"trace": DEBUG}, ["mul(3, 4)"]),
    ("job_succeeded", (JOB,), {"trace": INFO}, ["mul(3, 4)"]),
    (
        "job_failed",
        (JOB, FAILURE, CRITICAL),
        {"trace": INFO, "events": CRITICAL},
        ["what went wrong"],
    ),
    ("job_retried", (JOB, FAILURE), {"trace": INFO}, ["mul(3, 4)", "what went wrong"]),
    ("job_rescheduled", (JOB, MOMENT), {"trace": INFO}, ["mul(3, 4)", "2026-03-01"]),
    (
        "job_cancelled",
        (JOB, FAILURE),
        {"trace": INFO, "events": INFO},
        ["mul(3, 4)", "what went wrong"],
    ),
    (
        "expiry_failed",
        (17, TROUBLE),
        {"events": ERROR},
        ["job 17", "what went wrong", "restart"],
    ),
    ("job_lost", (TEXT, TROUBLE), {"events": ERROR}, ["job 17", "ReassignedError"]),
    (
        "job_in_doubt",
        (TEXT, TROUBLE),
        {"events": WARNING},
        ["job 17", "ValueError: what went wrong"],
    ),
    ("job_committed_itself", (JOB,), {"events": WARNING}, ["mul(3, 4)"]),
    ("job_unresolvable", (JOB, TROUBLE), {"events": WARNING}, ["mul(3, 4)", "what went wrong"]),
    ("job_unreadable", ("queue 'x'", TROUBLE), {"events": ERROR}, ["queue 'x'", "what went wrong"]),
    ("process_ending_error", (JOB, SystemExit()), {"events": ERROR}, ["mul(3, 4)", "SystemExit"]),
    ("tear_down_failed", (TEXT,), {"events": CRITICAL}, ["job 17"]),
    ("policy_failed", (JOB, TROUBLE), {"events": CRITICAL}, ["mul(3, 4)", "what went wrong"]),
    ("repair_failed", (TEXT, FAILURE), {"events": CRITICAL}, ["job 17", "again", "Traceback"]),
    ("commit_retried_often", (TEXT, 5, FAILURE), {"events": CRITICAL}, ["job 17", "5 times"]),
    ("group_broken_up", (7, TROUBLE), {"trace": INFO}, ["7 jobs", "run alone"]),
    ("interrupted", (JOB, True), {"events": WARNING}, ["mul(3, 4)", "True"]),
    ("taken_over", (JOB, ("main",)), {"events": WARNING}, ["mul(3, 4)", "main"]),
    (
        "partly_committed",
        (JOB, FAILURE),
        {"events": CRITICAL},
        ["mul(3, 4)", "repair"],
    ),
    ("oid_taken", (JOB, 17), {"events": CRITICAL}, ["mul(3, 4)", "17", "by hand"]),
    ("database_missing", (TROUBLE,), {"events": ERROR}, ["went wrong"]),
    ("job_parked", (TEXT,), {"events": CRITICAL}, ["job 17", "zasync parked"]),
    ("dispatcher_activated", (UUID_, object()), {"events": INFO}, [str(UUID_)]),
    ("dispatcher_deactivated", (UUID_,), {"events": INFO}, [str(UUID_)]),
    ("dispatcher_registered", (UUID_, "mail"), {"events": INFO}, [str(UUID_), "'mail'"]),
    ("dispatcher_joined", (UUID_, "mail"), {"events": INFO}, [str(UUID_), "'mail'"]),
    ("twin_is_alive", (UUID_, "mail"), {"events": ERROR}, [str(UUID_), "'mail'", "ZASYNC_UUID"]),
    ("former_self_recovered", (UUID_, "mail"), {"events": WARNING}, [str(UUID_), "'mail'"]),
    ("worker_process_started", (2, 77), {"events": INFO}, ["process 2", "77"]),
    (
        "worker_process_ended",
        (2, 77, "SIGKILL", 0.5),
        {"events": WARNING},
        ["process 2", "77", "SIGKILL", "0.5 s"],
    ),
    (
        "worker_process_not_started",
        (2, TROUBLE, 0.5),
        {"events": ERROR},
        ["process 2", "what went wrong", "0.5 s"],
    ),
    (
        "large_argument",
        ("argument 0 of f", 2_000_000),
        {"events": WARNING},
        ["argument 0 of f", "2000000", "blobs"],
    ),
    ("notices_unavailable", ("main",), {"events": INFO}, ["'main'", "psycopg2", "polls"]),
    ("notices_lost", ("main", OSError("gone"), 0.5), {"events": WARNING}, ["'main'", "0.5 s"]),
    ("notices_back", ("main",), {"events": INFO}, ["'main'", "back"]),
    (
        "storage_forgets",
        ("sqlite:///", "synchronous off"),
        {"events": WARNING},
        ["sqlite:///", "synchronous off", "full"],
    ),
    (
        "worker_process_frozen",
        (2, 77, 31.0),
        {"events": ERROR},
        ["process 2", "77", "31 s", "--frozen-after"],
    ),
    (
        "worker_process_left",
        (2, 77, "exit code 1"),
        {"events": WARNING},
        ["process 2", "77", "exit code 1"],
    ),
    ("server_died", (), {"events": ERROR}, ["ZEO server"]),
    ("server_is_back", (), {"events": INFO}, ["ZEO server"]),
    ("server_not_started", (TROUBLE, 0.5), {"events": ERROR}, ["what went wrong", "0.5 s"]),
    ("sibling_is_dead", (UUID_, "mail"), {"events": ERROR}, [str(UUID_), "'mail'"]),
    ("was_deactivated", (UUID_, "mail"), {"events": CRITICAL}, [str(UUID_), "'mail'"]),
    ("poll_failed", (TROUBLE,), {"events": ERROR}, ["what went wrong"]),
    ("poll_repeated", (TROUBLE, 0.25), {"trace": INFO}, ["what went wrong", "0.25 s"]),
    (
        "agent_failed",
        ("mail", "main", TROUBLE),
        {"events": ERROR},
        ["'mail'", "'main'", "went wrong"],
    ),
    ("polled", ({"key": 1},), {"trace": DEBUG}, ["{'key': 1}"]),
    ("queue_installed", ("mail",), {"events": INFO}, ["'mail'"]),
    ("agent_installed", ("mail", "main"), {"events": INFO}, ["'mail'", "'main'"]),
    ("pool_resized", ("mail", "main", 4), {"trace": INFO}, ["'mail'", "'main'", "4"]),
    (
        "worker_failed",
        ("mail", "main", TROUBLE),
        {"events": ERROR},
        ["'mail'", "'main'", "went wrong"],
    ),
    ("run_failed", (TEXT, TROUBLE), {"events": ERROR}, ["job 17"]),
    ("leftover_kept", ("abort", TROUBLE), {"events": ERROR}, ["abort", "what went wrong"]),
    (
        "polls_are_stuck",
        (UUID_, 12.0, "File x.py"),
        {"events": ERROR},
        [str(UUID_), "12 s", "File x.py"],
    ),
    ("polls_again", (UUID_,), {"events": WARNING}, [str(UUID_)]),
    ("poll_broke", (UUID_, TROUBLE, 0.5), {"events": ERROR}, [str(UUID_), "went wrong", "0.5 s"]),
    ("pulse_lost", (UUID_, 46.0), {"events": ERROR}, [str(UUID_), "46 s"]),
    ("pulse_found", (UUID_,), {"events": WARNING}, [str(UUID_)]),
    (
        "job_is_overdue",
        ("<Job f()>", 17, 12.0, 10.0, "File x.py"),
        {"events": ERROR},
        ["job 17", "12 s", "10 s", "<Job f()>", "File x.py"],
    ),
    ("watch_failed", (UUID_, TROUBLE), {"events": ERROR}, [str(UUID_), "what went wrong"]),
    ("left_for_recovery", (UUID_,), {"events": ERROR}, [str(UUID_)]),
    ("deactivation_failed", (UUID_, TROUBLE), {"events": ERROR}, [str(UUID_), "what went wrong"]),
    ("still_running", (TEXT, 30.0), {"events": WARNING}, ["job 17", "30 s"]),
]


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize(("name", "args", "logs", "words"), LINES, ids=[line[0] for line in LINES])
def test_an_event_is_logged_at_its_level_and_names_what_it_is_about(
    caplog: pytest.LogCaptureFixture,
    name: str,
    args: tuple[Any, ...],
    logs: dict[str, int],
    words: list[str],
) -> None:
    caplog.set_level(logging.DEBUG, "zasync")
    getattr(events, name)(*args)
    assert {record.name: record.levelno for record in caplog.records} == {
        f"zasync.{log}": level for log, level in logs.items()
    }
    line = caplog.records[-1].getMessage()
    assert [word for word in words if word not in line] == []


def test_every_event_is_in_the_table_above() -> None:
    methods = [name for name, _ in inspect.getmembers(Events, inspect.isfunction)]
    assert sorted(name for name, *_ in LINES) == sorted(methods)


@pytest.mark.parametrize("name", ["job_started", "job_succeeded", "polled"])
def test_what_nobody_reads_is_not_even_described(
    caplog: pytest.LogCaptureFixture, name: str
) -> None:
    class Costly:
        def __repr__(self) -> str:
            raise AssertionError("described")

    caplog.set_level(logging.WARNING, "zasync")
    getattr(events, name)(Costly())
    assert caplog.records == []


@pytest.mark.parametrize(
    ("name", "args"),
    [(name, args) for name, args, *_ in LINES if any(arg is TROUBLE for arg in args)],
)
@pytest.mark.parametrize(
    ("error", "shown"),
    [(Mute(), "Mute"), (ValueError("x" * 10_000_000), "xxx"), (ValueError("a\nb\x1b[2J"), "a\\nb")],
    ids=["mute", "huge", "hostile"],
)
def test_no_error_spoils_its_own_report(
    caplog: pytest.LogCaptureFixture,
    name: str,
    args: tuple[Any, ...],
    error: Exception,
    shown: str,
) -> None:
    caplog.set_level(logging.DEBUG, "zasync")
    getattr(events, name)(*[error if arg is TROUBLE else arg for arg in args])
    (record,) = caplog.records
    line = record.getMessage()
    assert len(line) < 3000
    assert "\n" not in line
    assert "\x1b" not in line
    if name not in ("job_lost", "run_failed"):
        assert shown in line


def test_a_cause_is_part_of_the_report_of_what_cannot_be_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = LookupError("outer")
    error.__cause__ = ValueError("inner")
    events.job_unreadable("queue ''", error)
    assert "LookupError('outer'), due to ValueError('inner')" in caplog.text
