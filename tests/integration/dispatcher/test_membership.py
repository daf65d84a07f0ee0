# SPDX-License-Identifier: ZPL-2.1
"""Dispatchers that come, go, die, come back, and meet their like."""

from __future__ import annotations

import dataclasses
import logging
import uuid
from datetime import timedelta
from typing import Any

import pytest
import zope.component

from tests.integration.dispatcher import jobs_for_tests as jobs
from tests.support.running import Runner, Site, running, until
from zasync.agent import Agent, addMainAgentActivationHandler
from zasync.dispatcher import Dispatcher, clear, get, pop
from zasync.foundation.process import this_process
from zasync.interfaces import ACTIVE, COMPLETED, PENDING
from zasync.job import Job


def short_lived(site: Site, runner: Runner, seconds: float = 0.2) -> None:
    """Let others think that the dispatcher is dead after `seconds` without a ping."""

    def change() -> None:
        record = site.queue.dispatchers[runner.uuid]
        record.ping_interval = timedelta(seconds=seconds / 4)
        record.ping_death_interval = timedelta(seconds=seconds)

    site.commit(change)


def test_a_dispatcher_registers_and_activates_itself_in_each_queue(db: Any) -> None:
    site = Site(db, ("", "other"))
    with running(db, agents=False) as runner:
        for queue in site.sees(site.queues.values):
            record = queue.dispatchers[runner.uuid]
            assert record.activated
            assert record.last_ping.value is not None
            assert runner.uuid == record.UUID
    for queue in site.sees(site.queues.values):
        assert queue.dispatchers[runner.uuid].activated is None
    site.close()


def test_only_the_named_queues_are_worked(db: Any) -> None:
    site = Site(db, ("", "other"))
    with running(db, agents=False, queue_names=["other"]) as runner:
        assert runner.uuid in site.sees(lambda: site.queues["other"].dispatchers)
        assert runner.uuid not in site.queues[""].dispatchers
    site.close()


def test_a_queue_made_while_it_runs_is_found(site: Site) -> None:
    from zasync.queue import Queue

    zope.component.provideHandler(addMainAgentActivationHandler)
    try:
        with running(site.db, agents=False, poll_interval=0.05):
            site.commit(lambda: site.queues.__setitem__("late", Queue()))
            job = site.put(Job(jobs.note, "late"), queue="late")
            site.completed(job)
    finally:
        zope.component.getGlobalSiteManager().unregisterHandler(addMainAgentActivationHandler)
    assert job.queue is site.queues["late"]


def test_agents_can_be_added_resized_and_removed_while_it_runs(site: Site) -> None:
    with running(site.db, agents=False, poll_interval=0.05) as runner:
        dispatchers = site.sees(lambda: site.queue.dispatchers)
        record = dispatchers[runner.uuid]
        job = site.put(Job(jobs.note, 1))
        site.commit(lambda: record.__setitem__("main", Agent(size=1)))
        site.completed(job)
        site.commit(lambda: setattr(record["main"], "size", 4))
        pools = runner.dispatcher.queues
        until(lambda: pools[""]["main"].size == 4, "the new size")
        site.until(lambda: len(record["main"]) == 0, "the tidying")
        site.commit(lambda: record.__delitem__("main"))
        until(lambda: not pools, "the end of the pool")


def test_removing_one_agent_leaves_the_others_running(site: Site) -> None:
    with running(site.db, poll_interval=0.05) as runner:
        record = site.sees(lambda: site.queue.dispatchers[runner.uuid])
        site.commit(lambda: record.__setitem__("second", Agent(filter=jobs.only_notes)))
        until(lambda: "second" in runner.dispatcher.queues.get("", {}), "the second pool")
        site.commit(lambda: record.__delitem__("second"))
        until(lambda: "second" not in runner.dispatcher.queues[""], "its end")
        job = site.put(jobs.count_up)
        site.completed(job)


def test_the_pool_size_of_the_database_follows_the_agents_and_returns(site: Site) -> None:
    before = site.db.getPoolSize()
    with running(site.db, size=20) as runner:
        until(lambda: runner.dispatcher.queues[""]["main"].size == 20, "the size")
        assert site.db.getPoolSize() >= before + 20
    assert site.db.getPoolSize() == before


def test_no_pool_warning_appears_when_every_thread_works(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"job {number}" for number in range(12)]
    with running(site.db, size=12), caplog.at_level(logging.WARNING):
        put = site.commit(lambda: [site.queue.put(Job(jobs.progress, name)) for name in names])
        for name in names:
            until(jobs.gate(f"{name} reached").is_set, name)
            jobs.gate(name).set()
        site.completed(*put)
    assert "DB.open()" not in caplog.text


