# SPDX-License-Identifier: ZPL-2.1
"""How the state of a job lies in its record."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from persistent.mapping import PersistentMapping
from ZODB.serialize import ObjectWriter, referencesf

from tests.support.bench import Bench
from tests.unit.job.things import multiply
from zasync.interfaces import ACTIVE, PENDING
from zasync.job import Job
from zasync.job.record import Place, packed, unpacked

FULL = {
    "_status": ACTIVE,
    "_begin_after": 1_700_000_000_000_000,
    "_token": 2**61 + 1,
    "_active_start": 1_700_000_000_000_001,
    "_active_end": -1,
    "_callbacks_end": 0,
    "_names": ("partial", ("global", "a.b", "c")),
    "_args": (1, "two", 3.0, b"four", None, True),
    "_parent": None,
    "_place": 7,
    "_result": "done",
}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"_place": Place(("a", "b"), "ready", 2**62)},
        {"_args": (1, ["changed", "in place"])},
        {"_result": {"a": [1]}},
        {"_kwargs": {"name": "value"}},
        {"_kwargs": {"name": ["value"]}},
        {"_assigner": 2**127, "_alone": True},
        {"_quota_names": ("a",), "_interrupted": ((None, ()),)},
    ],
)
def test_a_state_comes_back_as_it_was(more: dict[str, Any]) -> None:
    state = {**FULL, **more}
    found = unpacked(packed(dict(state)))
    assert found == state
    assert {name: type(value) for name, value in found.items()} == {
        name: type(value) for name, value in state.items()
    }


def test_what_is_not_there_is_none_or_empty() -> None:
    found = unpacked(packed({"_status": PENDING}))
    assert found.pop("_status") == PENDING
    assert found.pop("_names") == found.pop("_args") == ()
    assert set(found.values()) == {None}


def test_a_record_of_before_is_read() -> None:
    """As it was written, with each value as a part of its own."""
    numbers = (FULL["_begin_after"], FULL["_token"], FULL["_active_start"], -(2**63), -(2**63))
    head = struct.pack(">B5q", 3, *numbers)
    old = (head, FULL["_names"], FULL["_args"], None, 7, "done", {"_kwargs": {"a": 1}})
    assert unpacked(old) == {
        **FULL,
        "_active_end": None,
        "_callbacks_end": None,
        "_kwargs": {"a": 1},
    }
    assert unpacked(old[:6]).keys() == FULL.keys()


def test_small_values_are_one_string_for_zodb() -> None:
    inner, parent, *rest = packed({**FULL, "_kwargs": {"a": 1}, "_assigner": 5})
    assert type(inner) is bytes
    assert parent is None
    assert rest == []


@pytest.mark.parametrize("where", ["argument", "named argument", "result"])
def test_zodb_sees_the_persistent_objects_in_a_record(bench: Bench, where: str) -> None:
    thing = PersistentMapping()
    bench.keep(thing)
    job = bench.keep(
        Job(multiply, *[thing] * (where == "argument"))
        if where != "named argument"
        else Job(multiply, number=thing)
    )
    if where == "result":
        job._result = thing
        bench.manager.commit()
    assert thing._p_oid in referencesf(ObjectWriter(job).serialize(job))


def test_a_stored_job_is_read_as_it_was(bench: Bench) -> None:
    moment = datetime(2030, 1, 2, tzinfo=UTC)
    job = Job(multiply, 2, number=3)
    job.begin_after, job.begin_by, job.quota_names = moment, timedelta(hours=1), ("a",)
    bench.keep(job)
    with bench.elsewhere() as there:
        found = there(job)
        assert (found.args, found.kwargs) == ([2], {"number": 3})
        assert (found.begin_after, found.begin_by) == (moment, timedelta(hours=1))
        assert found.quota_names == ("a",)
