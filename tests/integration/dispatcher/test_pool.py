# SPDX-License-Identifier: ZPL-2.1
"""The threads of an agent, and what a poll remembers of its jobs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from tests.integration.dispatcher import jobs_for_tests as jobs
from tests.support.running import Site, running, until
from zasync.dispatcher.pool import Pool
from zasync.job import Job


def test_a_pool_made_smaller_again_and_again_while_it_is_busy_still_works(db: Any) -> None:
    pool, gate, begun = Pool(db, "", "main", lambda: None), threading.Event(), []

    def hold(connection: Any) -> None:
        begun.append(1)
        gate.wait(30)

    pool.resize(3)
    for _ in range(3):
        pool.submit(hold)
    until(lambda: len(begun) == 3, "the threads")
    for _ in range(5):  # as each poll does
        pool.resize(1)
    gate.set()
    until(lambda: len(pool.threads) == 1, "the end of two threads")

    done = threading.Event()
    pool.submit(lambda connection: done.set())
    assert done.wait(15)

    pool.resize(0)
    until(lambda: not pool.threads, "the end of the last")


def hasten_polls(runner: Any, site: Site) -> int:
    """Have a hastened poll happen; answers how many more follow it by themselves."""
    dispatcher = runner.dispatcher
    before = dispatcher.polls.total
    dispatcher.wake()
    until(lambda: dispatcher.polls.total > before, "the poll")
    for number in range(20):  # turns of the reactor in which others could follow
        name = f"turn {dispatcher.polls.total} {number}"
        runner.reactor.callFromThread(jobs.gate(name).set)
        until(jobs.gate(name).is_set, "the reactor")
    return int(dispatcher.polls.total - before - 1)


def check_rest(site: Site, take_away: Callable[[Any], Any]) -> None:
    """After `take_away(record)` of a running job and its end, nothing is left to be polled for."""
    with running(site.db, size=2, poll_interval=3600) as runner:
        site.put(Job(jobs.wait_at, "a"))
        until(jobs.gate("a reached").is_set, "the job")
        site.commit(lambda: take_away(site.queue.dispatchers[runner.uuid]))
        jobs.gate("a").set()
        pool = runner.dispatcher.pool("", "main")
        until(lambda: not pool.busy, "the end of the run")
        assert hasten_polls(runner, site) <= 3


def test_a_job_that_others_took_away_is_not_polled_for_without_end(site: Site) -> None:
    check_rest(site, lambda record: record["main"].pull())


def test_a_job_whose_agent_was_removed_is_not_polled_for_without_end(site: Site) -> None:
    def remove(record: Any) -> None:
        record["main"].pull()
        del record["main"]

    check_rest(site, remove)


def test_a_dispatcher_whose_record_was_pruned_is_activated_anew(site: Site) -> None:
    with running(site.db, size=2, poll_interval=3600) as runner:
        seen = []
        import zope.component

        from zasync.interfaces import IDispatcherActivated

        zope.component.provideHandler(seen.append, [IDispatcherActivated])

        def forget() -> None:
            site.queue.dispatchers[runner.uuid].deactivate()
            site.queue.dispatchers.unregister(runner.uuid)

        site.commit(forget)
        runner.dispatcher.wake()
        until(lambda: seen, "the activation")
