# SPDX-License-Identifier: ZPL-2.1
"""How often a dispatcher polls and commits."""

from __future__ import annotations

from tests.integration.dispatcher import jobs_for_tests as jobs
from tests.support.running import Site, running, until
from zasync.job import Job


def test_an_idle_dispatcher_does_not_poll_before_its_interval(site: Site) -> None:
    with running(site.db, poll_interval=3600) as runner:
        job = site.put(Job(jobs.note, 1))
        site.completed(job)
        # The put and the end of the job may each hasten a poll, and nothing else does.
        until(lambda: not runner.dispatcher.getActiveJobIds(), "the end of the run")
        runner.reactor.callFromThread(jobs.gate("reactor is idle").set)
        until(jobs.gate("reactor is idle").is_set, "the reactor")
        polls = runner.dispatcher.polls.total
        second = site.put(Job(jobs.note, 2))
        site.completed(second)
        assert polls <= 4
        assert runner.dispatcher.polls.total <= polls + 3


def test_a_burst_of_puts_makes_few_polls(site: Site) -> None:
    with running(site.db, size=1, poll_interval=3600) as runner:
        blocking = site.put(Job(jobs.wait_at, "a"))
        until(jobs.gate("a reached").is_set, "the job")
        before = runner.dispatcher.polls.total
        put = [site.put(Job(jobs.note, number)) for number in range(100)]
        assert runner.dispatcher.polls.total - before <= 100
        jobs.gate("a").set()
        site.completed(blocking, *put, seconds=30)


def test_the_first_scheduled_job_sets_the_next_poll(site: Site) -> None:
    from datetime import UTC, datetime, timedelta

    with running(site.db, poll_interval=3600):
        soon = datetime.now(UTC) + timedelta(seconds=0.3)
        job = site.put(Job(jobs.note, 1), begin_after=soon)
        site.completed(job, seconds=10)
        assert job.active_start >= soon
