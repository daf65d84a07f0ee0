# SPDX-License-Identifier: ZPL-2.1
"""Where values lie, what counts as plain, and what the database can take."""

from __future__ import annotations

import copy
import pickle
import threading
import zoneinfo
from datetime import UTC, datetime, time, timezone
from typing import Any

import pytest
from persistent.wref import WeakRef
from ZODB.DB import DB
from ZODB.DemoStorage import DemoStorage

from tests.support.bench import Bench
from zasync.failure import Failure
from zasync.interfaces import NotStorableError
from zasync.job import Box, Job, Payload
from zasync.job.values import (
    INLINE_LIMIT,
    WatchedDict,
    WatchedList,
    boxed,
    check_storable,
    is_plain,
    unboxed,
    weight,
)

from .things import Counter, Plain, multiply

NOON = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
PLAIN = [None, 1, 2.5, True, "text", b"bytes", (1, [2, {3: {4}}]), NOON, time(1)]


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_values_lie_in_the_record(value: Any) -> None:
    assert is_plain(value)
    assert boxed(value) is value


NOT_PLAIN = [
    Plain(),
    [[[[[[[1]]]]]]],
    "x" * INLINE_LIMIT,
    list(range(INLINE_LIMIT)),
    {"a": Plain()},
    {Plain(): 1},
    datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")),
    type("Text", (str,), {})("text"),
    multiply,
]


@pytest.mark.parametrize("value", NOT_PLAIN, ids=lambda value: type(value).__name__)
def test_other_values_lie_in_a_box(value: Any) -> None:
    assert not is_plain(value)
    assert isinstance(boxed(value), Box)
    assert unboxed(boxed(value)) is value


def test_a_persistent_object_is_referred_to_but_has_to_be_looked_at() -> None:
    counter = Counter()

    assert boxed(counter) is counter
    assert boxed([counter]) == [counter]
    assert not is_plain(counter)


def test_a_failure_needs_no_box_whatever_its_size() -> None:
    failure = Failure(ValueError("x" * 5000))

    assert boxed(failure) is failure


def test_a_fixed_zone_is_plain_and_another_is_not() -> None:
    class Zone(zoneinfo.ZoneInfo):
        pass

    assert weight(datetime(2026, 1, 1, tzinfo=timezone.min)) == 8
    assert weight(time(1, tzinfo=Zone("UTC"))) > INLINE_LIMIT


def test_a_payload_holds_what_it_was_given() -> None:
    payload = Payload(1, [2], {"a": 3})

    assert (payload.target, payload.args, payload.kwargs) == (1, [2], {"a": 3})


# Views


@pytest.mark.parametrize(
    "change",
    [
        lambda view: view.append(4),
        lambda view: view.extend([4, 5]),
        lambda view: view.insert(0, 9),
        lambda view: view.pop(),
        lambda view: view.remove(1),
        lambda view: view.clear(),
        lambda view: view.sort(reverse=True),
        lambda view: view.reverse(),
        lambda view: view.__setitem__(0, 8),
        lambda view: view.__setitem__(slice(0, 2), [8]),
        lambda view: view.__delitem__(1),
        lambda view: view.__iadd__([6]),
        lambda view: view.__imul__(2),
    ],
)
def test_each_change_of_a_list_in_place_is_stored(change: Any) -> None:
    stored = [1, 2, 3]
    expected = [1, 2, 3]
    change(expected)
    written: list[Any] = []

    def write(values: list[Any]) -> None:
        written.append(values)
        stored[:] = values

    view = WatchedList(lambda: list(stored), write)

    change(view)

    assert written == [expected]
    assert view == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda view: view.pop("a"),
        lambda view: view.popitem(),
        lambda view: view.clear(),
        lambda view: view.update(b=3, c=4),
        lambda view: view.setdefault("c", 5),
        lambda view: view.__setitem__("a", 6),
        lambda view: view.__delitem__("a"),
        lambda view: view.__ior__({"d": 7}),
    ],
)
def test_each_change_of_a_dict_in_place_is_stored(change: Any) -> None:
    stored: dict[str, Any] = {"a": 1, "b": 2}
    expected = dict(stored)
    change(expected)

    def write(values: dict[str, Any]) -> None:
        stored.clear()
        stored.update(values)

    view = WatchedDict(lambda: dict(stored), write)

    change(view)

    assert stored == expected
    assert view == expected


