# SPDX-License-Identifier: ZPL-2.1
"""A backup that is made while jobs run, and what restoring it means."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import ZODB
from persistent.mapping import PersistentMapping
from ZODB.scripts import repozo

from tests.support.running import Site, running
from zasync.interfaces import COMPLETED
from zasync.job import Job

gate = threading.Event()


class Ledger(PersistentMapping):
    """Counts what was committed, by name."""

    def note(self, name: str) -> None:
        self[name] = self.get(name, 0) + 1

    def note_when_open(self, name: str) -> None:
        self.note(name)
        gate.wait(20)


def test_after_a_restore_the_jobs_of_the_backup_end_once(tmp_path: Path) -> None:
    live, restored, backups = tmp_path / "Data.fs", tmp_path / "Restored.fs", tmp_path / "backups"
    backups.mkdir()
    gate.clear()
    db = ZODB.DB(str(live))
    site = Site(db)
    ledger = site.root["ledger"] = Ledger()
    site.manager.commit()
    with running(db, size=1):
        before = site.put(Job(ledger.note, "ended before the backup"))
        site.completed(before)
        during = site.put(Job(ledger.note_when_open, "running during the backup"))
        waiting = site.put(Job(ledger.note, "waiting during the backup"))
        site.until(lambda: during.status != "pending-status", "the start of the job")
        repozo.main(["-B", "-r", str(backups), "-f", str(live)])
        gate.set()
        after = site.put(Job(ledger.note, "put after the backup"))
        site.completed(during, waiting, after)
    names = {job._p_oid: job.args[0] for job in (before, during, waiting, after)}
    site.close()
    db.close()

    repozo.main(["-R", "-r", str(backups), "-o", str(restored)])

    db = ZODB.DB(str(restored))
    site = Site(db)
    site.let_others_die_soon()
    assert dict(site.root["ledger"]) == {"ended before the backup": 1}
    with running(db, poll_interval=0.1):
        site.until(lambda: not site.queue and not site.held(), "the end of the jobs")
    assert dict(site.root["ledger"]) == {
        "ended before the backup": 1,
        "running during the backup": 1,
        "waiting during the backup": 1,
    }
    assert all(restored_job(site, oid).status == COMPLETED for oid in list(names)[:3])
    site.close()
    db.close()


def restored_job(site: Site, oid: bytes) -> Any:
    return site.connection.get(oid)
