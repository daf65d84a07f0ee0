# SPDX-License-Identifier: ZPL-2.1
"""`zasync worker` as a process: it works, drains, dies, and comes again."""

import json
import signal
from collections import Counter
from datetime import timedelta

import pytest

from tests.support.processes import wait_for_the_end_of
from tests.support.running import until
from tests.support.zeo import ZeoServer
from zasync.interfaces import COMPLETED, KEY, PENDING
from zasync.queue import Queue

from .commands import Desk, root_of

pytestmark = pytest.mark.process

WORKS = r"(\d+) dispatcher .* works queue"


def put(desk: Desk, *args: object) -> None:
    desk.done("put", "--db", "Data.fs", *args)


def finished(desk: Desk) -> Counter[str]:
    with root_of(str(desk.path("Data.fs"))) as root:
        records = root[KEY][""].dispatchers.values()
        return Counter(job.status for record in records for job in record["main"].completed)


def test_a_worker_that_is_told_to_stop_lets_its_job_end_and_leaves_the_others(desk: Desk) -> None:
    put(desk, "application:hold", '"held"')
    put(desk, "application:hold", '"other"')
    with desk.started("worker", "--db", "Data.fs", "--size", 1) as worker:
        until(lambda: desk.lines("held"), "the job to begin")
        worker.signal()
        worker.says("no new jobs are begun")
        desk.path("held.go").touch()
        assert worker.ends() == 0
    assert len(desk.lines("held")) == 1
    assert desk.lines("other") == []
    with root_of(str(desk.path("Data.fs"))) as root:
        (record,) = root[KEY][""].dispatchers.values()
        assert [job.result for job in record["main"].completed] == ["let go"]
        assert [job.status for job in root[KEY][""]] == [PENDING]


def test_a_job_that_outlasts_the_grace_time_is_run_again_by_the_next_worker(desk: Desk) -> None:
    put(desk, "application:hold", '"held"')
    with desk.started("worker", "--db", "Data.fs", "--grace", "0.1") as worker:
        until(lambda: desk.lines("held"), "the job to begin")
        worker.signal(signal.SIGINT)
        assert worker.ends() == 0
    desk.path("held.go").touch()
    with desk.started("worker", "--db", "Data.fs") as worker:
        until(lambda: len(desk.lines("held")) == 2, "the job to begin again")
        worker.signal()
        assert worker.ends() == 0
    assert finished(desk) == {COMPLETED: 2}  # the job, and the one that asked its policy


def test_a_second_signal_ends_a_worker_at_once_and_the_next_recovers_its_job(desk: Desk) -> None:
    put(desk, "application:hold", '"held"')
    with desk.started("worker", "--db", "Data.fs") as worker:
        until(lambda: desk.lines("held"), "the job to begin")
        worker.signal()
        worker.says("no new jobs are begun")
        worker.signal()
        assert worker.ends() == 1
    desk.path("held.go").touch()
    with desk.started("worker", "--db", "Data.fs") as worker:
        worker.says("did not end cleanly last time")
        until(lambda: len(desk.lines("held")) == 2, "the job to begin again")
        worker.signal()
        assert worker.ends() == 0


def test_a_worker_keeps_its_uuid_and_sets_the_size_of_its_agent_if_told(desk: Desk) -> None:
    for options in (["--size", 7], []):
        with desk.started("worker", "--db", "Data.fs", *options) as worker:
            worker.says(WORKS)
            worker.signal()
            assert worker.ends() == 0
    with root_of(str(desk.path("Data.fs"))) as root:
        (record,) = root[KEY][""].dispatchers.values()
        assert record["main"].size == 7


def test_a_worker_sets_its_intervals_if_told(desk: Desk) -> None:
    for options in (["--ping-interval", 5, "--death-interval", 90], []):
        with desk.started("worker", "--db", "Data.fs", *options) as worker:
            worker.says(WORKS)
            worker.signal()
            assert worker.ends() == 0
    with root_of(str(desk.path("Data.fs"))) as root:
        (record,) = root[KEY][""].dispatchers.values()
        assert record.ping_interval == timedelta(seconds=5)
        assert record.ping_death_interval == timedelta(seconds=90)
    refused = desk.run("worker", "--db", "Data.fs", "--ping-interval", 60)
    assert refused.returncode != 0
    assert "must be longer than the ping interval" in refused.stderr


