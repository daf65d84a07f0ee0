# SPDX-License-Identifier: ZPL-2.1
"""One table that sorts the errors of storages and commits by what to do about them.

It asks for properties (`TransientError`) and, where a driver gives none, for names, so that
no storage has to be importable here.
"""

from __future__ import annotations

import enum
from typing import Any

from transaction.interfaces import TransientError
from ZODB.broken import Broken
from ZODB.POSException import ConflictError, ReadOnlyError, StorageError

from zasync.interfaces import UnresolvableError, ZasyncError


class Trouble(enum.Enum):
    """What kind of trouble an exception means."""

    CONFLICT = "conflict"  # somebody else was first: run again
    INFRASTRUCTURE = "infrastructure"  # the storage is away or unwell: wait, then run again
    READ_ONLY = "read-only"  # the storage takes no writes for now: wait
    OTHER = "other"  # an error of the code that ran


# Names of classes whose instances mean that the storage, not the job, is unwell.
STORAGE_NAMES = frozenset(
    {
        "ZEO.Exceptions.ClientDisconnected",
        "ZEO.Exceptions.ClientStorageError",
        "ZEO.Exceptions.ServerException",
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
        "pg8000.exceptions.InterfaceError",
        "pg8000.exceptions.OperationalError",
        "sqlite3.OperationalError",
    }
)
# Of those, what means a conflict or a server that takes no writes, whatever their bases say.
DRIVER_CONFLICT_NAMES = frozenset(
    {"psycopg2.errors.DeadlockDetected", "psycopg2.errors.SerializationFailure"}
)
DRIVER_READ_ONLY_NAMES = frozenset({"psycopg2.errors.ReadOnlySqlTransaction"})


def _is_about_a_taken_oid(error: BaseException) -> bool:
    """Whether another client has made an object under the id that this one took for a new one.

    A ZEO server that was killed gives away ids again that clients hold in stock.  The commit is to
    be repeated like after a conflict: it takes other ids then.
    """
    return isinstance(error, ValueError) and "already has the same oid" in str(error)


def classify(error: BaseException, *, from_storage: bool = False) -> Trouble:
    """Answer the kind of trouble that `error` means, after looking at all its base classes.

    `from_storage` says that it was raised by a commit or by our own reading, not by a job's code.
    """
    if isinstance(error, ZasyncError):
        return Trouble.OTHER  # also our TimeoutError, which is an OSError to Python
    if isinstance(error, ReadOnlyError):
        return Trouble.READ_ONLY
    if isinstance(error, ConflictError) or (from_storage and _is_about_a_taken_oid(error)):
        return Trouble.CONFLICT
    names = {f"{base.__module__}.{base.__qualname__}" for base in type(error).__mro__}
    from_storage |= is_of_a_storage(error)
    if from_storage and names & DRIVER_CONFLICT_NAMES:
        return Trouble.CONFLICT
    if from_storage and names & DRIVER_READ_ONLY_NAMES:
        return Trouble.READ_ONLY
    if names & STORAGE_NAMES or (from_storage and names & DRIVER_NAMES):
        return Trouble.INFRASTRUCTURE
    if isinstance(error, TransientError):
        return Trouble.INFRASTRUCTURE if isinstance(error, StorageError) else Trouble.CONFLICT
    return Trouble.OTHER


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
