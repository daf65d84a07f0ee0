# SPDX-License-Identifier: ZPL-2.1
"""Quotas: who gets a place, how long it is kept, and how it becomes free."""

from __future__ import annotations

import operator
from datetime import timedelta
from typing import Any

import pytest
from zope.interface.verify import verifyObject

from tests.support.clocks import StandingClock
from tests.support.queues import View, numbered, numbers
from zasync.interfaces import (
    ACTIVE,
    CALLBACKS,
    COMPLETED,
    FullError,
    IObjectAdded,
    IQuota,
    IQuotas,
)
from zasync.job import Job
from zasync.queue import Queue, Quota

NAME = "catalog"
statuses_seen: list[tuple[str, bool]] = []


def look_at_quota(job: Any) -> None:
    """A callable: notes whether its job holds a place."""
    quota = job.queue_seen.quotas[NAME]
    statuses_seen.append((job.status, quota.has(job)))


class SeeingJob(Job):
    queue_seen: Any = None


@pytest.fixture
def quota(view: View) -> Quota:
    return view.queue.quotas.create(NAME)


def put(view: View, *labels: int, names: tuple[str, ...] = (NAME,)) -> list[Any]:
    jobs = [view.queue.put(numbered(label, *names)) for label in labels]
    view.commit()
    return jobs


def keep(view: View, job: Any) -> Any:
    """Have `job`, which was claimed by hand, referred to by something stored."""
    view.root[f"kept {len(view.root)}"] = job
    view.commit()
    return job


# The mapping


def test_quotas_fulfil_their_interfaces(view: View, quota: Quota) -> None:
    assert verifyObject(IQuotas, view.queue.quotas)
    assert verifyObject(IQuota, quota)


def test_a_queue_begins_without_quotas(view: View) -> None:
    assert list(view.queue.quotas) == []
    assert not view.queue.quotas
    assert view.queue.quotas.parent is view.queue


def test_a_quota_is_made_with_a_size_of_one_and_told_about(view: View, heard: Any) -> None:
    events = heard(IObjectAdded)
    quota = view.queue.quotas.create("testing")
    assert (quota.name, quota.parent, quota.size) == ("testing", view.queue.quotas, 1)
    assert view.queue.quotas.create("account", size=3).size == 3
    assert list(view.queue.quotas) == ["account", "testing"]
    assert events[0].object is quota
    assert (events[0].parent, events[0].name) == (view.queue.quotas, "testing")


def test_a_quota_that_exists_is_not_made_anew(view: View, quota: Quota) -> None:
    with pytest.raises(ValueError, match="there is a quota 'catalog' already"):
        view.queue.quotas.create(NAME, 5)
    assert view.queue.quotas[NAME] is quota


def test_a_quota_that_is_removed_is_gone(view: View, quota: Quota) -> None:
    view.queue.quotas.remove(NAME)
    assert NAME not in view.queue.quotas
    assert (quota.name, quota.parent) == (None, None)
    with pytest.raises(KeyError):
        view.queue.quotas.remove(NAME)


@pytest.mark.parametrize("size", [-1, 1.5, "2", None, True])
def test_only_a_number_of_jobs_is_a_size(view: View, quota: Quota, size: Any) -> None:
    with pytest.raises(ValueError, match="the size of a quota"):
        quota.size = size
    with pytest.raises(ValueError, match="the size of a quota"):
        view.queue.quotas.create("other", size)
    assert quota.size == 1
    assert "other" not in view.queue.quotas


# Names in jobs


def test_quota_names_are_a_tuple_and_not_a_bare_string() -> None:
    job = numbered(1)
    job.quota_names = [NAME]
    assert job.quota_names == (NAME,)
    with pytest.raises(TypeError, match="catalog"):
        job.quota_names = NAME


def test_a_waiting_job_cannot_be_given_an_unknown_quota(view: View, quota: Quota) -> None:
    (job,) = put(view, 1)
    with pytest.raises(ValueError, match="unknown quota name") as caught:
        job.quota_names = (NAME, "other")
    assert caught.value.args == ("unknown quota name", "other")
    assert job.quota_names == (NAME,)
    assert numbers(view.queue.claims()) == [1]


