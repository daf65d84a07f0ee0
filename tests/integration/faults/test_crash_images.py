# SPDX-License-Identifier: ZPL-2.1
"""The file of a database as a power failure leaves it: cut off at any byte.

What was acknowledged before the cut is there, and a dispatcher that is started on it brings each
job that is there to its end, with its effects once.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import ZODB
from persistent.mapping import PersistentMapping
from ZODB.FileStorage import FileStorage
from ZODB.FileStorage.FileStorage import CorruptedTransactionError
from ZODB.fsrecover import recover

from tests.support.running import Site, running
from zasync.interfaces import COMPLETED
from zasync.job import Job

JOBS = 4
SAMPLES = 400  # cuts in all


class Ledger(PersistentMapping):
    """Counts what was committed, by name."""

    def note(self, name: str, *_result: Any) -> None:
        self[name] = self.get(name, 0) + 1


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """The file of a queue in which jobs were put and run, and where its transactions end."""
    path = tmp_path_factory.mktemp("image") / "Data.fs"
    db = ZODB.DB(str(path))
    try:
        site = Site(db)
        ledger = site.root["ledger"] = Ledger()
        site.manager.commit()
        with running(db):
            jobs = []
            for number in range(JOBS):
                job = Job(ledger.note, f"job {number}")
                job.addCallback(Job(ledger.note, f"callback {number}"))
                jobs.append(site.put(job))
            site.completed(*jobs)
        site.close()
    finally:
        db.close()
    with closing(FileStorage(str(path), read_only=True)) as storage:
        ends = [transaction._tend + 8 for transaction in storage.iterator()]
    return path, ends


def begins_with_jobs(ends: list[int]) -> int:
    """From which byte on the image has queues and a ledger: Site makes them in two commits."""
    return ends[3]


def cut(image: Path, size: int, directory: Path) -> str:
    target = directory / f"{size}.fs"
    with image.open("rb") as source:
        target.write_bytes(source.read(size))
    return str(target)


def test_a_file_cut_at_any_byte_opens_with_all_that_was_committed_before(
    image: tuple[Path, list[int]], tmp_path: Path
) -> None:
    path, ends = image
    first, last = begins_with_jobs(ends), ends[-1]
    step = max(1, (last - first) // SAMPLES)
    near_the_ends = {end + by for end in ends if end >= first for by in (-1, 0, 1, 17, 24)}
    sizes = sorted({*range(first, last, step), *near_the_ends} & set(range(first, last + 1)))
    assert len(sizes) >= SAMPLES
    for size in sizes:
        name = cut(path, size, tmp_path)
        with closing(FileStorage(name)) as storage:
            kept = sum(1 for _ in storage.iterator())
        assert kept == sum(1 for end in ends if end <= size), f"cut at byte {size}"


def test_a_dispatcher_brings_what_is_left_to_its_end(
    image: tuple[Path, list[int]], tmp_path: Path
) -> None:
    path, ends = image
    states = [end for end in ends if end >= begins_with_jobs(ends)]
    for size in states[:: max(1, len(states) // 12)] + states[-1:]:
        db = ZODB.DB(cut(path, size, tmp_path))
        try:
            site = Site(db)
            site.let_others_die_soon()
            with running(db, poll_interval=0.1):
                site.until(
                    lambda site=site: not site.queue and not site.held(),
                    f"the end of all jobs of the image of {size} bytes",
                )
                jobs = ended(site)
                assert all(job.status == COMPLETED for job in jobs)
                ledger = site.root["ledger"]
                assert set(ledger.values()) <= {1}, f"an effect twice after {size} bytes"
                numbers = {job.args[0].removeprefix("job ") for job in jobs if job.args}
                assert set(ledger) == {
                    f"{kind} {n}" for kind in ("job", "callback") for n in numbers
                }
            site.close()
        finally:
            db.close()


def ended(site: Site) -> list[Any]:
    return [
        job
        for record in site.queue.dispatchers.values()
        for agent in record.values()
        for job in agent.completed.iter()
    ]


def test_a_tail_of_zeros_is_refused_and_repaired_by_fsrecover(
    image: tuple[Path, list[int]], tmp_path: Path
) -> None:
    path, ends = image
    damaged, repaired = tmp_path / "damaged.fs", tmp_path / "repaired.fs"
    shutil.copy(path, damaged)
    with damaged.open("r+b") as file:  # the length came to the disk, the last content did not
        file.truncate((ends[-2] + ends[-1]) // 2)
        file.truncate(ends[-1])
    with pytest.raises(CorruptedTransactionError):
        FileStorage(str(damaged))
    recover(str(damaged), str(repaired))
    with closing(FileStorage(str(repaired))) as storage:
        assert sum(1 for _ in storage.iterator()) == len(ends) - 1