def test_jobs_of_a_dispatcher_that_died_are_run_by_a_sibling(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with running(site.db, poll_interval=0.05) as dead:
        short_lived(site, dead)
        job = site.put(Job(jobs.wait_and_count, "a"))
        until(jobs.gate("a reached").is_set, "the job")
        dead.vanish()
        with running(site.db, poll_interval=0.05) as alive:
            until(lambda: "is dead; handing back its jobs" in caplog.text, "the sibling's finding")
            until(lambda: alive.dispatcher.getActiveJobIds(), "the second run")
            jobs.gate("a").set()
            site.completed(job)
            assert job.agent is site.queue.dispatchers[alive.uuid]["main"]
        assert site.queue.dispatchers[dead.uuid].activated is None
    assert site.root["count"] == 1, "the run of the dead dispatcher, which goes on, commits nothing"
    assert "is dead; handing back its jobs" in caplog.text


def test_a_zombie_that_ends_while_its_job_runs_elsewhere_commits_nothing(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with running(site.db, poll_interval=0.05) as zombie:
        short_lived(site, zombie)
        job = site.put(Job(jobs.wait_here_and_count))
        until(jobs.gate(f"{zombie.uuid} reached").is_set, "the first run")
        zombie.vanish()
        with running(site.db, poll_interval=0.05) as alive:
            until(jobs.gate(f"{alive.uuid} reached").is_set, "the second run")
            jobs.gate(str(zombie.uuid)).set()
            until(lambda: "ReassignedError" in caplog.text, "what the zombie says")
            assert site.sees(lambda: (job.status, site.root.get("count"))) == (ACTIVE, None)
            jobs.gate(str(alive.uuid)).set()
            site.completed(job)
    assert site.root["count"] == 1


def test_a_living_sibling_is_left_alone_whatever_the_clocks_say(site: Site) -> None:
    with running(site.db, poll_interval=0.05) as one:

        def backdate() -> None:
            record = site.queue.dispatchers[one.uuid]
            record.ping_death_interval = timedelta(hours=2)
            record.ping_interval = timedelta(hours=1)  # so that this stays
            record.last_ping.value -= timedelta(days=1)

        with running(site.db, poll_interval=0.05) as other:
            site.commit(backdate)
            polls = other.dispatcher.polls.total
            until(lambda: other.dispatcher.polls.total > polls + 3, "some polls")
            assert site.sees(lambda: site.queue.dispatchers[one.uuid].activated)


def test_a_dispatcher_that_others_deactivated_comes_back_and_says_so(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with running(site.db, poll_interval=0.05) as runner:
        record = site.sees(lambda: site.queue.dispatchers[runner.uuid])
        site.commit(record.deactivate)
        site.until(lambda: record.activated, "the reactivation")
        job = site.put(Job(jobs.note, 1))
        site.completed(job)
    assert [entry.levelname for entry in caplog.records if "reactivating" in entry.message] == [
        "CRITICAL"
    ]


def test_a_restarted_dispatcher_takes_back_its_jobs_at_once(site: Site) -> None:
    name = uuid.uuid4()
    with running(site.db, uuid=name) as former:
        job = site.put(Job(jobs.wait_and_count, "a"))
        until(jobs.gate("a reached").is_set, "the job")
        former.vanish()

        def as_if_killed() -> None:
            # The same pid, but of a process that was started at another time.
            process = dataclasses.replace(this_process(), started=1)
            site.queue.dispatchers[name].process = process.to_state()

        site.commit(as_if_killed)
        pop(name)
        with running(site.db, uuid=name):
            jobs.gate("a").set()
            site.completed(job, seconds=10)
    assert site.root["count"] == 1


def test_a_twin_that_lives_is_left_alone(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    name = uuid.uuid4()
    with running(site.db, uuid=name):
        pop(name)  # as if the other were in another process
        twin = Runner(site.db, uuid=name, poll_interval=0.05).start()
        until(lambda: twin.dispatcher.polls.total > 3, "some polls")
        job = site.put(Job(jobs.note, 1))
        site.completed(job)
        assert not twin.dispatcher.queues
        twin.stop()
        assert site.sees(lambda: site.queue.dispatchers[name].activated), "the twin kept out"
    assert caplog.text.count("another dispatcher works queue") == 1


def test_a_twin_is_known_for_one_as_soon_as_its_ping_changes(site: Site) -> None:
    name = uuid.uuid4()
    with running(site.db, uuid=name):
        pop(name)
        twin = Runner(site.db, uuid=name, poll_interval=0.05).start()
        until(lambda: twin.dispatcher.polls.total > 3, "some polls")
        assert not twin.dispatcher.twins, "it may be what we left behind when we were killed"

        def hasten() -> None:
            site.queue.dispatchers[name].ping_interval = timedelta.resolution

        site.commit(hasten)
        site.put(Job(jobs.note, 1))  # makes the other poll
        until(lambda: twin.dispatcher.twins == {""}, "the ping to be noticed")
        twin.stop()


def test_a_process_has_one_dispatcher_of_a_uuid(site: Site) -> None:
    name = uuid.uuid4()
    dispatcher = Dispatcher(site.db, uuid=name)
    try:
        with pytest.raises(ValueError, match="already"):
            Dispatcher(site.db, uuid=name)
        assert get(name) is dispatcher
        assert pop(name) is dispatcher
        assert get(name) is None
        with pytest.raises(KeyError):
            pop(name)
    finally:
        clear()


def test_activating_and_deactivating_twice_is_refused(site: Site) -> None:
    with running(site.db) as runner:
        with pytest.raises(ValueError, match="already activated"):
            runner.dispatcher.activate()
        runner.stop()
        with pytest.raises(ValueError, match="not activated"):
            runner.dispatcher.deactivate()


def test_a_clean_stop_waits_for_running_jobs_and_claims_no_more(site: Site) -> None:
    with running(site.db, size=1) as runner:
        job = site.put(Job(jobs.wait_and_count, "a"))
        waiting = site.put(Job(jobs.note, "never"))
        until(jobs.gate("a reached").is_set, "the job")
        runner.reactor.callFromThread(runner.reactor.stop)
        until(lambda: not runner.dispatcher.activated, "the stop")
        jobs.gate("a").set()
        runner.thread.join(20)
        assert site.sees(lambda: job.status) == COMPLETED
        assert waiting.status == PENDING
        assert site.queue.dispatchers[runner.uuid].activated is None
    assert runner.dispatcher.getStatusInfo()["status"] == "STOPPED"


def test_a_filter_that_raises_is_reported_and_the_other_agents_work(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with running(site.db, poll_interval=0.05) as runner:
        record = site.sees(lambda: site.queue.dispatchers[runner.uuid])
        site.commit(lambda: record.__setitem__("broken", Agent(filter=jobs.broken_filter)))
        job = site.put(Job(jobs.note, 1))
        site.completed(job)
        until(lambda: "broken" in runner.dispatcher.queues[""], "the second agent")
        second = site.put(Job(jobs.wait_at, "a"))
        until(lambda: "this filter is broken" in caplog.text, "the report")
        infos = runner.dispatcher.iterPolls()
        assert any(info[""].get("broken", {}).get("error") for info in infos)
        until(jobs.gate("a reached").is_set, "the job that the other agent takes")
        jobs.gate("a").set()
        site.completed(second)


def test_a_job_claimed_by_hand_for_the_agent_is_recognised_and_run(site: Site) -> None:
    with running(site.db, agents=False, poll_interval=0.05) as runner:

        def claim() -> Any:
            record = site.queue.dispatchers[runner.uuid]
            agent = record["main"] = Agent()
            site.queue.put(Job(jobs.note, "by hand"))
            return agent.claimJob()

        job = site.commit(claim)
        site.completed(job)
    assert job.result == "by hand"


def test_closing_the_database_under_a_dispatcher_is_not_refused(site: Site) -> None:
    with running(site.db, poll_interval=3600):
        site.db.close()


def test_several_dead_dispatchers_are_found_together(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    dead = [Runner(site.db, poll_interval=0.05).start() for _ in range(3)]
    for runner in dead:
        short_lived(site, runner, seconds=0.5)
        runner.vanish()
    with running(site.db, poll_interval=0.05) as alive:
        site.until(
            lambda: sum(1 for r in site.queue.dispatchers.values() if r.activated) == 1,
            "the end of all three",
        )
        assert site.queue.dispatchers[alive.uuid].activated
    for runner in dead:
        pop(runner.uuid)


def test_a_run_that_cannot_be_settled_is_handed_back_and_costs_no_place(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zasync.dispatcher import worker

    def cannot_load(connection: Any, key: Any, kind: Any = None) -> Any:
        monkeypatch.undo()
        raise RuntimeError("a fault of our own")

    monkeypatch.setattr(worker, "_load", cannot_load)
    with running(site.db, size=1, poll_interval=0.05):
        job = site.put(jobs.count_up)
        site.completed(job)
    assert job.result == 1
    assert job.getRetryPolicy().data["interruptions"] == 1