def test_a_waiting_job_keeps_its_place_in_line_when_its_quotas_change(
    view: View, quota: Quota, standing_clock: StandingClock
) -> None:
    jobs = put(view, *range(70), names=())
    later = view.queue.put(numbered(100), begin_after=standing_clock.now() + timedelta(hours=1))
    for job in [*jobs[10:60:7], later]:
        job.quota_names = (NAME,)
    assert numbers(view.queue) == [*range(70), 100]
    for job in jobs[10:60:7]:
        job.quota_names = ()
    assert numbers(view.queue) == numbers([*view.queue.claims(), later])
    assert list(view.queue) == [later]


def test_a_job_put_back_stays_first_when_its_quotas_change(view: View, quota: Quota) -> None:
    put(view, 1, 2, names=())
    job = view.queue.claim()
    view.queue.putBack(job)
    job.quota_names = (NAME,)
    assert numbers(view.queue) == [1, 2]


def test_several_jobs_put_back_change_their_quotas_and_stay_first(
    view: View, quota: Quota, standing_clock: StandingClock
) -> None:
    put(view, 1, 2, 3, names=())
    first, second = view.queue.claim(), view.queue.claim()
    view.queue.putBack(second)
    view.queue.quotas.create("other")
    second.quota_names = (NAME,)
    view.queue.putBack(first)
    first.quota_names = (NAME,)
    assert numbers(view.queue) == [1, 2, 3]
    second.quota_names = first.quota_names = ()
    assert sorted(numbers(view.queue)) == [1, 2, 3]


def test_a_waiting_job_given_a_full_quota_waits_and_one_freed_of_it_runs(
    view: View, quota: Quota
) -> None:
    quota.size = 0
    free, bound = put(view, 1, names=()) + put(view, 2)
    free.quota_names, bound.quota_names = (NAME,), ()
    assert numbers(view.queue.claims()) == [2]


# Places


def test_a_full_quota_leaves_the_job_waiting_and_others_pass(view: View, quota: Quota) -> None:
    first, second = put(view, 1, 2)
    other = put(view, 3, names=())[0]
    assert list(view.queue.claims()) == [first, other]
    assert list(view.queue) == [second]
    assert list(quota) == [first]
    assert len(quota) == 1
    assert quota.filled


def test_the_life_of_a_quota_of_two_that_is_lowered_to_one(view: View, quota: Quota) -> None:
    quota.size = 2
    first, second, third = put(view, 1, 2, 3)
    assert [view.queue.claim(), view.queue.claim()] == [first, second]
    keep(view, first), keep(view, second)
    assert view.queue.claim() is None
    assert list(quota) == [first, second]
    quota.size = 1
    assert quota.filled
    first()
    assert view.queue.claim() is None
    assert list(quota) == [second]
    second()
    assert keep(view, view.queue.claim()) is third
    assert list(quota) == [third]
    third()
    assert view.queue.claim() is None
    assert len(quota) == 1  # nobody has looked since
    quota.clean()
    assert len(quota) == 0
    assert not quota.filled
    assert list(quota) == []


def test_raising_the_size_lets_more_jobs_through(view: View, quota: Quota) -> None:
    put(view, 1, 2, 3)
    assert numbers(view.queue.claims()) == [1]
    quota.size = 3
    assert numbers(view.queue.claims()) == [2, 3]


def test_a_job_needs_a_place_in_each_of_its_quotas(view: View, quota: Quota) -> None:
    other = view.queue.quotas.create("other", size=2)
    put(view, 1, 2, names=(NAME, "other"))
    put(view, 3, 4, names=("other",))
    assert numbers(view.queue.claims()) == [1, 3]
    assert numbers(quota) == [1]
    assert numbers(other) == [1, 3]


def test_a_job_that_names_a_quota_twice_takes_one_place(view: View, quota: Quota) -> None:
    put(view, 1, names=(NAME, NAME))
    assert numbers(view.queue.claims()) == [1]
    assert len(quota) == 1


def test_a_quota_that_was_removed_is_ignored(view: View, quota: Quota) -> None:
    put(view, 1, 2)
    view.queue.quotas.remove(NAME)
    assert numbers(view.queue.claims()) == [1, 2]


def test_a_quota_that_was_made_anew_is_heeded_again(view: View, quota: Quota) -> None:
    put(view, 1, 2)
    view.queue.quotas.remove(NAME)
    view.queue.quotas.create(NAME)
    assert numbers(view.queue.claims()) == [1]


