# SPDX-License-Identifier: ZPL-2.1
"""A cancel of a run that may have changed other databases: what that has committed counts."""

from __future__ import annotations

from typing import Any

import pytest
import transaction

from tests.support.two import QUEUES, TwoBench
from zasync import local, testing
from zasync.interfaces import ACTIVE, COMPLETED, CancelledError
from zasync.job import Job
from zasync.testing.faults import Killed

from . import things
from .test_two_databases import HALF, counted, die, no_slots_in_use, put, two  # noqa: F401

pytestmark = pytest.mark.usefixtures("no_slots_in_use")


def cancel_elsewhere(two: TwoBench, oid: bytes, reason: str | None = None) -> list[bool]:  # noqa: F811
    manager = transaction.TransactionManager()
    connection = two.db.open(transaction_manager=manager)
    try:
        job = connection.get_connection(QUEUES).get(oid)
        answers = [job.cancel(reason), job.cancel(reason)]
        manager.commit()
        return answers
    finally:
        manager.abort()
        connection.close()


def test_what_was_not_committed_elsewhere_is_cancelled(two: TwoBench) -> None:  # noqa: F811
    told: list[Any] = []

    def run() -> None:
        told.append(cancel_elsewhere(two, oid, "stop"))
        told.append(local.is_cancelled())

    oid = put(two, run)
    job = two.home.get(oid)
    callback = job.addCallback(things.same)
    two.commit()
    with pytest.raises(Exception, match="taken away while it ran"):
        two.work()
    two.begin()
    assert told == [[True, False], True]
    assert (job.status, job.cancelled) == (ACTIVE, False), "its end is left to another job"
    two.work()
    assert (job.status, job.cancelled) == (COMPLETED, True)
    assert job.result.getErrorMessage().endswith("was cancelled: stop")
    assert callback.result.check(CancelledError)
    assert counted(two) == 0


@pytest.mark.parametrize("when", ["before its death is known", "afterwards"])
def test_what_was_committed_elsewhere_is_its_end(two: TwoBench, when: str) -> None:  # noqa: F811
    """Its process dies between the two commits, and then somebody cancels it."""
    oid = put(two, lambda: "done")
    with testing.fail_points.armed(HALF, die(two)), pytest.raises(Killed):
        two.work()
    if when == "afterwards":
        two.restart()
    else:
        two.storage.revive()
        two.open()
    job = two.home.get(oid)
    assert job.status == ACTIVE
    assert job.cancel()
    two.commit()
    if when != "afterwards":
        two.restart()
    while two.work():
        pass
    job = two.home.get(oid)
    assert (job.status, job.result, job.cancelled) == (COMPLETED, "done", False)
    assert counted(two) == 1


def test_one_that_waits_is_ended_at_once(two: TwoBench) -> None:  # noqa: F811
    """Nothing runs then that could have committed anything."""
    inner = two.keep(Job(things.multiply, 1))
    oid = put(two, lambda: None)
    job = two.agent.claimJob()
    assert job._p_oid == oid
    job.start(5)
    job.wait_for(inner)
    two.commit()
    assert job.cancel()
    assert job.status == COMPLETED


def test_a_job_called_by_hand_has_nobody_who_would_look(two: TwoBench) -> None:  # noqa: F811
    job = two.keep(Job(things.multiply, 1))
    job.start(5)
    two.commit()
    with pytest.raises(ValueError, match="it lies in no queue"):
        job.cancel()
