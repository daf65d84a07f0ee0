# SPDX-License-Identifier: ZPL-2.1
"""`zasync worker --processes N`: what becomes of the children when something happens to them."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
from BTrees.IOBTree import IOBTree
from BTrees.Length import Length

from tests.support.processes import wait_for_the_end_of
from tests.support.running import until
from zasync.cli.children import Children, NoChildWorks
from zasync.cli.signals import Requests
from zasync.foundation import clock
from zasync.interfaces import COMPLETED, KEY
from zasync.storage import EmbeddedServer

from .commands import SECONDS, Desk, Started, root_of

pytestmark = pytest.mark.process

WORKS = r"(\d+) dispatcher .* works queue"


def put(desk: Desk, *args: object, db: str = "Data.fs") -> None:
    desk.done("put", "--db", db, *args)


def pids_of(worker: Started, number: int) -> list[int]:
    """The processes that have begun to work, in that order, once there are so many."""
    return [int(pid) for pid in worker.says(WORKS, times=number)]


def server_of(worker: Started) -> int:
    """The process with the ZEO server that `worker` has started."""
    children = Path(f"/proc/{worker.process.pid}/task").glob("*/children")
    pids = [pid for path in children for pid in path.read_text().split()]
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in pids}
    (server,) = [int(pid) for pid, line in lines.items() if "serving.py" in line]
    return server


def finished(desk: Desk) -> Counter[str]:
    with root_of(str(desk.path("Data.fs"))) as root:
        records = root[KEY][""].dispatchers.values()
        return Counter(job.status for record in records for job in record["main"].completed)


def test_a_process_that_dies_is_replaced_and_its_job_runs_again_while_others_work_on(
    desk: Desk,
) -> None:
    put(desk, "application:hold", '"held"')
    with desk.started("worker", "--db", "Data.fs", "--processes", 2, "--size", 1) as worker:
        pids = pids_of(worker, 2)
        until(lambda: desk.lines("held"), "the job to begin")
        victim = int(desk.lines("held")[0])
        os.kill(victim, signal.SIGKILL)
        assert float(worker.says(rf"\(pid {victim}\) has ended with SIGKILL.* in ([\d.]+) s")[0])
        until(lambda: len(desk.lines("held")) == 2, "the job to begin again")
        desk.path("held.go").touch()
        assert int(desk.lines("held")[1]) != victim
        (other,) = set(pids) - {victim}
        assert Path(f"/proc/{other}").exists()
        worker.says("did not end cleanly last time")  # the new one has the UUID of the old one
        worker.signal()
        assert worker.ends() == 0
    assert len(pids_of(worker, 3)) == 3
    with root_of(str(desk.path("Data.fs"))) as root:
        assert len(root[KEY][""].dispatchers) == 2


def test_the_pauses_grow_as_long_as_a_process_dies_again_and_again(desk: Desk) -> None:
    with desk.started("worker", "--db", "Data.fs", "--processes", 2) as worker:
        for number in range(3):
            os.kill(pids_of(worker, 2 + number)[-1 if number else 0], signal.SIGKILL)
        pauses = worker.says(r"another is started in ([\d.]+) s", times=3)
        worker.signal()
        assert worker.ends() == 0
    assert pauses == ["0.5", "1.0", "2.0"]


def test_a_frozen_process_is_killed_and_its_jobs_run_in_its_replacement(desk: Desk) -> None:
    put(desk, "application:hold", '"held"')
    options = ("--processes", 2, "--size", 1, "--frozen-after", 3)
    with desk.started("worker", "--db", "Data.fs", *options) as worker:
        pids_of(worker, 2)
        until(lambda: desk.lines("held"), "the job to begin")
        victim = int(desk.lines("held")[0])
        os.kill(victim, signal.SIGSTOP)
        worker.says(rf"\(pid {victim}\) has shown no sign of life for [34] s")
        worker.says(rf"\(pid {victim}\) has ended with SIGKILL")
        until(lambda: len(desk.lines("held")) == 2, "the job to begin again")
        desk.path("held.go").touch()
        worker.signal()
        assert worker.ends() == 0
    assert finished(desk)[COMPLETED] >= 1


def test_a_job_that_keeps_python_from_running_counts_as_frozen(desk: Desk) -> None:
    put(desk, "application:hold_everything", '"held"')
    options = ("--processes", 2, "--size", 1, "--frozen-after", 3)
    with desk.started("worker", "--db", "Data.fs", *options) as worker:
        until(lambda: desk.lines("held"), "the job to begin")
        worker.says(rf"\(pid {desk.lines('held')[0]}\) has shown no sign of life")
        desk.path("held.go").touch()
        until(lambda: len(desk.lines("held")) == 2, "the job to begin again")
        worker.signal()
        assert worker.ends() == 0


def test_after_a_suspension_of_the_whole_machine_nobody_is_killed(desk: Desk) -> None:
    options = ("--processes", 2, "--frozen-after", 2)
    with desk.started("worker", "--db", "Data.fs", *options) as worker:
        pids = pids_of(worker, 2)
        for pid in (worker.process.pid, *pids):
            os.kill(pid, signal.SIGSTOP)
        # Nothing happens that could be waited for: only real time makes a process look frozen.
        end = clock.monotonic() + 4
        until(lambda: clock.monotonic() > end, "the suspension to last")
        for pid in (worker.process.pid, *pids):
            os.kill(pid, signal.SIGCONT)
        os.kill(pids[0], signal.SIGKILL)  # its replacement shows that the parent looks again
        pids_of(worker, 3)
        worker.signal()
        assert worker.ends() == 0
    assert "no sign of life" not in worker.output
    assert worker.output.count("has ended with") == 1


def test_a_zeo_server_that_dies_is_started_again_and_its_clients_go_on(desk: Desk) -> None:
    with desk.started("worker", "--db", "Data.fs", "--processes", 2) as worker:
        pids = pids_of(worker, 2)
        os.kill(server_of(worker), signal.SIGKILL)
        worker.says("ZEO server of the worker processes is back")
        put(desk, "application:note_process", '"done"', db=address_of(worker))
        until(lambda: desk.lines("done"), "the job to be done")
        worker.signal()
        assert worker.ends() == 0
    assert int(desk.lines("done")[0]) in pids


def address_of(worker: Started) -> str:
    """The URI under which the children of `worker` share its database."""
    children = Path(f"/proc/{worker.process.pid}/task").glob("*/children")
    for pid in [pid for path in children for pid in path.read_text().split()]:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        if "--db" in words:
            return words[words.index("--db") + 1]
    raise AssertionError("no child has a database")


def test_what_is_killed_all_at_once_takes_its_jobs_back_and_does_nothing_twice(desk: Desk) -> None:
    make_ledger(desk, 6)
    for name in ("one", "two"):
        put(desk, "application:hold_and_count", f'"{name}"', 0 if name == "one" else 1)
    for number in range(2, 6):
        put(desk, "application:count", number)
    options = ("--db", "Data.fs", "--processes", 2, "--size", 1)
    with desk.started("worker", *options) as worker:
        pids = pids_of(worker, 2)
        server = server_of(worker)
        until(lambda: desk.lines("one") and desk.lines("two"), "both jobs to begin")
        for pid in (worker.process.pid, *pids, server):
            os.kill(pid, signal.SIGKILL)
        worker.ends()
        assert all(wait_for_the_end_of(pid) for pid in (*pids, server))
    with desk.started("worker", *options) as worker:
        worker.says("did not end cleanly last time", times=2)
        until(lambda: len(desk.lines("one") + desk.lines("two")) == 4, "both to begin again")
        desk.path("one.go").touch()
        desk.path("two.go").touch()
        with_server(worker, desk)
        worker.signal()
        assert worker.ends() == 0
    with root_of(str(desk.path("Data.fs"))) as root:
        assert [length.value for length in root["ledger"].values()] == [1] * 6
        assert len(root[KEY][""].dispatchers) == 2


def make_ledger(desk: Desk, number: int) -> None:
    with root_of(str(desk.path("Data.fs"))) as root:
        root["ledger"] = IOBTree({each: Length() for each in range(number)})
        root._p_jar.transaction_manager.commit()


def with_server(worker: Started, desk: Desk) -> None:
    """Wait until all of the ledger is counted."""
    with root_of(address_of(worker)) as root:

        def counted() -> bool:
            root._p_jar.sync()
            return all(length.value for length in root["ledger"].values())

        until(counted, "all jobs to be done")


def test_a_second_signal_kills_the_children_and_says_that_it_was_not_clean(desk: Desk) -> None:
    put(desk, "application:hold", '"held"')
    with desk.started("worker", "--db", "Data.fs", "--processes", 2, "--size", 1) as worker:
        pids = pids_of(worker, 2)
        until(lambda: desk.lines("held"), "the job to begin")
        worker.signal()
        worker.says("stopping the worker processes")
        worker.says("no new jobs are begun")
        worker.signal()
        assert worker.ends() == 1
    assert all(wait_for_the_end_of(pid) for pid in pids)


def test_a_signal_to_the_whole_group_leaves_running_jobs_their_time(desk: Desk) -> None:
    put(desk, "application:hold", '"held"')
    with desk.started("worker", "--db", "Data.fs", "--processes", 2, "--size", 1) as worker:
        pids = pids_of(worker, 2)
        until(lambda: desk.lines("held"), "the job to begin")
        for pid in (worker.process.pid, *pids):
            os.kill(pid, signal.SIGTERM)
        worker.says("no new jobs are begun", times=2)
        desk.path("held.go").touch()
        assert worker.ends() == 0
    assert len(desk.lines("held")) == 1
    assert finished(desk) == {COMPLETED: 1}


def test_jobs_that_outlast_the_grace_time_are_handed_back_by_all_processes(desk: Desk) -> None:
    for name in ("one", "two"):
        put(desk, "application:hold", f'"{name}"')
    options = ("--processes", 2, "--size", 1, "--grace", 1)
    with desk.started("worker", "--db", "Data.fs", *options) as worker:
        until(lambda: desk.lines("one") and desk.lines("two"), "both jobs to begin")
        worker.signal()
        started = clock.monotonic()
        assert worker.ends() == 0
        assert clock.monotonic() - started < 1 + 5
    with root_of(str(desk.path("Data.fs"))) as root:
        queue = root[KEY][""]
        assert not any(record.activated for record in queue.dispatchers.values())
        assert len(queue) == 2


def test_a_configuration_that_no_child_can_work_with_ends_all_at_once(desk: Desk) -> None:
    for name in ("1", "2"):
        desk.path(f"uuid.txt.{name}").write_text("garbage\n")
    desk.environment["ZASYNC_UUID"] = "uuid.txt"
    ended = desk.run("worker", "--db", "Data.fs", "--processes", 2)
    assert ended.returncode == 2
    assert "does not begin with a UUID but with 'garbage'" in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("zasync: no worker process has begun to work")


@pytest.mark.parametrize(
    ("uri", "code"),
    [("zeo://127.0.0.1:1?wait_timeout=1", 3), ("no/where/Data.fs", 2)],
)
def test_without_hope_that_any_child_will_work_it_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, code: int
) -> None:
    monkeypatch.setattr("zasync.cli.children.TO_GET_READY", 0.0)
    monkeypatch.setattr("zasync.cli.children.LAST_SECONDS", 0.0)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    children = Children(2, ["--db", uri], requests=Requests(), source=uri, grace=0, logs=tmp_path)
    with (
        pytest.raises(NoChildWorks, match=f"ended with exit code {code}; see worker-1.log") as hope,
        children,
    ):
        until(children.check, "the end of hope", SECONDS)
    assert hope.value.exit_code == code


def test_a_child_that_died_of_its_configuration_later_is_tried_again(desk: Desk) -> None:
    desk.environment["ZASYNC_UUID"] = "uuid.txt"
    with desk.started("worker", "--db", "Data.fs", "--processes", 2) as worker:
        pids = pids_of(worker, 2)
        kept = desk.path("uuid.txt.1").read_text()
        desk.path("uuid.txt.1").write_text("")
        os.kill(int(worker.says(r"process 1 is started \(pid (\d+)\)")[0]), signal.SIGKILL)
        worker.says("has ended with exit code 2")
        desk.path("uuid.txt.1").write_text(kept)
        assert set(pids) < set(pids_of(worker, 3))
        worker.signal()
        assert worker.ends() == 0


def test_a_second_worker_with_the_uuid_file_of_a_first_refuses(desk: Desk) -> None:
    desk.environment["ZASYNC_UUID"] = "uuid.txt"
    with (
        EmbeddedServer(str(desk.path("Data.fs"))) as server,
        desk.started("worker", "--db", server.uri) as first,
    ):
        first.says(WORKS)
        second = desk.run("worker", "--db", server.uri)
        first.signal()
        assert first.ends() == 0
    assert second.returncode == 4
    assert "another worker runs under the UUID in uuid.txt" in second.stderr


def test_a_second_worker_with_a_copy_of_a_uuid_file_refuses_and_claims_nothing(desk: Desk) -> None:
    with EmbeddedServer(str(desk.path("Data.fs"))) as server:
        desk.environment["ZASYNC_UUID"] = "uuid.txt"
        with desk.started("worker", "--db", server.uri, "--size", 1) as first:
            first.says(WORKS)
            put(desk, "application:hold", '"held"', db=server.uri)
            put(desk, "application:note_process", '"done"', db=server.uri)
            until(lambda: desk.lines("held"), "the first job to begin")
            desk.path("copy.txt").write_text(desk.path("uuid.txt").read_text())
            desk.environment["ZASYNC_UUID"] = "copy.txt"
            second = desk.run("worker", "--db", server.uri)
            assert second.returncode == 4
            assert "another process that lives works queue ''" in second.stderr
            assert desk.lines("done") == []
            desk.path("held.go").touch()
            until(lambda: desk.lines("done"), "the second job to be done")
            first.signal()
            assert first.ends() == 0
    assert desk.lines("done") == [str(first.process.pid)]
    assert len(desk.lines("held")) == 1


def test_of_two_that_start_with_one_uuid_at_the_same_instant_one_works(desk: Desk) -> None:
    uuid = "6f0f3a3c-5c3b-4a39-8d2a-6c3f1b1f0e11\n"
    with EmbeddedServer(str(desk.path("Data.fs"))) as server:
        put(desk, "application:note_process", '"before"', db=server.uri)
        workers = []
        for name in ("one", "two"):
            desk.path(f"{name}.txt").write_text(uuid)
        desk.environment["ZASYNC_UUID"] = "one.txt"
        with desk.started("worker", "--db", server.uri) as one:
            desk.environment["ZASYNC_UUID"] = "two.txt"
            with desk.started("worker", "--db", server.uri) as two:
                workers = [one, two]
                until(lambda: any(each.process.poll() is not None for each in workers), "one's end")
                (loser,) = [each for each in workers if each.process.poll() is not None]
                (winner,) = [each for each in workers if each is not loser]
                assert loser.ends() == 4, loser.output
                winner.says(WORKS)
                assert "works queue ''\n" not in re.sub("another .*", "", loser.output)
                until(lambda: desk.lines("before"), "the job to be done")
                winner.signal()
                assert winner.ends() == 0
    assert desk.lines("before") == [str(winner.process.pid)]
