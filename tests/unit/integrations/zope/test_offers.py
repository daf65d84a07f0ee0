# SPDX-License-Identifier: ZPL-2.1
"""What a form can ask for, and what comes out of it."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from zasync import plugins
from zasync.integrations.zope import offers
from zasync.integrations.zope.offers import Field, NotOffered, WrongArguments
from zasync.plugins import Plugin, UnknownPlugin


def order(what, count: int, price: float = 1.5, gift: bool = False, *more, **others): ...


def needs_a_folder(folder: object): ...


def may_have_a_folder(name: str, folder: object = None): ...


def by_position(name: str, /): ...


def of_another_world(name: NoSuchType): ...  # type: ignore[name-defined]  # noqa: F821


FUNCTIONS = (order, needs_a_folder, may_have_a_folder, by_position, of_another_world)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    for function in FUNCTIONS:
        plugins.register(Plugin(function.__name__, function, f"{function.__name__}!"))
    yield
    for function in FUNCTIONS:
        plugins.unregister(function.__name__)


def test_arguments_become_fields_by_their_annotations():
    assert offers.fields_of("order") == (
        Field("what", "text"),
        Field("count", "integer"),
        Field("price", "number", 1.5),
        Field("gift", "choice", False),
    )
    assert offers.fields_of("may_have_a_folder") == (Field("name", "text"),)


def test_fields_are_told_to_people():
    what, count, price, gift = offers.fields_of("order")

    assert [what.label, Field("long_name_", "text").label] == ["What", "Long name"]
    assert [field.required for field in (what, count, price, gift)] == [True, True, False, False]
    assert [field.shown_default for field in (what, price, gift)] == ["", "1.5", ""]
    assert Field("sure", "choice", True).shown_default == "True"


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("needs_a_folder", "'folder' is not annotated"),
        ("by_position", "'name' is not annotated"),
        ("of_another_world", "NoSuchType"),
        ("aggregate", "made of other jobs"),
        ("nonsense", "no plugin 'nonsense'"),
    ],
)
def test_a_plugin_that_no_form_can_offer_says_why(name: str, complaint: str):
    with pytest.raises((NotOffered, UnknownPlugin), match=complaint):
        offers.fields_of(name)
    assert complaint in str(offers.problem_with(name))


def test_only_what_is_offered_can_be_asked_for():
    manager = SimpleNamespace(offered=("order",))

    assert offers.offered_fields(manager, "order")
    for name in ("may_have_a_folder", "os:system", "", "nonsense"):
        with pytest.raises(NotOffered):
            offers.offered_fields(manager, name)


def test_descriptions_are_those_of_the_plugins():
    assert offers.description_of("order") == "order!"
    assert offers.description_of("nonsense") == ""


def test_a_form_gives_the_arguments():
    fields = offers.fields_of("order")
    form = {"what": "a <b>", "count": " 7 ", "price": "", "gift": "yes"}

    assert offers.arguments(fields, form) == {"what": "a <b>", "count": 7, "gift": True}


def test_a_program_gives_the_arguments():
    fields = offers.fields_of("order")
    sent = {"what": "x", "count": 7, "price": 2, "gift": False}

    found = offers.arguments(fields, sent)

    assert found == {"what": "x", "count": 7, "price": 2.0, "gift": False}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("what", 7),
        ("what", ["x"]),
        ("what", "x" * 10_001),
        ("count", "1.5"),
        ("count", "seven"),
        ("count", True),
        ("count", 2**63),
        ("count", "9" * 49),
        ("count", "9" * 5000),
        ("count", 1.0),
        ("price", "inf"),
        ("price", "nan"),
        ("price", "cheap"),
        ("price", 10**400),
        ("price", {}),
        ("gift", 7),
        ("gift", ["yes"]),
        ("surprise", "!"),
    ],
)
def test_what_cannot_be_is_told_by_argument(name: str, value: Any):
    form = {"what": "x", "count": "7", name: value}

    with pytest.raises(WrongArguments) as caught:
        offers.arguments(offers.fields_of("order"), form)

    assert list(caught.value.errors) == [name]
    assert name in str(caught.value)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(WrongArguments) as caught:
        offers.arguments(offers.fields_of("order"), {"price": "x", "gift": "no"})

    assert sorted(caught.value.errors) == ["count", "price", "what"]
