# SPDX-License-Identifier: ZPL-2.1
"""Run a function of ours in a transaction and commit it, against conflicts and bad storages.

For the transactions that hold only our own bookkeeping.  A job's own transaction is settled by
`zasync.job.performance`, which asks the job's retry policy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

import transaction
from transaction.interfaces import NoTransaction

from zasync.foundation import clock
from zasync.foundation.errors import Trouble, classify
from zasync.foundation.reporting import events

Result = TypeVar("Result")

CONFLICT_PAUSE = 0.05  # seconds at most between two attempts after a conflict
LONGEST_PAUSE = 60.0  # seconds at most between two attempts on a storage that is away


class Stopped(Exception):
    """Waiting was cut short because the process is told to stop."""


stop_signal: ContextVar[clock.Signal | None] = ContextVar("stop_signal", default=None)
"""What cuts waits in this thread short; a dispatcher's worker thread sets it."""


def pause(seconds: float) -> None:
    """Wait for `seconds`.  Stopped if the process is told to stop meanwhile."""
    if clock.wait(stop_signal.get(), seconds):
        raise Stopped


def pauses(
    first: float = 5.0, step: float = 5.0, longest: float = LONGEST_PAUSE
) -> Iterator[float]:
    """Seconds to wait before each further try of a storage that is away."""
    seconds = first
    while True:
        yield seconds
        seconds = min(seconds + step, longest)


def committed(
    function: Callable[..., Result],
    *args: Any,
    transaction_manager: Any,
    happened: Callable[[], bool] | None = None,
    tries: int | None = None,
) -> Result:
    """Call `function(*args)` in a new transaction and commit it; answer what it answered.

    After an error from the commit that is no conflict, `happened()` is asked in a new transaction
    whether the commit took effect all the same; if so the answer of the function is that of the
    last call.  A function without `happened` must be one that may be done twice.  Conflicts are
    tried again at once (`tries` attempts in all, None: for ever), storage troubles after a growing
    pause (for ever).  This thread's `stop_signal` ends all waiting: then Stopped.  Any other error
    goes to the caller, with the transaction aborted.
    """
    storage_pauses = pauses(first=0.5, step=1.0)
    attempt = 0
    while True:
        attempt += 1
        committing = False
        try:
            transaction_manager.begin()
            result = function(*args)
            committing = True
            transaction_manager.commit()
            return result
        except Exception as error:
            end(transaction_manager)
            trouble = classify(error, from_storage=True)
            if trouble is Trouble.CONFLICT:
                if attempt == tries:
                    raise
                seconds = clock.current().random.uniform(0, min(CONFLICT_PAUSE, 0.002 * attempt))
            else:
                if committing and happened is not None and _asked(happened, transaction_manager):
                    return result
                if trouble is Trouble.OTHER:
                    raise
                seconds = next(storage_pauses)
                events.storage_trouble(getattr(function, "__name__", "commit"), error, seconds)
        pause(seconds)


def _asked(happened: Callable[[], bool], transaction_manager: Any) -> bool:
    """What `happened()` says in a new transaction, once the storage lets us read."""
    return committed(happened, transaction_manager=transaction_manager)


class OwnManager(transaction.TransactionManager):
    """An explicit transaction manager for a connection that only zasync uses.

    Explicit ones catch use outside of a transaction and spare looks at the storage between
    transactions.  Aborting is always allowed, since closing the database does so.
    """

    def __init__(self) -> None:
        super().__init__(explicit=True)

    def abort(self) -> None:
        with contextlib.suppress(NoTransaction):
            super().abort()


def begun(function: Callable[[], Result], *, transaction_manager: Any) -> Result:
    """Begin a transaction and answer what `function()`, which reads, answers in it.

    Waits for a storage that is away, until `stop_signal` is set.
    """
    for seconds in pauses(first=0.5, step=1.0):
        try:
            transaction_manager.begin()
            return function()
        except Exception as error:
            end(transaction_manager)
            if classify(error, from_storage=True) is Trouble.OTHER:
                raise
            events.storage_trouble("read", error, seconds)
        pause(seconds)
    raise AssertionError("pauses() does not end")


def end(transaction_manager: Any) -> None:
    """Abort what is under way, if anything is; a storage that is away does not stop that."""
    try:
        transaction_manager.abort()
    except NoTransaction:
        pass
    except Exception as error:  # such a storage cannot even abort; begin() tries anew
        events.storage_trouble("abort", error, 0.0)
