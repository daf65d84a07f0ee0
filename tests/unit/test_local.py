# SPDX-License-Identifier: ZPL-2.1
"""What code inside of a job can ask, and annotations that others see while it runs."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from ZODB.POSException import InvalidObjectReference

from tests.support.bench import Bench
from tests.support.benches import bench, standing
from tests.support.clocks import StandingClock
from tests.unit.job import things
from zasync import local, threadlocal
from zasync.foundation import attempts
from zasync.interfaces import COMPLETED
from zasync.job import Job

__all__ = ["bench", "standing"]


def run(bench: Bench, function: Any, *, held: bool = True) -> Any:
    """Call a job that does `function`; answers the job."""
    things.script["it"] = function
    job = (bench.held if held else bench.stored)(things.act, "it")
    job()
    return job


@pytest.mark.parametrize(
    "ask",
    [
        local.getJob,
        local.getQueue,
        local.getDispatcher,
        local.getReactor,
        local.getAgentName,
        threadlocal.current,
        lambda: local.setLiveAnnotation("a", 1),
        lambda: local.getLiveAnnotation("a"),
    ],
)
def test_outside_of_a_job_there_is_nothing_to_ask(ask: Any) -> None:
    with pytest.raises(RuntimeError, match="no job is running in this thread"):
        ask()


def test_a_job_called_by_hand_knows_itself_and_its_queue(bench: Bench) -> None:
    job = run(
        bench,
        lambda: (local.getJob().oid, local.getQueue() is bench.queue, local.getDispatcher()),
    )

    assert job.result == (job.oid, True, None)
    assert run(bench, lambda: local.getQueue(), held=False).result is None
    assert run(bench, lambda: (local.getReactor(), local.getAgentName())).result == (None, None)


def test_surroundings_tell_of_dispatcher_and_agent() -> None:
    class Dispatcher:
        reactor = object()

    around = threadlocal.Surroundings(lambda: "job", Dispatcher(), "main")
    token = threadlocal.surroundings.set(around)
    try:
        assert local.getJob() == "job"
        assert local.getDispatcher() is around.dispatcher
        assert local.getReactor() is Dispatcher.reactor
        assert local.getAgentName() == "main"
    finally:
        threadlocal.surroundings.reset(token)


def test_surroundings_belong_to_one_thread_and_reach_into_coroutines() -> None:
    around = threadlocal.Surroundings(lambda: "job")
    other: list[Any] = []

    async def ask() -> Any:
        return local.getJob()

    token = threadlocal.surroundings.set(around)
    try:
        thread = threading.Thread(target=lambda: other.append(threadlocal.surroundings.get()))
        thread.start()
        thread.join()
        assert asyncio.run(ask()) == "job"
    finally:
        threadlocal.surroundings.reset(token)
    assert other == [None]


def test_a_live_annotation_is_seen_at_once_and_does_not_disturb_the_job(bench: Bench) -> None:
    def work() -> Any:
        job = local.getJob()
        local.setLiveAnnotation("progress", 0.5)
        seen = bench.seen(job, lambda job: dict(job.annotations))
        local.setLiveAnnotation("progress", 0.7)
        return seen

    job = run(bench, work)

    assert things.acts == [("it",)]  # once: there was no conflict
    assert job.result == {"progress": 0.5}
    assert job.status == COMPLETED
    bench.begin()
    assert bench.seen(job, lambda job: dict(job.annotations)) == {"progress": 0.7}


def test_live_annotations_and_own_ones_go_together(bench: Bench) -> None:
    def work() -> None:
        local.setLiveAnnotation("live", 1)
        local.getJob().annotations["own"] = 2

    job = run(bench, work)

    assert bench.seen(job, lambda job: dict(job.annotations)) == {"live": 1, "own": 2}


def test_a_job_outside_of_an_agent_may_have_live_annotations_too(bench: Bench) -> None:
    job = run(bench, lambda: local.setLiveAnnotation("live", 1), held=False)

    assert job.status == COMPLETED
    assert not job.failed
    assert bench.seen(job, lambda job: dict(job.annotations)) == {"live": 1}


def test_another_job_can_be_annotated_and_asked(bench: Bench) -> None:
    job = bench.stored(things.multiply, 1)

    local.setLiveAnnotation("name", "value", job)

    assert local.getLiveAnnotation("name", job=job) == "value"
    assert local.getLiveAnnotation("other", "default", job=job) == "default"


def test_annotations_of_a_job_without_any_are_not_there(bench: Bench) -> None:
    job = bench.stored(things.multiply, 1)
    assert local.getLiveAnnotation("name", job=job) is None
    job.addCallback(things.multiply)
    bench.commit()

    assert local.getLiveAnnotation("name", 5, job=job) == 5


def test_a_job_that_is_not_stored_cannot_be_annotated_live() -> None:
    with pytest.raises(ValueError, match="needs a job that is stored"):
        local.setLiveAnnotation("name", 1, Job(things.multiply))


def test_an_annotation_is_waited_for(bench: Bench, standing: StandingClock) -> None:
    job = bench.stored(things.multiply, 1)

    assert local.getLiveAnnotation("name", timeout=2.5, poll=1, job=job) is None
    assert standing.waits == [1, 1, 0.5]


def test_an_annotation_that_comes_ends_the_wait(
    bench: Bench, standing: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = bench.stored(things.multiply, 1)
    wait = standing.wait

    def wait_and_annotate(*args: Any) -> bool:
        if len(standing.waits) == 2:
            local.setLiveAnnotation("name", "there", job)
        return wait(*args)

    monkeypatch.setattr(standing, "wait", wait_and_annotate)

    assert local.getLiveAnnotation("name", timeout=60, poll=1, job=job) == "there"
    assert len(standing.waits) == 3


def test_a_stop_ends_the_wait(bench: Bench) -> None:
    job = bench.stored(things.multiply, 1)
    stop = threading.Event()
    stop.set()
    token = attempts.stop_signal.set(stop)
    try:
        with pytest.raises(attempts.Stopped):
            local.getLiveAnnotation("name", timeout=60, job=job)
    finally:
        attempts.stop_signal.reset(token)


def test_a_value_of_the_present_connection_is_refused_and_nothing_is_left_open(
    bench: Bench,
) -> None:
    job = bench.stored(things.multiply, 1)
    thing = bench.keep(things.Counter())

    with pytest.raises(InvalidObjectReference):
        local.setLiveAnnotation("thing", thing, job)

    local.setLiveAnnotation("thing", 1, job)
    assert local.getLiveAnnotation("thing", job=job) == 1


# The line of progress


def test_a_line_of_progress_is_seen_at_once_and_does_not_disturb_the_job(bench: Bench) -> None:
    def work() -> Any:
        job = local.getJob()
        local.set_progress("half")
        seen = bench.seen(job, lambda job: job.progress)
        local.set_progress("done\nand over" + "!" * 1000)
        return seen

    job = run(bench, work)

    assert things.acts == [("it",)]
    assert job.result == "half"
    assert job.status == COMPLETED
    bench.begin()
    assert job.progress == ("done\\nand over" + "!" * 1000)[:200]
    assert len(bench.agent.progress) == 1, "only the sentinel is left"


def test_progress_meets_nothing_that_the_job_writes_itself(bench: Bench) -> None:
    """Its annotations, its callbacks, its own record: all made in the same moment."""

    def work() -> None:
        job = local.getJob()
        job.annotations["own"] = 1
        job.addCallback(things.multiply)
        local.set_progress("one")
        job.annotations["more"] = 2
        job.failure_log_level = 10
        local.set_progress("two")

    job = run(bench, work)

    assert things.acts == [("it",)]
    assert (job.progress, dict(job.annotations)) == ("two", {"own": 1, "more": 2})


def test_progress_belongs_to_one_run(bench: Bench) -> None:
    job = bench.held(things.act, "it")
    things.script["it"] = lambda: local.set_progress("first")
    job.start(5)
    bench.commit()
    job.note_progress("first")
    bench.commit()
    assert job.progress == "first"
    bench.record.deactivate()
    bench.commit()
    assert job.progress == "first", "also when no agent holds it any more"
    bench.record.activate()
    bench.work()
    assert job.progress == "first"
    assert bench.stored(things.multiply, 1).progress is None


def test_a_second_run_begins_without_a_line(bench: Bench, standing: StandingClock) -> None:
    job = bench.held(things.multiply, 1)
    job.start(5)
    job.note_progress("first")
    bench.commit()
    standing.move(seconds=1)
    bench.record.deactivate()
    bench.record.activate()
    bench.commit()

    bench.work()

    assert job.status == COMPLETED
    assert job.progress is None


def test_a_callback_has_a_line_of_its_own(bench: Bench, standing: StandingClock) -> None:
    seen = []

    def work(result: Any = None) -> None:
        job = local.getJob()
        local.set_progress("of the callback" if job.is_callback else "of the job")
        standing.move(seconds=1)
        seen.append(bench.seen(job, lambda job: job.progress))

    things.script["it"] = work
    job = bench.held(things.act, "it")
    callback = job.addCallback(Job(things.act, "it"))
    bench.commit()

    job()

    assert seen == ["of the job", "of the callback"]
    bench.begin()
    assert callback.progress == "of the callback"
    assert job.progress is None, "that of its callback took its place"


def test_of_a_job_that_no_agent_holds_nothing_is_kept(bench: Bench) -> None:
    job = run(bench, lambda: local.set_progress("here"), held=False)

    assert not job.failed
    assert job.progress is None


def test_the_dispatcher_hands_the_line_over_when_it_tidies(bench: Bench) -> None:
    one, two = bench.held(things.multiply, 1), bench.held(things.multiply, 2)
    for token, job in enumerate((one, two)):
        job.start(token)
        job.note_progress(f"line {token}")
    bench.commit()

    assert bench.agent.take(one._place) is one
    two.finish(4)
    bench.agent.tidy(two._place, failed=False)
    bench.commit()

    assert (one.progress, two.progress) == ("line 0", "line 1")