def test_a_worker_works_only_the_queues_that_are_named(desk: Desk) -> None:
    put(desk, "application:note_process", '"default"')
    with root_of(str(desk.path("Data.fs"))) as root:
        root[KEY]["mail"] = Queue()
        root._p_jar.transaction_manager.commit()
    put(desk, "--queue", "mail", "application:note_process", '"mail"')
    with desk.started("worker", "--db", "Data.fs", "--queue", "mail") as worker:
        until(lambda: desk.lines("mail"), "the job to be done")
        worker.signal()
        assert worker.ends() == 0
    assert desk.lines("default") == []


def test_several_processes_share_a_file_and_stop_together(desk: Desk) -> None:
    for _ in range(6):
        put(desk, "application:note_process", '"done"')
    with desk.started("worker", "--db", "Data.fs", "--processes", 2) as worker:
        pids = worker.says(WORKS, times=2)
        until(lambda: len(desk.lines("done")) == 6, "the jobs to be done")
        worker.signal()
        assert worker.ends() == 0
    assert set(desk.lines("done")) <= set(pids)
    assert finished(desk) == {COMPLETED: 6}


def test_worker_processes_end_when_their_parent_is_killed(desk: Desk) -> None:
    arguments = ("--db", "Data.fs", "--processes", 2, "--grace", 0)
    with desk.started("worker", *arguments) as worker:
        pids = [int(pid) for pid in worker.says(WORKS, times=2)]
        worker.signal(signal.SIGKILL)
        assert worker.ends() == -signal.SIGKILL
    assert all(wait_for_the_end_of(pid) for pid in pids)


def test_a_worker_whose_reactor_has_ended_does_not_live_on_without_polls(desk: Desk) -> None:
    put(desk, "application:stop_the_reactor")
    with desk.started("worker", "--db", "Data.fs") as worker:
        assert worker.ends() == 5
        assert "the reactor has ended: a job stopped it" in worker.output
    assert finished(desk) == {COMPLETED: 1}


def spans(desk: Desk, name: str) -> dict[str, tuple[float, float]]:
    """When each process that ran the job did so: from, to."""
    found: dict[str, tuple[float, float]] = {}
    for line in desk.lines(name):
        pid, moment = line.split()
        first, _last = found.get(pid, (float(moment), 0.0))
        found[pid] = (first, float(moment))
    return found


def test_a_clean_stop_lets_no_job_run_twice_at_once(desk: Desk, zeo_server: ZeoServer) -> None:
    arguments = ("--db", zeo_server.uri, "--grace", 0.2, "--size", 2)
    names = ("first", "second")
    for name in names:
        desk.done("put", "--db", zeo_server.uri, "application:span", f'"{name}"')
    with desk.started("worker", *arguments) as one:
        until(lambda: all(desk.lines(name) for name in names), "the jobs to begin")
        with desk.started("worker", *arguments) as two:
            two.says(WORKS)
            one.signal()
            assert one.ends() == 0
            until(lambda: all(len(spans(desk, name)) == 2 for name in names), "both again", 60)
            for name in names:
                desk.path(f"{name}.go").touch()
            two.signal()
            assert two.ends() == 0
    for name in names:
        (_, end_of_one), (begin_of_two, _) = spans(desk, name).values()
        assert end_of_one < begin_of_two


def test_a_child_that_a_job_has_forked_can_be_ended(desk: Desk) -> None:
    put(desk, "application:wait_for_child", '"child"')
    with desk.started("worker", "--db", "Data.fs") as worker:
        until(lambda: finished_by(desk), "the job to be done")
        worker.signal()
        assert worker.ends() == 0
        assert "stopping" not in worker.output
    with root_of(str(desk.path("Data.fs"))) as root:
        (record,) = root[KEY][""].dispatchers.values()
        assert [job.result for job in record["main"].completed] == [-signal.SIGTERM]


def finished_by(desk: Desk) -> bool:
    """Whether a job has been completed, as `zasync status` sees it."""
    found = json.loads(desk.done("status", "--db", "Data.fs", "--json"))
    return bool(found["queues"][0]["completed"])
