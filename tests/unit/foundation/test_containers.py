# SPDX-License-Identifier: ZPL-2.1
"""The mapping that can be read, and its announcements.  Completed jobs: see test_agent."""

from __future__ import annotations

from typing import Any

import pytest
from persistent import Persistent
from zope.interface.common.mapping import IEnumerableMapping
from zope.interface.verify import verifyObject

from tests.support.queues import heard
from zasync.foundation.containers import CompletedCollection, ReadMapping
from zasync.interfaces import ICompletedCollection, IObjectAdded

__all__ = ["heard"]


class Item(Persistent):
    name: Any = None
    parent: Any = None


def test_the_containers_fulfil_their_interfaces() -> None:
    assert verifyObject(IEnumerableMapping, ReadMapping())
    assert verifyObject(ICompletedCollection, CompletedCollection())


def test_an_item_is_told_where_it_is_and_the_world_is_told(heard: Any) -> None:
    events = heard(IObjectAdded)
    mapping, item = ReadMapping(), Item()
    mapping._add("a", item)
    assert (item.name, item.parent) == ("a", mapping)
    assert mapping["a"] is item
    (event,) = events
    assert (event.object, event.parent, event.name) == (item, mapping, "a")


def test_an_item_in_the_place_of_another_sends_that_away() -> None:
    mapping, old, new = ReadMapping(), Item(), Item()
    mapping._add("a", old)
    mapping._add("a", new)
    assert (old.name, old.parent) == (None, None)
    mapping._add("a", new)
    assert (new.name, new.parent) == ("a", mapping)


def test_an_item_that_is_taken_knows_it() -> None:
    mapping, item = ReadMapping(), Item()
    mapping._add("a", item)
    assert mapping._take("a") is item
    assert (item.name, item.parent) == (None, None)
    assert not mapping
    with pytest.raises(KeyError):
        mapping._take("a")


def test_all_ways_of_reading_agree() -> None:
    mapping = ReadMapping()
    items = {name: Item() for name in "bca"}
    for name, item in items.items():
        mapping._add(name, item)
    assert list(mapping) == list(mapping.keys()) == ["a", "b", "c"]
    assert list(mapping.values()) == [items[name] for name in "abc"]
    assert dict(mapping.items()) == items
    assert len(mapping) == 3
    assert "a" in mapping
    assert "d" not in mapping
    assert mapping.get("a") is items["a"]
    assert mapping.get("d", 1) == 1
    assert mapping.get("d") is None
    with pytest.raises(KeyError):
        mapping["d"]
