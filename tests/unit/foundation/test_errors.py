# SPDX-License-Identifier: ZPL-2.1
"""Which errors mean what, and which objects cannot be read."""

from __future__ import annotations

import errno
import pickle
import sqlite3
import sys
import threading
from typing import Any

import pytest
import relstorage.adapters.interfaces
import transaction.interfaces
import ZEO.Exceptions
import zodbpickle.pickle
from persistent import Persistent
from ZODB.FileStorage.FileStorage import FileStorageQuotaError
from ZODB.POSException import (
    ConflictError,
    DanglingReferenceError,
    InvalidObjectReference,
    POSKeyError,
    ReadConflictError,
    ReadOnlyError,
    StorageError,
    StorageTransactionError,
    TransactionTooLargeError,
)

from tests.support.queues import View, db, open_view, view
from zasync.foundation.errors import (
    ROWS,
    TROUBLES,
    Kind,
    Trouble,
    classify,
    kind_of,
    why_unreadable,
)
from zasync.interfaces import AbortedError, TimeoutError, UnresolvableError

__all__ = ["db", "open_view", "view"]


class TransientStorageError(StorageError, transaction.interfaces.TransientError):
    """What a storage that we do not know may raise."""


def driver_error(module: str, name: str) -> Exception:
    """An error like that of a driver that need not be installed, of a class derived from its."""
    base = type(name, (Exception,), {"__module__": module, "__qualname__": name})
    error: Exception = type(f"Special{name}", (base,), {})()
    return error


class Fragile(Persistent):
    """Cannot be read while `error` is set."""

    error: Exception | None = None

    def __setstate__(self, state: Any) -> None:
        if Fragile.error is not None:
            raise Fragile.error
        super().__setstate__(state)


@pytest.mark.parametrize("from_storage", [False, True])
@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (ConflictError(), Trouble.CONFLICT),
        (ReadConflictError(), Trouble.CONFLICT),
        (relstorage.adapters.interfaces.StaleConnectionError(), Trouble.CONFLICT),
        (relstorage.adapters.interfaces.UnableToLockRowsDeadlockError(), Trouble.CONFLICT),
        (relstorage.adapters.interfaces.ReplicaClosedException(), Trouble.INFRASTRUCTURE),
        (transaction.interfaces.TransientError(), Trouble.CONFLICT),
        (transaction.interfaces.DoomedTransaction(), Trouble.OTHER),
        (ReadOnlyError(), Trouble.READ_ONLY),
        (ZEO.Exceptions.ClientDisconnected(), Trouble.INFRASTRUCTURE),
        (ZEO.Exceptions.ClientStorageError(), Trouble.INFRASTRUCTURE),
        (ZEO.Exceptions.ServerException(), Trouble.INFRASTRUCTURE),
        (StorageTransactionError(), Trouble.INFRASTRUCTURE),
        (TransientStorageError(), Trouble.INFRASTRUCTURE),
        (
            relstorage.adapters.interfaces.UnableToAcquireCommitLockError(),
            Trouble.INFRASTRUCTURE,
        ),
        (POSKeyError(b"\0" * 8), Trouble.OTHER),
        (DanglingReferenceError(b"\0" * 8, b"\1" * 8), Trouble.OTHER),
        (AbortedError(), Trouble.OTHER),
        (TimeoutError(), Trouble.OTHER),  # though Python's TimeoutError is an OSError
        (ValueError(), Trouble.OTHER),
        (SystemExit(), Trouble.OTHER),
    ],
    ids=lambda value: value.name if isinstance(value, Trouble) else type(value).__name__,
)
def test_an_error_means_the_same_wherever_it_comes_from(
    error: BaseException, trouble: Trouble, from_storage: bool
) -> None:
    assert classify(error, from_storage=from_storage) is trouble


