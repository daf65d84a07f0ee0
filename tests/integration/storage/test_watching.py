# SPDX-License-Identifier: ZPL-2.1
"""Hints over SQLite, which come from a look at its files."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.integration.dispatcher import jobs_for_tests as jobs
from tests.support.running import Site, running
from zasync.job import Job
from zasync.storage import close_database, open_database
from zasync.storage.watching import FileWatch

pytest.importorskip("relstorage")
NEVER = 3600  # seconds: a poll interval at which nothing is owed to polling


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


def test_a_file_that_comes_or_changes_is_noticed_until_the_watch_is_stopped(tmp_path: Path) -> None:
    told = threading.Event()
    watch = FileWatch([tmp_path / "there", tmp_path / "not yet"], told.set)
    for text in ("1", "22"):
        (tmp_path / "not yet").write_text(text)
        assert told.wait(20)
        told.clear()
    watch.stop()
    watch._thread.join(20)
    (tmp_path / "there").write_text("unseen")
    assert not watch._thread.is_alive()
    assert not told.is_set()
