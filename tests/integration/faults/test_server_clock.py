# SPDX-License-Identifier: ZPL-2.1
"""A storage whose clock has been a year ahead: transaction ids never go back after that."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import ZODB
from persistent.TimeStamp import TimeStamp
from ZODB.FileStorage import FileStorage

from tests.support.running import Site, running
from zasync.job import Job


def test_jobs_run_at_their_own_times_in_a_storage_that_was_a_year_ahead(tmp_path: Path) -> None:
    ahead = datetime.now(UTC) + timedelta(days=365)
    storage = FileStorage(str(tmp_path / "Data.fs"))
    storage._ts = TimeStamp(ahead.year, ahead.month, ahead.day, 12, 0, 0.0)
    db = ZODB.DB(storage)
    site = Site(db)
    with running(db):
        job = site.put(Job(abs, -7))
        later = site.put(Job(abs, -8), begin_after=datetime.now(UTC) + timedelta(seconds=0.2))
        site.completed(job, later)
    assert TimeStamp(job._p_serial).year() == ahead.year
    assert abs(site.sees(lambda: job.active_end) - datetime.now(UTC)) < timedelta(minutes=1)
    assert site.sees(lambda: later.active_start) >= later.begin_after
    site.close()
    db.close()
