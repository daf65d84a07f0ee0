# SPDX-License-Identifier: ZPL-2.1
"""`zasync worker` as a process: it works, drains, dies, and comes again."""

import signal
from collections import Counter
from datetime import timedelta

import pytest

from tests.support.processes import wait_for_the_end_of
from tests.support.running import until
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
