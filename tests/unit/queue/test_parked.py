# SPDX-License-Identifier: ZPL-2.1
"""The parked jobs of a queue: in order, found, put back in numbers, and forgotten."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from zope.interface.verify import verifyObject

from tests.support.clocks import StandingClock
from tests.support.queues import View, numbered, numbers
from zasync.failure import Failure
from zasync.interfaces import COMPLETED, IParked, PoisonError
from zasync.job import Job

pytestmark = pytest.mark.usefixtures("standing_clock")


class PassingJob(Job):
    """A job whose class one of the processes does not have."""


def park(view: View, job: Any) -> Any:
    """Have `job` be one that was put and is parked now."""
    view.connection.add(job)
    job._status, job._parent = "active-status", view.queue
    job.finish(Failure(PoisonError("died")))
    view.queue.parked.add(job)
    view.commit()
    return job


def test_the_collection_fulfils_its_interface(view: View) -> None:
    assert verifyObject(IParked, view.queue.parked)


def test_the_newest_comes_first_also_of_one_moment(
    view: View, standing_clock: StandingClock
) -> None:
    parked = view.queue.parked
    assert (len(parked), bool(parked), list(parked)) == (0, False, [])
    jobs = [park(view, numbered(number)) for number in (1, 2)]
    standing_clock.move(days=30)
    jobs.append(park(view, numbered(3)))

    assert numbers(parked) == [3, 2, 1]
    assert (len(parked), bool(parked)) == (3, True)
    assert all(job in parked for job in jobs)


@pytest.mark.parametrize("make", [lambda: numbered(9), lambda: None, lambda: "job"])
def test_what_is_not_parked_is_not_found(view: View, make: Any) -> None:
    park(view, numbered(1))
    other = make()

    assert other not in view.queue.parked
    for act in (view.queue.parked.put_back, view.queue.parked.discard):
        with pytest.raises(LookupError, match="is not parked in this queue"):
            act(other)


def test_another_job_that_ended_at_that_moment_is_not_found(view: View) -> None:
    park(view, numbered(1))
    other = numbered(2)
    other._status = "active-status"
    other.finish(4)
    assert other not in view.queue.parked


def test_a_discarded_job_is_forgotten(view: View) -> None:
    one, two = park(view, numbered(1)), park(view, numbered(2))
    view.queue.parked.discard(one)
    assert list(view.queue.parked) == [two]
    assert len(view.queue) == 0
    assert one.status == COMPLETED


def test_many_are_put_back_in_bounded_numbers_oldest_first(view: View) -> None:
    for number in range(7):
        park(view, numbered(number))

    counts = []
    while count := view.queue.parked.put_back_all(limit=3):
        counts.append(count)
        view.commit()

    assert counts == [3, 3, 1]
    assert numbers(view.queue) == list(range(7))
    assert len(view.queue.parked) == 0


def odd(job: Any) -> bool:
    return bool(job.args[0] % 2)


def test_a_filter_says_which(view: View) -> None:
    for number in range(5):
        park(view, numbered(number))

    assert view.queue.parked.put_back_all(odd) == 2

    assert numbers(view.queue) == [1, 3]
    assert numbers(view.queue.parked) == [4, 2, 0]
    assert view.queue.parked.put_back_all(odd) == 0


def test_what_cannot_be_read_here_stays(
    view: View, open_view: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    park(view, PassingJob(len, "a"))
    park(view, numbered(1))
    other = open_view()
    monkeypatch.delattr(sys.modules[__name__], "PassingJob")

    assert other.queue.parked.put_back_all() == 1

    assert len(other.queue.parked) == 1
    (left,) = other.queue.parked
    with pytest.raises(LookupError):
        other.queue.parked.discard(left)


def test_a_job_whose_quota_is_gone_stays_parked(view: View) -> None:
    view.queue.quotas.create("catalog")
    job = park(view, numbered(1, "catalog"))
    view.queue.quotas.remove("catalog")

    with pytest.raises(ValueError, match="unknown quota name"):
        view.queue.parked.put_back(job)

    assert list(view.queue.parked) == [job]


def test_a_queue_of_before_gets_its_collection_when_it_is_needed(view: View) -> None:
    del view.queue._parked
    view.commit()
    assert len(view.queue.parked) == 0
    job = park(view, numbered(1))
    assert list(view.queue.parked) == [job]
