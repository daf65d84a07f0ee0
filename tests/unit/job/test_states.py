# SPDX-License-Identifier: ZPL-2.1
"""The table of moves: what it allows, what it refuses, and in which words."""

from __future__ import annotations

import runpy
from typing import Any

import pytest

from zasync import interfaces
from zasync.interfaces import BadStatusError
from zasync.job import Job
from zasync.job.states import Move, table

from .things import multiply

STATUSES = [
    interfaces.NEW,
    interfaces.PENDING,
    interfaces.ASSIGNED,
    interfaces.ACTIVE,
    interfaces.CALLBACKS,
    interfaces.COMPLETED,
]
ALLOWED = {
    (Move.PUT, "new-status", "pending-status"),
    (Move.TAKE_OUT, "pending-status", "new-status"),
    (Move.ASSIGN, "new-status", "assigned-status"),
    (Move.LET_GO, "new-status", "new-status"),
    (Move.LET_GO, "assigned-status", "new-status"),
    (Move.LET_GO, "active-status", "new-status"),
    (Move.PUT_BACK, "new-status", "pending-status"),
    (Move.PUT_BACK, "assigned-status", "pending-status"),
    (Move.PUT_BACK, "active-status", "pending-status"),
    (Move.START, "new-status", "active-status"),
    (Move.START, "assigned-status", "active-status"),
    (Move.RESCHEDULE, "new-status", "pending-status"),
    (Move.RESCHEDULE, "active-status", "pending-status"),
    (Move.RETRY_CALLBACK, "active-status", "new-status"),
    (Move.FINISH, "active-status", "callback-status"),
    (Move.FAIL, "new-status", "callback-status"),
    (Move.FAIL, "pending-status", "callback-status"),
    (Move.FAIL, "assigned-status", "callback-status"),
    (Move.COMPLETE, "callback-status", "completed-status"),
}


def job_in(status: str) -> Any:
    job = Job(multiply, 2)
    job._status = status
    return job


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("move", Move)
def test_a_move_is_made_if_the_table_has_it_and_else_refused(move: Move, status: str) -> None:
    job = job_in(status)
    target = {(m, source): target for m, source, target in ALLOWED}.get((move, status))

    if target is None:
        with pytest.raises(BadStatusError):
            job.move(move)
        assert job.status == status
    else:
        job.move(move)
        assert job.status == target


def test_a_refusal_names_the_job_and_the_statuses() -> None:
    with pytest.raises(BadStatusError) as raised:
        job_in("completed-status").move(Move.START)

    message = str(raised.value)
    assert "things.multiply(2)" in message
    assert "started" in message
    assert "its status is completed-status" in message
    assert "new-status or assigned-status" in message


def test_the_table_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_module("zasync.job", run_name="__main__")

    lines = capsys.readouterr().out.splitlines()
    assert lines == table().splitlines()
    assert len(lines) == len(Move) + 1
    assert "put in a queue" in lines[1]


def test_a_completed_job_has_no_further_move() -> None:
    assert all("completed-status" not in move.sources for move in Move)
