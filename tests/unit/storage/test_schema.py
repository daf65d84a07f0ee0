# SPDX-License-Identifier: ZPL-2.1
"""A database of a newer zasync is refused; nothing is made or changed by looking."""

import sys
import types
from collections.abc import Iterator

import pytest
import transaction
import ZODB
from persistent.mapping import PersistentMapping

from zasync.interfaces import KEY
from zasync.storage import SCHEMA, NewerDatabase, check_schema
from zasync.storage.opening import close_database


class Queues(PersistentMapping):
    schema = 1


@pytest.fixture
def db() -> Iterator[ZODB.DB]:
    db = ZODB.DB(None, database_name="jobs")
    yield db
    close_database(db)


def put(db: ZODB.DB, queues: object) -> None:
    with db.transaction() as connection:
        connection.root()[KEY] = queues


def test_a_database_without_queues_is_fine_and_stays_untouched(db: ZODB.DB):
    before = db.lastTransaction()

    check_schema(db)

    assert db.lastTransaction() == before
    with db.transaction() as connection:
        assert KEY not in connection.root()


def test_queues_that_tell_no_schema_are_fine(db: ZODB.DB):
    put(db, PersistentMapping())

    check_schema(db)


def test_queues_of_this_schema_are_fine(db: ZODB.DB):
    queues = Queues()
    queues.schema = SCHEMA
    put(db, queues)

    check_schema(db)


def test_queues_of_a_newer_schema_are_refused_with_both_numbers(db: ZODB.DB):
    queues = Queues()
    queues.schema = SCHEMA + 1
    put(db, queues)

    with pytest.raises(NewerDatabase) as caught:
        check_schema(db)

    assert f"'jobs' has schema {SCHEMA + 1}" in str(caught.value)
    assert f"up to {SCHEMA}" in str(caught.value)


def test_a_schema_that_is_no_number_is_refused(db: ZODB.DB):
    queues = Queues()
    queues.schema = "two"
    put(db, queues)

    with pytest.raises(NewerDatabase, match="schema 'two'"):
        check_schema(db)


def test_queues_of_a_class_that_is_not_here_are_refused_with_its_name(
    db: ZODB.DB, monkeypatch: pytest.MonkeyPatch
):
    tomorrow = types.ModuleType("zasync_of_tomorrow")
    tomorrow.Queues = type("Queues", (PersistentMapping,), {"__module__": tomorrow.__name__})
    with monkeypatch.context() as while_writing:
        while_writing.setitem(sys.modules, tomorrow.__name__, tomorrow)
        put(db, tomorrow.Queues())

    with pytest.raises(NewerDatabase, match=r"zasync_of_tomorrow\.Queues"):
        check_schema(ZODB.DB(db.storage))


def test_looking_leaves_the_transaction_of_this_thread_alone(db: ZODB.DB):
    with transaction.manager as ours:
        check_schema(db)
        assert transaction.get() is ours


def test_looking_gives_its_connection_back(db: ZODB.DB):
    check_schema(db)

    assert [each["opened"] for each in db.connectionDebugInfo()] == [None]