@pytest.mark.parametrize(
    "error",
    [
        OSError(),
        ConnectionResetError(),
        driver_error("psycopg2", "OperationalError"),
        driver_error("psycopg2", "InterfaceError"),
        driver_error("pg8000.exceptions", "DatabaseError"),
        sqlite3.OperationalError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_a_driver_is_trouble_of_the_storage_only_if_it_comes_from_there(
    error: Exception,
) -> None:
    assert classify(error) is Trouble.OTHER
    assert classify(error, from_storage=True) is Trouble.INFRASTRUCTURE


@pytest.mark.parametrize(
    ("name", "trouble"),
    [
        ("AdminShutdown", Trouble.INFRASTRUCTURE),
        ("CannotConnectNow", Trouble.INFRASTRUCTURE),
        ("CrashShutdown", Trouble.INFRASTRUCTURE),
        ("DeadlockDetected", Trouble.CONFLICT),
        ("DiskFull", Trouble.INFRASTRUCTURE),
        ("IdleInTransactionSessionTimeout", Trouble.INFRASTRUCTURE),
        ("IoError", Trouble.INFRASTRUCTURE),
        ("LockNotAvailable", Trouble.INFRASTRUCTURE),
        ("OutOfMemory", Trouble.INFRASTRUCTURE),
        ("ReadOnlySqlTransaction", Trouble.READ_ONLY),
        ("SerializationFailure", Trouble.CONFLICT),
        ("TooManyConnections", Trouble.INFRASTRUCTURE),
        ("UndefinedTable", Trouble.OTHER),
        ("UniqueViolation", Trouble.OTHER),
    ],
)
def test_what_postgresql_says_is_sorted_by_its_own_class(name: str, trouble: Trouble) -> None:
    errors = pytest.importorskip("psycopg2.errors")
    assert classify(getattr(errors, name)(), from_storage=True) is trouble
    assert classify(getattr(errors, name)()) is Trouble.OTHER  # a job may use it for itself


def raised_by(function: Any, *args: Any) -> Exception:
    """The error that `function` really raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        function(*args)
    return caught.value


@pytest.mark.parametrize(
    ("error", "here", "from_storage"),
    [
        (ConflictError(), Kind.CONFLICT, Kind.CONFLICT),
        (transaction.interfaces.TransientError(), Kind.CONFLICT, Kind.CONFLICT),
        (TransientStorageError(), Kind.INFRASTRUCTURE, Kind.INFRASTRUCTURE),
        (ZEO.Exceptions.ServerException(), Kind.INFRASTRUCTURE, Kind.INFRASTRUCTURE),
        (FileStorageQuotaError(), Kind.INFRASTRUCTURE, Kind.INFRASTRUCTURE),
        (OSError(errno.ENOSPC, "disk full"), Kind.USER, Kind.INFRASTRUCTURE),
        (ReadOnlyError(), Kind.READ_ONLY, Kind.READ_ONLY),
        (POSKeyError(b"\0" * 8), Kind.DATA_MISSING, Kind.DATA_MISSING),
        (raised_by(pickle.dumps, lambda: None), Kind.NOT_STORABLE, Kind.NOT_STORABLE),
        (raised_by(pickle.dumps, threading.Lock()), Kind.USER, Kind.NOT_STORABLE),
        (raised_by(zodbpickle.pickle.dumps, lambda: None), Kind.USER, Kind.NOT_STORABLE),
        (InvalidObjectReference(), Kind.NOT_STORABLE, Kind.NOT_STORABLE),
        (TransactionTooLargeError(), Kind.NOT_STORABLE, Kind.NOT_STORABLE),
        (AbortedError(), Kind.USER, Kind.USER),
        (TimeoutError(), Kind.USER, Kind.USER),
        (KeyError(), Kind.USER, Kind.USER),
        (GeneratorExit(), Kind.USER, Kind.USER),
        (SystemExit(), Kind.ENDING, Kind.ENDING),
        (KeyboardInterrupt(), Kind.ENDING, Kind.ENDING),
        (MemoryError(), Kind.ENDING, Kind.ENDING),
    ],
    ids=lambda value: None if isinstance(value, Kind) else type(value).__name__,
)
def test_each_kind_of_error_is_told(error: BaseException, here: Kind, from_storage: Kind) -> None:
    assert kind_of(error) is here
    assert kind_of(error, from_storage=True) is from_storage


def test_no_row_and_no_kind_goes_without_a_decision() -> None:
    assert set(TROUBLES) == set(Kind)
    assert {row.kind for row in ROWS} == set(Kind)


@pytest.mark.parametrize("name", sorted({name for row in ROWS for name in row.names}))
def test_each_name_is_that_of_a_class_where_it_can_be_imported(name: str) -> None:
    module_name, _, class_name = name.rpartition(".")
    module = pytest.importorskip(module_name)
    found = getattr(module, class_name)
    if name != "pickle.PicklingError":  # written in C or in Python, as the interpreter has it
        assert f"{found.__module__}.{found.__qualname__}" == name


@pytest.fixture
def fragile(view: View, open_view: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stored object, not loaded yet, whose error is set by the test."""
    monkeypatch.setattr(Fragile, "error", None)
    item = view.root["fragile"] = Fragile()
    view.commit()
    return open_view().see(item)


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (driver_error("psycopg2", "OperationalError"), Trouble.INFRASTRUCTURE),
        (FileNotFoundError(), Trouble.OTHER),
    ],
)
def test_a_drivers_error_while_an_object_is_loaded_is_the_storages(
    fragile: Any, error: Exception, trouble: Trouble
) -> None:
    def away(oid: bytes) -> Any:
        raise error

    fragile._p_jar._storage.load = away
    with pytest.raises(type(error)) as caught:
        fragile._p_activate()
    assert classify(caught.value) is trouble


def test_an_object_that_can_be_read_is_loaded(fragile: Any) -> None:
    assert why_unreadable(fragile) is None
    assert fragile._p_changed is False


def test_an_object_that_is_not_stored_can_be_read() -> None:
    assert why_unreadable(Fragile()) is None


def test_an_object_whose_state_is_refused_cannot_be_read(fragile: Any) -> None:
    Fragile.error = AttributeError("an old state")
    error = why_unreadable(fragile)
    assert error is not None
    assert "an old state" in f"{error!r} {error.__cause__!r}"


def test_an_object_whose_class_is_gone_cannot_be_read(
    fragile: Any, view: View, open_view: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(sys.modules[__name__], "Fragile")
    there = open_view().see(view.root["fragile"])
    assert isinstance(why_unreadable(there), UnresolvableError)
    assert "Fragile" in str(why_unreadable(there))


def test_a_trouble_of_the_storage_says_nothing_about_the_object(fragile: Any) -> None:
    def away(oid: bytes) -> Any:
        raise ZEO.Exceptions.ClientDisconnected

    fragile._p_jar._storage.load = away
    with pytest.raises(ZEO.Exceptions.ClientDisconnected):
        why_unreadable(fragile)


def test_an_id_that_another_client_has_taken_for_its_new_object_is_a_conflict(db: Any) -> None:
    one, two = Persistent(), Persistent()
    connection = db.open()
    connection.add(one)
    cache = connection._cache
    cache[one._p_oid] = one
    two._p_jar, two._p_oid = connection, one._p_oid

    with pytest.raises(ValueError, match="same oid") as caught:
        cache[two._p_oid] = two

    assert classify(caught.value, from_storage=True) is Trouble.CONFLICT
    assert classify(caught.value) is Trouble.OTHER
    assert classify(ValueError("no such thing"), from_storage=True) is Trouble.OTHER
    connection.transaction_manager.abort()
    connection.close()
