# SPDX-License-Identifier: ZPL-2.1
"""Hints that there is work: commits in this process, invalidations from a storage server, and
notices over PostgreSQL.

A hint promises nothing and may be lost; the poll interval stays as the safety net.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from zasync.foundation.wakeup import Listener
from zasync.storage import hear_others


class Hints:
    """Calls `wake()` when something was put in one of the queues that are watched."""

    def __init__(self, db: Any, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._listener = Listener(db, wake)
        self._taps: list[Tap] = []
        self._stop_hearing: Callable[[], None] | None = None
        self._bells: frozenset[bytes] = frozenset()
        self._guests: dict[object, tuple[frozenset[bytes], Callable[[], None]]] = {}

    def start(self) -> None:
        self._listener.start()
        databases = self._listener.db.databases.values()
        self._taps = [tap for database in databases if (tap := _tap(database, self))]
        for tap in self._taps:
            tap.connect()
        self._stop_hearing = hear_others(self._listener.db, self._heard)

    def stop(self) -> None:
        self._listener.stop()
        for tap in self._taps:
            tap.disconnect()
        if self._stop_hearing is not None:
            self._stop_hearing()

    def watch(self, oids: Iterable[bytes]) -> None:
        """From now on, wake when one of these objects is changed by another process."""
        self._bells = frozenset(oids)

    def listen(self, oids: Iterable[bytes], wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` too when another process changes one of these, or may have.

        Answers what ends that.  `wake` is called in any thread, and must not block.
        """
        key = object()
        self._guests[key] = frozenset(oids), wake
        return lambda: self._guests.pop(key, None) and None

    def changed(self, oids: Iterable[bytes]) -> None:
        """Another process changed these objects."""
        if not self._bells.isdisjoint(oids):
            self._wake()
        for watched, wake in list(self._guests.values()):
            if not watched.isdisjoint(oids):
                wake()

    def _heard(self) -> None:
        """Another process says that it did something, and not what."""
        self._wake()
        for _, wake in list(self._guests.values()):
            wake()


class Tap:
    """Stands between a storage and the adapter of its database, and listens in.

    A storage tells the object that was last given to its `registerDB` of other clients' commits
    (ZODB.interfaces.IStorageWrapper); this passes everything on.
    """

    def __init__(self, storage: Any, target: Any, hints: Hints) -> None:
        self._storage = storage
        self._target = target
        self._hints = hints

    def connect(self) -> None:
        self._storage.registerDB(self)

    def disconnect(self) -> None:
        self._storage.registerDB(self._target)

    def invalidate(self, transaction_id: bytes, oids: Iterable[bytes]) -> None:
        oids = list(oids)
        self._target.invalidate(transaction_id, oids)
        self._hints.changed(oids)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


def _tap(db: Any, hints: Hints) -> Tap | None:
    """A tap for a storage that tells of the commits of others; None for any other."""
    adapter = db._mvcc_storage
    if adapter is db.storage or not hasattr(db.storage, "registerDB"):
        return None  # such a storage learns of others only when a transaction begins
    return Tap(db.storage, adapter, hints)
