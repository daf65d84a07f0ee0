# SPDX-License-Identifier: ZPL-2.1
"""What a work remembers, and how patient a step is: parts that need no Plone running."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ZODB.POSException import ConflictError

from zasync.failure import Failure
from zasync.integrations.plone import work as works
from zasync.integrations.plone.steps import RetryStep
from zasync.integrations.plone.work import Came, Work
from zasync.job import Job


def test_a_work_goes_on_where_it_was_and_counts_what_came() -> None:
    work = Work(["a", "b", "c"])

    assert work.next_items(2) == ["a", "b"]
    work.note(Came.CHANGED)
    work.note(Came.REFUSED, "no")
    assert work.next_items(5) == ["c"]
    assert work.line() == "2 of 3, 1 not changed"
    assert not work.is_done
    work.note(Came.ALREADY)

    assert work.is_done
    assert work.next_items(5) == []
    assert work.report() == {
        "total": 3,
        "done": 3,
        "changed": 1,
        "already": 1,
        "refused": 1,
        "missing": 0,
        "failed": 0,
        "problems": [{"item": "b", "problem": "refused", "reason": "no"}],
        "problems_left_out": 0,
    }


def test_a_report_has_bounds(monkeypatch: Any) -> None:
    monkeypatch.setattr(works, "TOLD_AT_MOST", 2)
    work = Work([str(number) for number in range(5)])
    for _ in range(5):
        work.note(Came.FAILED, "x" * 10_000)

    report = work.report()

    assert [each["item"] for each in report["problems"]] == ["0", "1"]
    assert report["problems_left_out"] == 3
    assert len(report["problems"][0]["reason"]) == works.LONGEST_REASON


def test_a_step_is_tried_again_at_once_then_later_and_in_the_end_no_more() -> None:
    policy = RetryStep(Job(len, ()))
    conflict, cache = Failure(ConflictError()), {}
    decisions = [policy.commitError(conflict, cache) for _ in range(121)]

    assert decisions[:5] == [True] * 5
    assert decisions[5] == timedelta(seconds=1)
    assert decisions[119] == timedelta(seconds=30)
    assert decisions[120] is False
    assert policy.jobError(Failure(ValueError("its own fault")), {}) is False