def test_a_job_holds_its_place_while_it_runs_and_not_in_its_callbacks(
    view: View, quota: Quota
) -> None:
    statuses_seen.clear()
    job = SeeingJob.bind(look_at_quota)
    job.quota_names = (NAME,)
    job.queue_seen = view.queue
    view.queue.put(job)
    view.commit()
    callback = job.addCallback(Job(note_parent))
    keep(view, view.queue.claim())
    job()
    assert callback.status == COMPLETED
    assert statuses_seen == [(ACTIVE, True)]
    assert parents_seen == [(CALLBACKS, None)]
    quota.clean()
    assert len(quota) == 0


parents_seen: list[tuple[str, Any]] = []


def note_parent(result: Any) -> None:
    from zasync.local import getJob

    parent = getJob().parent
    parents_seen.append((parent.status, parent._quota_hold))


def test_a_job_put_back_keeps_its_place_and_is_claimed_again(view: View, quota: Quota) -> None:
    first, _second = put(view, 1, 2)
    assert view.queue.claim() is first
    view.queue.putBack(first)
    quota.clean()
    assert list(quota) == [first]
    assert view.queue.claim() is first
    assert view.queue.claim() is None


def test_a_job_put_back_waits_where_the_quota_has_no_place_for_it(view: View, quota: Quota) -> None:
    quota.size = 2
    first, second, third = put(view, 1, 2, 3)
    view.queue.claim(), view.queue.claim()
    view.queue.remove(third)
    view.queue.putBack(third)  # first in line, but it has no place
    assert view.queue.claim() is None
    view.queue.putBack(second)
    assert view.queue.claim() is second
    assert list(quota) == [first, second]


def test_a_job_taken_out_after_it_was_put_back_frees_its_place(view: View, quota: Quota) -> None:
    first, second = put(view, 1, 2)
    view.queue.claim()
    view.queue.putBack(first)
    view.queue.remove(first)
    assert view.queue.claim() is second


def test_a_rescheduled_job_frees_its_place(
    view: View, quota: Quota, standing_clock: StandingClock
) -> None:
    first, second = put(view, 1, 2)
    keep(view, view.queue.claim())
    first.start(1)
    due = standing_clock.now() + timedelta(minutes=1)
    view.queue.reschedule(first, int(due.timestamp()) * 1_000_000)
    assert first.begin_after == due
    assert view.queue.claim() is second
    standing_clock.move(hours=1)
    assert view.queue.claim() is None


def test_a_job_that_no_longer_names_a_quota_frees_its_place(view: View, quota: Quota) -> None:
    first, second = put(view, 1, 2)
    view.queue.claim()
    view.queue.putBack(first)
    first.quota_names = ()
    assert list(view.queue.claims()) == [first, second]
    assert list(quota) == [second]


def test_a_job_in_another_queue_holds_no_place_here(view: View, quota: Quota) -> None:
    first, second = put(view, 1, 2)
    view.queue.claim()
    view.queue.putBack(first)
    other = view.queues["other"] = Queue()
    other.quotas.create(NAME)
    view.queue.remove(first)
    other.put(first)
    assert other.claim() is first
    assert view.queue.claim() is second


# add and clean by hand


def test_add_gives_a_job_a_place_once(quota: Quota) -> None:
    job = numbered(1, NAME)
    quota.add(job)
    quota.add(job)
    assert list(quota) == [job]
    assert quota.has(job)


def test_add_to_a_full_quota_is_refused(quota: Quota) -> None:
    quota.add(numbered(1, NAME))
    with pytest.raises(FullError, match="'catalog' of size 1 is full"):
        quota.add(numbered(2, NAME))
    assert numbers(quota) == [1]


def test_add_looks_whether_a_place_has_become_free(view: View, quota: Quota) -> None:
    first, second = keep(view, numbered(1, NAME)), numbered(2, NAME)
    quota.add(first)
    first()
    quota.add(second)
    assert list(quota) == [second]


def test_only_jobs_that_name_the_quota_are_added(quota: Quota) -> None:
    with pytest.raises(ValueError, match="only a job"):
        quota.add(operator.mul)
    with pytest.raises(ValueError, match="does not name the quota 'catalog'"):
        quota.add(numbered(1))
    assert len(quota) == 0


def test_an_empty_quota_is_true(quota: Quota) -> None:
    assert quota


def test_clean_does_not_write_where_nothing_has_changed(view: View, quota: Quota) -> None:
    put(view, 1)
    keep(view, view.queue.claim())
    quota.clean()
    assert not quota._p_changed