def test_an_old_view_does_not_undo_what_was_stored_since() -> None:
    stored = [1]

    def write(values: list[Any]) -> None:
        stored[:] = values

    view = WatchedList(lambda: list(stored), write)
    stored.append(2)

    view.append(3)

    assert stored == [1, 2, 3]


def test_a_change_that_is_refused_is_not_seen() -> None:
    def refuse(values: Any) -> None:
        raise ValueError("refused")

    view = WatchedList(lambda: [1], refuse)

    with pytest.raises(ValueError, match="refused"):
        view.append(2)

    assert view == [1]


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))]
)
def test_copies_of_views_are_plain(copied: Any) -> None:
    job = Job(multiply, 1, b=2)

    assert type(copied(job.args)) is list
    assert type(copied(job.kwargs)) is dict
    assert copied(job.args) == [1]
    assert copied(job.kwargs) == {"b": 2}


# Whether the database takes it


def test_what_cannot_be_pickled_is_named() -> None:
    with pytest.raises(NotStorableError, match=r"the argument cannot be stored: .*lock.*TypeError"):
        check_storable("the argument", [threading.Lock()], None)


def test_new_persistent_objects_are_looked_into(bench: Bench) -> None:
    counter = Counter(threading.Lock())  # type: ignore[arg-type]

    with pytest.raises(NotStorableError, match="it cannot be stored"):
        check_storable("it", {"a": [counter, counter]}, bench.connection)


def test_stored_persistent_objects_are_not_looked_into(bench: Bench) -> None:
    counter = bench.keep(Counter())
    counter.value = threading.Lock()

    check_storable("it", counter, bench.connection)
    bench.manager.abort()


def test_classes_and_weak_references_are_storable(bench: Bench) -> None:
    check_storable("it", [Counter, WeakRef(bench.keep(Counter()))], bench.connection)


def test_an_object_of_an_unconnected_database_is_refused(bench: Bench) -> None:
    other = DB(DemoStorage())
    connection = other.open(transaction_manager=bench.manager)
    foreign = Counter()
    connection.add(foreign)

    with pytest.raises(NotStorableError, match=r"Counter .*another connection"):
        check_storable("it", [foreign], bench.connection)
    check_storable("it", [foreign], None)

    bench.manager.abort()
    other.close()


def test_an_object_of_a_connected_database_is_taken(bench: Bench) -> None:
    databases: dict[str, Any] = {}
    one = DB(DemoStorage(), database_name="one", databases=databases)
    two = DB(DemoStorage(), database_name="two", databases=databases)
    connection = one.open(transaction_manager=bench.manager)
    there = Counter()
    connection.get_connection("two").add(there)

    check_storable("it", there, connection)

    bench.manager.abort()
    one.close()
    two.close()


def test_an_argument_that_is_too_large_is_refused_with_advice(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotStorableError, match=r"argument 0 of .* takes 16,777,2.*blob"):
        bench.queue.put(Job(multiply, b"x" * Job.largest_argument))
    with pytest.raises(NotStorableError, match="argument 'b' of"):
        bench.queue.put(Job(multiply, 1, b=b"x" * Job.largest_argument))
    monkeypatch.setattr(Job, "largest_argument", None)
    bench.queue.put(Job(multiply, b"x" * (16 * 2**20)))


def test_a_large_argument_is_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.queue.put(Job(multiply, b"x" * 2**20))
    assert "argument 0 of tests.unit.job.things.multiply takes 10" in caplog.text
