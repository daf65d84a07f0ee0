# SPDX-License-Identifier: ZPL-2.1
"""One table that sorts the errors of storages and commits by what to do about them.

It asks for properties (`TransientError`) and, where a driver gives none, for names, so that
no storage has to be importable here.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from ZODB.broken import Broken

from zasync.interfaces import UnresolvableError


class Trouble(enum.Enum):
    """What is to be done about an exception."""

    CONFLICT = "conflict"  # somebody else was first: run again
    INFRASTRUCTURE = "infrastructure"  # the storage is away or unwell: wait, then run again
    READ_ONLY = "read-only"  # the storage takes no writes for now: wait
    OTHER = "other"  # an error of the code that ran, or of what it was given


class Kind(enum.Enum):
    """What an exception says is the case.

    That the outcome of a commit is unknown is no kind: every error from a commit, other than a
    conflict, leaves that open, and then the database is asked.
    """

    CONFLICT = "conflict"
    INFRASTRUCTURE = "infrastructure"
    READ_ONLY = "read-only"
    DATA_MISSING = "data missing"  # an object that something refers to is gone
    NOT_STORABLE = "not storable"  # what was to be committed cannot be
    ENDING = "process-ending"
    USER = "user"  # any other


TROUBLES = {
    Kind.CONFLICT: Trouble.CONFLICT,
    Kind.INFRASTRUCTURE: Trouble.INFRASTRUCTURE,
    Kind.READ_ONLY: Trouble.READ_ONLY,
    Kind.DATA_MISSING: Trouble.OTHER,  # to load it again helps nobody
    Kind.NOT_STORABLE: Trouble.OTHER,
    Kind.ENDING: Trouble.OTHER,
    Kind.USER: Trouble.OTHER,
}
"""What is to be done about each kind."""

# Names of classes whose instances mean that the storage, not the job, is unwell.
STORAGE_NAMES = frozenset(
    {
        "ZEO.Exceptions.ClientDisconnected",
        "ZEO.Exceptions.ClientStorageError",
        "ZEO.Exceptions.ServerException",
        "ZODB.FileStorage.FileStorage.FileStorageQuotaError",
        "ZODB.POSException.StorageTransactionError",
        "relstorage.adapters.interfaces.ReplicaClosedException",
        "relstorage.adapters.interfaces.UnableToAcquireLockError",
    }
)
# The same, where the error is known to come from the storage: a job may use such a driver too.
DRIVER_NAMES = frozenset(
    {
        "builtins.OSError",
        "psycopg2.OperationalError",
        "psycopg2.InterfaceError",
        "psycopg2.errors.IdleInTransactionSessionTimeout",
        # It has one class for all that the server says.
        "pg8000.exceptions.DatabaseError",
        "pg8000.exceptions.InterfaceError",
        "sqlite3.OperationalError",
    }
)
# Of those, what means a conflict or a server that takes no writes, whatever their bases say.
DRIVER_CONFLICT_NAMES = frozenset(
    {"psycopg2.errors.DeadlockDetected", "psycopg2.errors.SerializationFailure"}
)
DRIVER_READ_ONLY_NAMES = frozenset({"psycopg2.errors.ReadOnlySqlTransaction"})


@dataclasses.dataclass(frozen=True)
class Row:
    """Errors that have a class of one of these `names`, and one of `also` if there are any."""

    kind: Kind
    names: frozenset[str]
    also: frozenset[str] = frozenset()
    from_storage: bool = False  # only those that come from there


def _names(*names: str) -> frozenset[str]:
    return frozenset(names)


ROWS = (
    # Ours first: our TimeoutError is an OSError to Python.
    Row(Kind.USER, _names("zasync.interfaces.ZasyncError")),
    Row(Kind.READ_ONLY, _names("ZODB.POSException.ReadOnlyError")),
    Row(Kind.CONFLICT, _names("ZODB.POSException.ConflictError")),
    Row(Kind.DATA_MISSING, _names("ZODB.POSException.POSKeyError")),
    Row(
        Kind.NOT_STORABLE,
        _names(
            "ZODB.POSException.InvalidObjectReference",
            "ZODB.POSException.TransactionTooLargeError",
            "_pickle.PicklingError",
            "pickle.PicklingError",
        ),
    ),
    Row(Kind.NOT_STORABLE, _names("builtins.TypeError"), from_storage=True),
    Row(Kind.CONFLICT, DRIVER_CONFLICT_NAMES, from_storage=True),
    Row(Kind.READ_ONLY, DRIVER_READ_ONLY_NAMES, from_storage=True),
    Row(Kind.INFRASTRUCTURE, STORAGE_NAMES),
    Row(Kind.INFRASTRUCTURE, DRIVER_NAMES, from_storage=True),
    # The property, for storages that we do not know.
    Row(
        Kind.INFRASTRUCTURE,
        _names("transaction.interfaces.TransientError"),
        also=_names("ZODB.POSException.StorageError"),
    ),
    Row(Kind.CONFLICT, _names("transaction.interfaces.TransientError")),
    Row(
        Kind.ENDING,
        _names("builtins.SystemExit", "builtins.KeyboardInterrupt", "builtins.MemoryError"),
    ),
)
"""The first row that fits says the kind; without one it is an error of the user's code."""


def kind_of(error: BaseException, *, from_storage: bool = False) -> Kind:
    """Answer what `error` says is the case, after looking at all its base classes.

    `from_storage` says that it was raised by a commit or by our own reading, not by a job's code.
    """
    names = {f"{base.__module__}.{base.__qualname__}" for base in type(error).__mro__}
    from_storage |= is_of_a_storage(error)
    if from_storage and _is_about_a_taken_oid(error):
        return Kind.CONFLICT
    for row in ROWS:
        if (
            row.names & names
            and (not row.also or row.also & names)
            and (from_storage or not row.from_storage)
        ):
            return row.kind
    return Kind.USER


def classify(error: BaseException, *, from_storage: bool = False) -> Trouble:
    """Answer what is to be done about `error`; `from_storage` is that of `kind_of`."""
    return TROUBLES[kind_of(error, from_storage=from_storage)]


def _is_about_a_taken_oid(error: BaseException) -> bool:
    """Whether another client has made an object under the id that this one took for a new one.

    A ZEO server that was killed gives away ids again that clients hold in stock.  The commit is to
    be repeated like after a conflict: it takes other ids then.
    """
    return isinstance(error, ValueError) and "already has the same oid" in str(error)


def is_of_a_storage(error: BaseException) -> bool:
    """Whether `error` is a driver's, raised while a ZODB connection loaded or stored an object.

    A driver's errors come through RelStorage as they are, also when a job's own code touches an
    object for the first time.  A file that is missing then is more likely the job's.
    """
    names = {f"{base.__module__}.{base.__qualname__}" for base in type(error).__mro__}
    if "builtins.OSError" in names or not names & (DRIVER_NAMES | DRIVER_READ_ONLY_NAMES):
        return False
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") == "ZODB.Connection":
            return True
        trace = trace.tb_next
    return False


def why_unreadable(item: Any) -> Exception | None:
    """Load the persistent object `item`; answer why that cannot be done here, or None.

    Conflicts and troubles of the storage are raised: they say nothing about the object.
    """
    try:
        item._p_activate()
    except Exception as error:  # loading runs code of the object's class
        if classify(error, from_storage=True) is not Trouble.OTHER:
            raise
        return error
    if isinstance(item, Broken):
        return UnresolvableError(f"its class {type(item).__qualname__} is not in this process")
    return None
