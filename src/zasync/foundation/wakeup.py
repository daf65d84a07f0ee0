# SPDX-License-Identifier: ZPL-2.1
"""Wake-up hints within a process: whoever commits work rings, whoever works listens.

A storage whose server tells nobody of commits can hang up a bell of its own, which tells the
other processes.  A hint promises nothing.  The listener reads the database and believes that.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

# How to tell other processes of work in a database.
_bells: weakref.WeakKeyDictionary[Any, Callable[[], None]] = weakref.WeakKeyDictionary()
_listeners: list[weakref.ReferenceType[Listener]] = []
_lock = threading.Lock()


class Listener:
    """Calls `wake` when work was committed to one of the databases of `db`."""

    def __init__(self, db: Any, wake: Callable[[], None]) -> None:
        self.db = db
        self.wake = wake

    def start(self) -> None:
        with _lock:
            _listeners.append(weakref.ref(self))

    def stop(self) -> None:
        with _lock:
            _listeners[:] = [ref for ref in _listeners if ref() not in (None, self)]


def hang_bell(db: Any, tell: Callable[[], None]) -> None:
    """Call `tell` too whenever work was committed to `db` here; it must not block."""
    with _lock:
        _bells[db] = tell


def ring(db: Any) -> None:
    """Wake whoever listens for `db`.  May be called in any thread; never blocks for long."""
    with _lock:
        tell = _bells.get(db)
        listeners = [listener for ref in _listeners if (listener := ref()) is not None]
    for listener in listeners:
        if listener.db is db or db in listener.db.databases.values():
            listener.wake()
    if tell is not None:
        tell()


def ring_after_commit(connection: Any) -> None:
    """Ring for the connection's database once its present transaction has been committed."""
    transaction = connection.transaction_manager.get()
    db = connection.db()
    rung = _rings_of(transaction)
    if db not in rung:
        rung.append(db)
        transaction.addAfterCommitHook(_ring_if, (db,))


def _rings_of(transaction: Any) -> list[Any]:
    try:
        return transaction.data(_rings_of)  # type: ignore[no-any-return]
    except KeyError:
        rung: list[Any] = []
        transaction.set_data(_rings_of, rung)
        return rung


def _ring_if(committed: bool, db: Any) -> None:
    if committed:
        ring(db)
