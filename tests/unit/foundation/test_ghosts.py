# SPDX-License-Identifier: ZPL-2.1
"""Objects that a connection knows without having read them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import transaction
import ZODB
from persistent.mapping import PersistentMapping
from ZODB.POSException import ConflictError

from zasync.foundation.ghosts import ghost, planted
from zasync.job import Job


def note(value: Any) -> Any:
    return value


class Site:
    """A job below a mapping, as two connections see it."""

    def __init__(self) -> None:
        self.db = ZODB.DB(None)
        self.here, self.there = (self.open() for _ in range(2))
        self.job = self.here.root()["job"] = Job(note, 5)
        self.job.parent = self.here.root()["parent"] = PersistentMapping()
        self.commit(self.here)
        self.there.transaction_manager.begin()

    def open(self) -> Any:
        return self.db.open(transaction_manager=transaction.TransactionManager())

    def commit(self, connection: Any) -> None:
        connection.transaction_manager.commit()

    def plant(self) -> Any:
        return planted(self.there, self.job._p_oid, Job, self.job.copied())


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    for connection in site.here, site.there:
        connection.transaction_manager.abort()
        connection.close()
    site.db.close()


def test_a_planted_object_is_known_without_being_read(site: Site) -> None:
    site.there.getTransferCounts(True)
    job = site.plant()
    assert (job.args, job.callable, job._p_changed) == ([5], note, False)
    assert job.parent._p_oid == site.job.parent._p_oid
    assert site.there.getTransferCounts()[0] == 0
    assert job._p_jar is site.there
    assert site.there.get(job._p_oid) is job
    assert job.parent._p_jar is site.there


def test_what_is_written_to_it_is_committed(site: Site) -> None:
    site.plant().finish("done")
    site.commit(site.there)
    site.here.transaction_manager.begin()
    assert site.job.result == "done"


def test_it_hears_of_changes_like_any_object(site: Site) -> None:
    job = site.plant()
    site.job.finish("done")
    site.commit(site.here)
    site.there.transaction_manager.begin()
    assert job.result == "done"


def test_an_outdated_one_cannot_be_committed_and_is_right_after_that(site: Site) -> None:
    copy = site.job.copied()
    site.job.finish("by another")
    site.commit(site.here)
    site.there.transaction_manager.begin()
    job = planted(site.there, site.job._p_oid, Job, copy)
    assert job.result is None
    job.finish("by this one")
    with pytest.raises(ConflictError):
        site.commit(site.there)
    site.there.transaction_manager.abort()
    assert job.result == "by another"


def test_an_outdated_one_is_right_once_it_is_invalidated(site: Site) -> None:
    copy = site.job.copied()
    site.job.finish("by another")
    site.commit(site.here)
    site.there.transaction_manager.begin()
    job = planted(site.there, site.job._p_oid, Job, copy)
    job._p_invalidate()
    assert job.result == "by another"


def test_what_the_connection_knows_already_is_taken(site: Site) -> None:
    known = ghost(site.there, site.job._p_oid, Job)
    assert site.plant() is known


def test_a_connection_without_the_parts_that_are_not_documented_reads_the_object(
    site: Site,
) -> None:
    class Documented:
        def get(self, oid: bytes) -> Any:
            return site.there.get(oid)

    job = planted(Documented(), site.job._p_oid, Job, site.job.copied())
    assert job is site.there.get(site.job._p_oid)


@pytest.mark.parametrize("holds", ["a list", "a payload", "callbacks"])
def test_a_job_with_more_than_small_values_is_not_copied(site: Site, holds: str) -> None:
    job = Job(note, [1] if holds == "a list" else object() if holds == "a payload" else 1)
    if holds == "callbacks":
        job.addCallback(note)
    assert job.copied() is None
