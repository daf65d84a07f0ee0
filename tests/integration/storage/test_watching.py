# SPDX-License-Identifier: ZPL-2.1
"""Hints over SQLite, which come from a look for commits."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.dispatcher import jobs_for_tests as jobs
from tests.support.running import Site, running, until
from zasync.job import Job
from zasync.storage import close_database, open_database, watching
from zasync.storage.watching import Commits, CommitWatch

pytest.importorskip("relstorage")
NEVER = 3600  # seconds: a poll interval at which nothing is owed to polling


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "main.sqlite3"


@pytest.fixture
def writer(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to the database of another process."""
    with closing(connected(path)) as connection:
        yield connection


@pytest.fixture
def commits(path: Path, writer: sqlite3.Connection) -> Iterator[Commits]:
    commits = Commits(path)
    yield commits
    commits.close()


def connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = wal")
    connection.execute("CREATE TABLE IF NOT EXISTS things (name)")
    return connection


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def put(connection: sqlite3.Connection, name: object = "thing") -> None:
    connection.execute("INSERT INTO things VALUES (?)", (name,))


def test_a_job_that_another_process_puts_into_sqlite_is_noticed(tmp_path: Path) -> None:
    jobs.reset()
    uri = f"sqlite:///?data_dir={tmp_path}"
    worker, client = open_database(uri), open_database(uri)
    try:
        site = Site(client)
        with running(worker, poll_interval=NEVER):
            for number in range(3):
                site.completed(site.put(Job(jobs.note, number)))
        assert jobs.seen == [(0,), (1,), (2,)]
        site.close()
    finally:
        close_database(client)
        close_database(worker)


def test_each_commit_is_noticed_once(commits: Commits, writer: sqlite3.Connection) -> None:
    assert not commits.have_come()

    put(writer)

    assert commits.have_come()
    assert not commits.have_come()


def test_what_is_written_is_noticed_only_when_it_can_be_seen(
    path: Path, commits: Commits, writer: sqlite3.Connection
) -> None:
    size = log_of(path).stat().st_size
    writer.execute("PRAGMA cache_size = 1")
    writer.execute("BEGIN")
    for _ in range(10):
        put(writer, bytes(10_000))
    assert log_of(path).stat().st_size > size  # a look at the files would see a change ...

    assert not commits.have_come()  # ... after which a poll would find nothing

    writer.execute("COMMIT")
    assert commits.have_come()


def test_a_commit_is_noticed_though_the_files_look_the_same(
    path: Path, commits: Commits, writer: sqlite3.Connection
) -> None:
    def looks() -> list[tuple[int, int]]:
        return [(file.stat().st_mtime_ns, file.stat().st_size) for file in (path, log_of(path))]

    for _ in range(3):
        put(writer)
    writer.execute("PRAGMA wal_checkpoint")  # from now on the log is written anew from its begin
    commits.have_come()
    before, times = looks(), log_of(path).stat()

    put(writer)
    os.utime(log_of(path), ns=(times.st_atime_ns, times.st_mtime_ns))

    assert looks() == before
    assert commits.have_come()


def test_a_look_does_not_keep_the_log_from_being_tidied(
    commits: Commits, writer: sqlite3.Connection
) -> None:
    put(writer)
    assert commits.have_come()

    [(busy, _written, _tidied)] = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    assert not busy


def test_a_database_that_cannot_be_looked_at_is_tried_again_and_all_that_came_is_noticed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter([0.0, 0.0, 0.0, 0.5, watching.OPEN_AGAIN, watching.OPEN_AGAIN])
    monkeypatch.setattr(watching.clock, "monotonic", lambda: next(moments))
    commits = Commits(path)
    with closing(connected(path)):
        assert not commits.have_come()  # it is too early for another attempt

        assert commits.have_come()

        commits.close()


def test_an_error_of_sqlite_counts_as_a_commit_since_there_may_have_been_one(
    commits: Commits,
) -> None:
    assert commits._connection is not None
    commits._connection.close()  # any further use is an error of SQLite's

    assert commits.have_come()
    assert not commits.have_come()


def test_commits_wake_until_the_watch_is_stopped(path: Path, writer: sqlite3.Connection) -> None:
    told = threading.Event()
    watch = CommitWatch(path, told.set)
    for _ in range(2):
        put(writer)
        assert told.wait(20)
        told.clear()

    watch.stop()
    watch._thread.join(20)
    put(writer)

    assert not watch._thread.is_alive()
    assert not watch._commits.have_come()
    assert not told.is_set()


def test_a_watch_that_is_stopped_lets_go_of_the_files(
    path: Path, writer: sqlite3.Connection
) -> None:
    watch = CommitWatch(path, lambda: None)

    watch.stop()
    writer.close()

    # Whoever closes the last connection takes the log away.
    until(lambda: not log_of(path).exists(), "the end of the log")


def test_it_looks_less_often_while_nobody_commits(
    path: Path, writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    now = 0.0

    def wait_idly(signal: object, seconds: float) -> bool:
        nonlocal now
        now += 0.4
        waits.append(seconds)
        if len(waits) == 5:
            put(writer)
        return len(waits) > 6

    monkeypatch.setattr(watching.clock, "monotonic", lambda: now)
    monkeypatch.setattr(watching.clock, "wait_idly", wait_idly)
    watch = CommitWatch(path, lambda: None)
    watch._thread.join(20)
    watch.stop()

    often, seldom = watching.LOOK_EVERY, watching.LOOK_AT_REST
    assert waits == [often, often, often, seldom, seldom, often, often]
