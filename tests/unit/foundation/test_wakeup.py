# SPDX-License-Identifier: ZPL-2.1
"""Hints that there is work, within one process."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ZODB

from tests.support.queues import View, db, open_view, view
from zasync.foundation import wakeup
from zasync.foundation.wakeup import Listener, ring, ring_after_commit

__all__ = ["db", "open_view", "view"]


@pytest.fixture
def listen(db: Any) -> Iterator[Callable[..., list[str]]]:
    """`listen()` gives a list that gets an entry for each time its listener is woken."""
    listeners: list[Listener] = []

    def start(database: Any = db) -> list[str]:
        rings: list[str] = []
        listeners.append(Listener(database, lambda: rings.append("rung")))
        listeners[-1].start()
        return rings

    yield start
    for listener in listeners:
        listener.stop()


def test_a_ring_wakes_all_who_listen_for_that_database(db: Any, listen: Any) -> None:
    other_db = ZODB.DB(None)
    one, two, other = listen(), listen(), listen(other_db)
    ring(db)
    assert (one, two, other) == (["rung"], ["rung"], [])
    other_db.close()


def test_a_ring_in_one_database_of_several_wakes_who_listens_for_another(listen: Any) -> None:
    databases: dict[str, Any] = {}
    first = ZODB.DB(None, databases=databases, database_name="first")
    second = ZODB.DB(None, databases=databases, database_name="second")
    rings = listen(first)
    ring(second)
    assert rings == ["rung"]
    first.close()
    second.close()


def test_who_has_stopped_is_not_woken(db: Any, listen: Any) -> None:
    rings: list[str] = []
    listener = Listener(db, lambda: rings.append("rung"))
    others = listen()
    listener.start()
    listener.stop()
    listener.stop()
    ring(db)
    assert rings == []
    assert others == ["rung"]


def test_a_forgotten_listener_is_not_kept(db: Any) -> None:
    Listener(db, lambda: None).start()
    gc.collect()
    ring(db)
    left = Listener(db, lambda: None)
    left.stop()
    assert wakeup._listeners == []


def test_the_ring_comes_after_the_commit_and_once(view: View, listen: Any) -> None:
    rings = listen()
    seen: list[bool] = []
    listener = Listener(view.connection.db(), lambda: seen.append(view.root["done"]))
    listener.start()
    view.root["done"] = True
    for _ in range(3):
        ring_after_commit(view.connection)
    assert rings == []
    view.commit()
    listener.stop()
    assert rings == ["rung"]
    assert seen == [True]


def test_each_transaction_rings_anew(view: View, listen: Any) -> None:
    rings = listen()
    for number in range(2):
        view.root["number"] = number
        ring_after_commit(view.connection)
        view.commit()
    assert rings == ["rung", "rung"]


def test_an_aborted_transaction_does_not_ring(view: View, listen: Any) -> None:
    rings = listen()
    ring_after_commit(view.connection)
    view.abort()
    view.commit()
    assert rings == []


def test_a_transaction_that_fails_does_not_ring(view: View, open_view: Any, listen: Any) -> None:
    rings = listen()
    other = open_view()
    other.root["number"] = 1
    view.root["number"] = 2
    other.commit()
    ring_after_commit(view.connection)
    with pytest.raises(ZODB.POSException.ConflictError):
        view.commit()
    assert rings == []
