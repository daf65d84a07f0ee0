# SPDX-License-Identifier: ZPL-2.1
"""Text about values of unknown origin."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque, namedtuple
from typing import Any

import pytest
import transaction
import ZODB
from persistent import Persistent
from persistent.mapping import PersistentMapping

from zasync.foundation.text import (
    bounded_text,
    class_address,
    class_name,
    is_persistent,
    looks_secret,
    persistent_name,
    printable,
    safe_repr,
    safe_str,
)


class Document(Persistent):
    def __repr__(self) -> str:
        raise AssertionError("a persistent object was asked for its repr")

    __str__ = __repr__


class Raising:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __repr__(self) -> str:
        raise self.error

    __str__ = __repr__


# bounded_text


def test_a_short_text_stays_as_it_is() -> None:
    assert bounded_text("abc", 3) == "abc"


def test_of_a_long_text_the_beginning_and_the_end_are_kept() -> None:
    cut = bounded_text("begin" + "x" * 1000 + "the end", 100)

    assert 98 <= len(cut) <= 100
    assert cut.startswith("beginxx")
    assert cut.endswith("xxthe end")


def test_a_cut_text_says_how_much_is_missing() -> None:
    cut = bounded_text("x" * 1000, 100)

    kept = cut.count("x")
    assert f"[{1000 - kept} characters left out]" in cut


@pytest.mark.parametrize("limit", range(60))
def test_no_limit_is_too_small(limit: int) -> None:
    assert len(bounded_text("x" * 200, limit)) <= limit


def test_a_negative_limit_leaves_nothing() -> None:
    assert bounded_text("abc", -1) == ""


def test_a_string_that_lies_about_its_length_is_cut_all_the_same() -> None:
    class Liar(str):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: Any) -> str:
            return "endless" * 1000

    cut = bounded_text(Liar("x" * 1000), 50)

    assert type(cut) is str
    assert len(cut) <= 50


# printable


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("back\x08\x08", "back\\x08\\x08"),
        ("over\rwritten", "over\\rwritten"),
        ("\x00\x7f\x9b", "\\x00\\x7f\\x9b"),
        ("\u202etxt.exe", "\\u202etxt.exe"),
        ("one\u2028two", "one\\u2028two"),
        ("half \ud83d", "half \\ud83d"),
        ("naïve 日本 🙂\u00a0!", "naïve 日本 🙂\u00a0!"),
        ("line\n\tindented", "line\n\tindented"),
    ],
)
def test_what_drives_a_terminal_is_escaped(raw: str, shown: str) -> None:
    assert printable(raw) == shown


def test_one_line_has_no_line_breaks() -> None:
    assert printable("a\n\tERROR forged", one_line=True) == "a\\n\\tERROR forged"


def test_what_is_printable_can_be_encoded() -> None:
    everything = "".join(map(chr, range(0x11000)))

    assert printable(everything).encode("utf-8")


# names


@pytest.mark.parametrize(
    "name",
    ["password", "DB_PASSWD", "apiKey", "access_token", "clientSecret", "Authorization", "cookies"],
)
def test_names_of_secrets_are_known(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize("name", ["name", "author", "index", "pass_count", "x"])
def test_other_names_are_not_secret(name: str) -> None:
    assert not looks_secret(name)


def test_a_class_is_named_with_its_module() -> None:
    assert class_name(OrderedDict) == "collections.OrderedDict"
    assert class_address(int) == ("builtins", "int")


def test_a_class_without_a_proper_module_has_a_name_too() -> None:
    Odd = type("Odd", (), {"__module__": 5})

    assert class_name(Odd) == "?.Odd"


def test_a_metaclass_has_no_say_in_the_name() -> None:
    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            raise RuntimeError(name)

    Odd = Meta("Odd", (), {"__module__": "here"})

    assert class_name(Odd) == "here.Odd"


# safe_str


def test_a_text_that_str_gives_is_bounded() -> None:
    assert safe_str(ValueError("x" * 1000), 50).count("x") < 50


@pytest.mark.parametrize("error", [ValueError("x"), RecursionError(), MemoryError()])
def test_a_str_that_raises_is_told(error: BaseException) -> None:
    text = safe_str(Raising(error), 200)

    assert "Raising whose str() raised builtins." + type(error).__name__ in text


def test_a_str_that_answers_no_string_is_told() -> None:
    class Wrong:
        def __str__(self) -> str:
            return 5  # type: ignore[return-value]

    assert "whose str() raised builtins.TypeError" in safe_str(Wrong(), 200)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_what_ends_processes_goes_through_str(error: BaseException) -> None:
    with pytest.raises(type(error)):
        safe_str(Raising(error), 200)


# safe_repr


Point = namedtuple("Point", "x y")


class Names(list):  # type: ignore[type-arg]
    pass


class Hiding(dict):  # type: ignore[type-arg]
    def __repr__(self) -> str:
        return "<hidden>"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (True, "True"),
        (-12, "-12"),
        (1.5, "1.5"),
        ("it's", '"it\'s"'),
        (b"\x00a", "b'\\x00a'"),
        (bytearray(b"ab"), "b'ab'"),
        ([1, [2]], "[1, [2]]"),
        ([], "[]"),
        ((), "()"),
        ((1,), "(1,)"),
        ((1, 2), "(1, 2)"),
        ({}, "{}"),
        ({"a": {1: 2}}, "{'a': {1: 2}}"),
        (set(), "set()"),
        ({1}, "{1}"),
        (frozenset(), "frozenset()"),
        (frozenset([1]), "frozenset({1})"),
        (deque([1]), "deque([1])"),
        (OrderedDict(a=1), "{'a': 1}"),
        (defaultdict(int, a=1), "{'a': 1}"),
        (Names([1]), "Names([1])"),
        (Hiding(a=1), "<hidden>"),
        (Point(1, 2), "Point(x=1, y=2)"),
        (ValueError("x", [1]), "ValueError('x', [1])"),
        (int, "<class 'int'>"),
        (Document, f"<class '{__name__}.Document'>"),
    ],
)
def test_plain_values_are_shown_as_they_are_typed(value: object, text: str) -> None:
    assert safe_repr(value) == text


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10_000_000,
        b"x" * 10_000_000,
        10**10_000,
        list(range(1_000_000)),
        dict.fromkeys(range(1_000_000)),
        [["x" * 1000] * 1000] * 1000,
        type("C", (), {"__repr__": lambda self: "y" * 10_000_000})(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_huge_value_has_a_short_repr(value: object) -> None:
    assert len(safe_repr(value)) <= 200
    assert len(safe_repr(value, limit=40)) <= 40


def test_a_long_container_says_how_long_it_is() -> None:
    assert safe_repr(list(range(100))) == "[0, 1, 2, 3, 4, 5, 6, 7, ... (100 in all)]"


def test_a_long_text_is_cut_once() -> None:
    assert safe_repr("x" * 1000, limit=100).count("left out") == 1


def test_a_long_number_says_how_long_it_is() -> None:
    assert safe_repr(1 << 99_999) == "<int of 100000 bits>"


def test_long_bytes_say_how_long_they_are() -> None:
    assert safe_repr(b"x" * 1000, limit=100) == f"{b'x' * 50!r}... (1000 bytes)"


def test_nested_containers_are_shown_to_a_limited_depth() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]

    assert safe_repr(nested) == "[[[[[...]]]]]"


def test_a_container_that_holds_itself_has_a_repr() -> None:
    loop: dict[str, Any] = {}
    loop["again"] = loop

    assert safe_repr(loop).startswith("{'again': {'again': ")


@pytest.mark.parametrize("error", [ValueError("x"), MemoryError()])
def test_a_repr_that_raises_is_told(error: BaseException) -> None:
    text = safe_repr([1, Raising(error), 2])

    assert text.startswith("[1, <")
    assert text.endswith(f"Raising whose repr() raised builtins.{type(error).__name__}>, 2]")


def test_a_repr_that_recurses_for_ever_is_told() -> None:
    class Endless:
        def __repr__(self) -> str:
            return repr(self)

    assert "whose repr() raised builtins.RecursionError" in safe_repr(Endless())


def test_a_container_that_cannot_be_read_is_told() -> None:
    class Broken(list):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            raise OSError

    assert "Broken whose repr() raised builtins.OSError" in safe_repr(Broken([1]))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_what_ends_processes_goes_through_repr(error: BaseException) -> None:
    with pytest.raises(type(error)):
        safe_repr([Raising(error)])


def test_a_repr_is_one_printable_line() -> None:
    class Forger:
        def __repr__(self) -> str:
            return "<\nCRITICAL all is lost \x1b[2J>"

    assert safe_repr(Forger()) == "<\\nCRITICAL all is lost \\x1b[2J>"


def test_nothing_is_shown_under_the_name_of_a_secret() -> None:
    text = safe_repr({"user": "me", "password": "hunter2", "deep": [{"token": "hunter2"}]})

    assert "hunter2" not in text
    assert "'user': 'me', 'password': <redacted>" in text


# persistent objects


def test_a_new_persistent_object_is_named_by_its_class() -> None:
    assert safe_repr([Document()]) == f"[{__name__}.Document (no oid yet)]"


def test_a_stored_persistent_object_is_named_by_oid_and_database_and_not_loaded() -> None:
    database = ZODB.DB(None, database_name="main")
    connection = database.open()
    connection.root()["document"] = Document()
    transaction.commit()
    connection.cacheMinimize()
    document = connection.root()["document"]

    text = safe_repr({"it": document})

    assert text == f"{{'it': {__name__}.Document (oid 1, db 'main')}}"
    assert document._p_changed is None  # still a ghost
    connection.close()
    database.close()


def test_an_exception_with_a_persistent_object_does_not_ask_it() -> None:
    assert safe_repr(ValueError(Document())) == f"ValueError({__name__}.Document (no oid yet))"


def test_a_stand_in_for_a_connection_tells_no_database_name() -> None:
    class Alike:
        _p_oid = b"\0" * 7 + b"\x1a"
        _p_jar = None

    assert persistent_name(Alike()).endswith("Alike (oid 26)")


def test_what_behaves_like_a_persistent_object_counts_as_one() -> None:
    class Alike:
        _p_oid = b"\0" * 8

    assert is_persistent(Alike())
    assert is_persistent(PersistentMapping())


def test_a_class_of_persistent_objects_is_not_itself_one() -> None:
    assert not is_persistent(Document)


def test_an_object_that_has_any_attribute_is_not_taken_for_a_persistent_one() -> None:
    class Anything:
        def __getattr__(self, name: str) -> str:
            return name

    assert not is_persistent(Anything())


def test_an_object_that_does_not_tell_its_class_is_not_taken_for_a_persistent_one() -> None:
    class Nameless:
        @property
        def __class__(self) -> Any:
            raise RuntimeError

    assert not is_persistent(Nameless())
    assert "Nameless object at" in safe_repr(Nameless())
