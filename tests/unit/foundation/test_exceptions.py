# SPDX-License-Identifier: ZPL-2.1
"""What is kept of an exception: always something, never too much."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from typing import Any

import pytest
import zodbpickle.pickle
from persistent import Persistent

from zasync.foundation.exceptions import describe, describe_without_traceback
from zasync.foundation.tracebacks import State, traceback_text

SECRET = "hunter2"
TOP = "at the top"


class Document(Persistent):
    def __repr__(self) -> str:
        raise AssertionError("a persistent object was asked for its repr")

    __str__ = __repr__


def kept_of(function: Callable[[], object], *, capture_variables: bool = False) -> State:
    try:
        function()
    except BaseException as error:
        cls = type(error)
        trace = sys.exc_info()[2]
        return describe(error, cls, trace, capture_variables=capture_variables)
    raise AssertionError("nothing was raised")


def raising(error: BaseException) -> Callable[[], object]:
    def function() -> None:
        raise error

    return function


def divide() -> float:
    return 1 / 0


def size_of(state: State, protocol: int = 3) -> int:
    return len(pickle.dumps(state, protocol))


# Exceptions that misbehave


def hostile(**names: Any) -> BaseException:
    return type("Hostile", (Exception,), names)("argument")  # type: ignore[no-any-return]


def endless(self: object) -> str:
    return str(self)


def broken(self: object, *args: object) -> str:
    raise RuntimeError("from within")


MISBEHAVING: dict[str, Callable[[], BaseException]] = {
    "text raises": lambda: hostile(__str__=broken, __repr__=broken),
    "text recurses": lambda: hostile(__str__=endless, __repr__=endless),
    "text is none": lambda: hostile(__str__=lambda self: 5, __repr__=lambda self: None),
    "args": lambda: hostile(args=property(broken)),
    "args is no tuple": lambda: hostile(args=5),
    "dict": lambda: hostile(__dict__=property(broken)),
    "dict is none": lambda: hostile(__dict__=5),
    "notes": lambda: hostile(__notes__=property(broken)),
    "notes are none": lambda: hostile(__notes__=5),
    "notes raise": lambda: hostile(__notes__=[hostile(__str__=broken)]),
    "causes": lambda: hostile(__cause__=property(broken), __context__=property(broken)),
    "suppression": lambda: hostile(__suppress_context__=property(broken)),
    "traceback": lambda: hostile(__traceback__=property(broken)),
    "traceback is none": lambda: hostile(__traceback__=5),
    "class": lambda: hostile(__class__=property(broken)),
    "every attribute": lambda: hostile(__getattribute__=broken),
    "module": lambda: hostile(__module__=5),
    "comparing": lambda: hostile(__bool__=broken, __len__=broken, __eq__=broken, __hash__=None),
    "argument without class": lambda: ValueError(hostile(__class__=property(broken))),
    "arguments raise": lambda: ValueError(hostile(__repr__=broken), [hostile(__str__=broken)]),
    "persistent argument": lambda: ValueError(Document()),
    "persistent arguments": lambda: ValueError("x", [Document()], {"a": Document()}),
}


@pytest.mark.parametrize("name", MISBEHAVING)
def test_an_exception_that_misbehaves_is_kept(name: str) -> None:
    error = MISBEHAVING[name]()

    state = kept_of(raising(error), capture_variables=True)

    assert state["type"][1] == type(error).__qualname__
    assert state["parents"][0] == state["type"]
    assert [frame[0] for frame in state["frames"]] == ["kept_of", "function"]
    assert type(error).__name__ in traceback_text(state)
    assert pickle.loads(pickle.dumps(state)) == state


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_what_ends_processes_is_not_swallowed(ending: type[BaseException]) -> None:
    def interrupted(self: object) -> str:
        raise ending

    with pytest.raises(ending):
        kept_of(raising(hostile(__str__=interrupted)))
    with pytest.raises(ending):
        kept_of(raising(hostile(__notes__=property(interrupted))))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyError(Document()), "DOCUMENT"),
        (LookupError("not here", Document()), "('not here', DOCUMENT)"),
        (ValueError([Document()]), "[DOCUMENT]"),
        (ValueError({"it": Document()}), "{'it': DOCUMENT}"),
        (ValueError(("it", {1: [Document()]})), None),
    ],
)
def test_persistent_objects_in_the_arguments_are_not_asked(
    error: BaseException, message: str | None
) -> None:
    state = kept_of(raising(error))

    if message is not None:
        name = f"{__name__}.Document (no oid yet)"
        assert state["message"] == message.replace("DOCUMENT", name)
    assert "AssertionError" not in str(state["args"])


def test_arguments_that_change_while_they_are_looked_at_are_kept() -> None:
    class Changing:
        @property
        def __class__(self) -> Any:
            numbers.add(len(numbers))
            return Changing

    numbers: set[Any] = {Changing(), Changing()}

    assert kept_of(raising(ValueError(numbers)))["message"].startswith("<builtins.set whose repr()")


# Sizes


def recurse(depth: int) -> None:
    if not depth:
        raise ValueError("at the bottom")
    recurse(depth - 1)


def test_of_a_deep_stack_the_ends_are_kept() -> None:
    state = kept_of(lambda: recurse(500))

    assert len(state["frames"]) == 30
    assert state["frames"][0][0] == "kept_of"
    text = traceback_text(state)
    assert f"\n  [{500 + 1 + 2 - 30} frames left out]\n" in text
    assert text.index("frames left out") < text.index("raise ValueError")
    assert "frames left out" in traceback_text(state, "brief")


def test_a_recursion_error_is_kept() -> None:
    state = kept_of(lambda: endless(Looping()))

    assert state["type"] == ("builtins", "RecursionError")
    assert len(traceback_text(state)) < 10_000


class Looping:
    __str__ = endless


WIDE = "🙂" * 300


def wide_error() -> BaseException:
    """All that is kept, as large as it can be, in characters of four bytes."""
    base: type = Exception
    for number in range(100):
        base = type(f"{WIDE}{number}", (base,), {"__module__": f"{WIDE}{number}"})
    error = base(*[f"{number}{WIDE * 100}" for number in range(100)], b"x" * 100_000, 1 << 1000)
    for number in range(100):
        setattr(error, f"{number}🙂", f"{number}{WIDE}")
        error.add_note(f"{number}{WIDE * 100}")
    error.__cause__ = ValueError(WIDE * 100)
    return error  # type: ignore[no-any-return]


def wide_recursion(depth: int) -> None:
    source = "def f(next, depth):\n" + "".join(
        f"    v{'ß' * 90}{depth}_{number} = {WIDE!r}\n" for number in range(40)
    )
    names: dict[str, Any] = {}
    code = compile(source + "    next(depth - 1)\n", f"{WIDE}{depth}", "exec")
    exec(code, names)
    names["f"](wide_recursion if depth else raising_wide, depth)


def raising_wide(depth: int) -> None:
    raise wide_error()


@pytest.mark.parametrize("captured", [False, True])
def test_whatever_the_exception_not_more_than_32_kib_are_kept(captured: bool) -> None:
    state = kept_of(lambda: wide_recursion(50), capture_variables=captured)

    assert 16 * 1024 < size_of(state) <= 32 * 1024
    assert len(zodbpickle.pickle.dumps(state, 3)) <= 32 * 1024
    assert len(state["frames"]) == 30
    assert traceback_text(state, "verbose")


def test_a_text_of_100_mb_is_cut_at_its_own_limit_only() -> None:
    state = kept_of(raising(ValueError("x" * 100_000_000)))

    assert 8180 <= len(state["message"]) <= 8192
    assert state["args"] == (state["message"],)
    assert state["frames"][-1][2] > 0


def test_arguments_of_many_plain_values_are_bounded() -> None:
    nested: Any = (1, 2.5, None)
    for _ in range(12):
        nested = (nested, nested)

    state = kept_of(raising(ValueError(nested, *[tuple(range(10_000))] * 100)))

    assert size_of(state) < 32 * 1024
    assert state["args"][-1] == "... (101 in all)"
    assert len(state["args"]) == 17


def test_a_number_that_python_does_not_print_is_kept_as_text() -> None:
    state = kept_of(raising(ValueError(1 << 99_999, 7)))

    assert state["args"] == ("<int of 100000 bits>", 7)


def test_many_long_arguments_are_cut() -> None:
    state = kept_of(raising(ValueError("a" * 5000, "b" * 5000, b"c" * 5000)))

    first, second, third = state["args"]
    assert first == "a" * 5000
    assert len(second) < 4000
    assert third.startswith("b'ccc")


def test_bytes_are_cut_if_the_whole_is_too_large() -> None:
    error = ValueError(b"x" * 8000)
    for number in range(8):
        error.add_note(f"{number}" + "🙂" * 1000)

    state = kept_of(raising(error))

    assert size_of(state) <= 32 * 1024
    assert 0 < len(state["args"][0]) < 8000


def test_what_names_a_secret_is_no_attribute() -> None:
    error = ValueError("x")
    vars(error).update({"status": 429, "api_key": SECRET, "body": object(), 5: "odd"})

    assert kept_of(raising(error))["attributes"] == (("status", 429),)


def test_attributes_are_bounded_in_number_and_size() -> None:
    error = ValueError("x")
    vars(error).update({f"a{number}": number for number in range(100)})
    large = ValueError("x")
    vars(large).update({"large": "x" * 5000, "small": "y"})

    assert len(kept_of(raising(error))["attributes"]) == 16
    assert kept_of(raising(large))["attributes"] == (("small", "y"),)


@pytest.mark.parametrize(
    ("error", "args"),
    [
        (OSError(5, "Input/output error"), (5, "Input/output error")),
        (OSError(2, "No such file", "here"), (2, "No such file", "here")),
        (
            OSError(18, "Cross-device", "here", None, "there"),
            (18, "Cross-device", "here", None, "there"),
        ),
    ],
)
def test_the_files_of_an_oserror_are_among_its_arguments(
    error: OSError, args: tuple[object, ...]
) -> None:
    assert kept_of(raising(error))["args"] == args


# Causes


def test_a_long_chain_of_causes_is_cut() -> None:
    first = error = ValueError("0")
    for number in range(1, 1000):
        error.__cause__ = ValueError(str(number))
        error = error.__cause__

    text = traceback_text(kept_of(raising(first)))

    assert text.startswith("(earlier exceptions left out)\n")
    assert len(text) < 10_000
    assert "ValueError: 8\n" in text
    assert "ValueError: 9\n" not in text


def test_causes_that_go_round_in_a_ring_end() -> None:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__context__ = second, first

    text = traceback_text(kept_of(raising(first)))

    assert text.count("ValueError: first") == text.count("KeyError: 'second'") == 1


def test_a_context_that_was_suppressed_is_not_kept() -> None:
    def fail() -> None:
        try:
            divide()
        except ZeroDivisionError:
            raise KeyError("x") from None

    assert "ZeroDivisionError" not in traceback_text(kept_of(fail))


def test_a_context_is_told() -> None:
    def fail() -> None:
        try:
            divide()
        except ZeroDivisionError:
            raise KeyError("x")  # noqa: B904

    assert "During handling of the above exception" in traceback_text(kept_of(fail))


def test_members_of_a_group_are_told() -> None:
    group = ExceptionGroup("all of it", [ValueError("one")] * 20)

    text = traceback_text(kept_of(raising(group)))

    assert "builtins.ExceptionGroup: all of it (20 sub-exceptions)\n" in text
    assert "[exception 8 of 20]\n" in text
    assert "[exception 9 of 20]\n" not in text


# Frames and variables


def test_a_loader_that_fails_leaves_out_the_source() -> None:
    class Loader:
        def get_source(self, name: str) -> str:
            raise RuntimeError(name)

    names = {"__name__": "made", "__loader__": Loader()}
    code = compile("1/0", "made-by-a-loader", "exec")

    state = kept_of(lambda: exec(code, names))

    assert state["frames"][-1][:4] == ("<module>", "made-by-a-loader", 1, "")


def test_frames_that_others_have_kept_are_taken_as_they_are() -> None:
    frames = [("function", "file.py", 3, (), ()), (None, None, None)]

    state = describe_without_traceback("text", ("gone", "Error"), (), frames)

    assert state["frames"] == (
        ("function", "file.py", 3, "", (), ()),
        ("None", "None", 0, "", (), ()),
    )
    assert state["message"] == "text"


def test_the_variables_of_a_module_are_its_local_ones() -> None:
    code = compile("import sys\nclass C: pass\ndef f(): pass\nx = 5\n1/0", "module", "exec")

    state = kept_of(lambda: exec(code, {"__name__": "module", 5: 6}), capture_variables=True)

    assert state["frames"][-1][4:] == ((("x", "5"),), ())


def test_the_body_of_a_class_may_run_in_a_mapping_that_fails() -> None:
    class Names(dict):  # type: ignore[type-arg]
        def items(self) -> Any:
            raise RuntimeError

    class Meta(type):
        @classmethod
        def __prepare__(cls, name: str, bases: Any, **options: Any) -> Any:
            return Names()

    def fail() -> None:
        class Odd(metaclass=Meta):
            here = 5
            raise ValueError(here)

    state = kept_of(fail, capture_variables=True)

    assert state["frames"][-1][0] == "Odd"
    assert state["frames"][-1][4] == ()


def test_the_last_frames_are_served_first_with_variables() -> None:
    def fail(depth: int, a: int, b: int, c: int) -> None:
        if not depth:
            raise ValueError(TOP)
        fail(depth - 1, a, b, c)

    state = kept_of(lambda: fail(28, 1, 2, 3), capture_variables=True)

    assert dict(state["frames"][-1][4])["depth"] == "0"
    assert state["frames"][-1][5] == (("TOP", "'at the top'"),)
    assert state["frames"][0][4] == ()
    assert sum(len(frame[4]) + len(frame[5]) for frame in state["frames"]) == 64


def test_what_looks_like_a_secret_is_not_among_the_variables() -> None:
    def fail(password: str) -> None:
        settings = {"token": password, "user": "me"}
        raise ValueError(len(settings))

    state = kept_of(lambda: fail(SECRET), capture_variables=True)

    assert SECRET.encode() not in pickle.dumps(state)
    assert ("password", "<redacted>") in state["frames"][-1][4]
    assert ("settings", "{'token': <redacted>, 'user': 'me'}") in state["frames"][-1][4]
