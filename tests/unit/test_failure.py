# SPDX-License-Identifier: ZPL-2.1
"""A Failure that is safe to keep."""

from __future__ import annotations

import copy
import gc
import io
import json
import pickle
import pickletools
import subprocess
import sys
import traceback
import weakref
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZODB
import zodbpickle.pickle
from persistent import Persistent
from twisted.internet import defer
from twisted.logger import eventAsJSON
from twisted.python.failure import Failure as TwistedFailure
from twisted.python.failure import NoCurrentExceptionError
from ZODB.POSException import ConflictError

from zasync.failure import Failure

HIGHEST = pickle.HIGHEST_PROTOCOL
SECRET = "hunter2"


class Outer:
    class InnerError(LookupError):
        pass


class Demanding(Exception):
    """Its text needs what only its `__init__` makes."""

    def __init__(self, *, code: int, body: object = None) -> None:
        self.code = code
        self.body = body

    def __str__(self) -> str:
        return f"code {self.code}, body {self.body.decode()}"  # type: ignore[attr-defined]


class Registered(Exception):
    """Notes its subclasses, as some libraries do, so there must be no others."""

    names: list[str] = []  # noqa: RUF012

    def __init_subclass__(cls) -> None:
        Registered.names.append(cls.__name__)

    def __init__(self) -> None:
        self.body = object()

    def __str__(self) -> str:
        return "nothing" if not hasattr(self, "body") else "something"


class Picky(Exception):
    def __new__(cls, *args: object) -> Picky:
        raise AssertionError("the class was called")


def failure_of(function: Callable[[], object], **options: Any) -> Failure:
    try:
        function()
    except BaseException:
        return Failure(**options)
    raise AssertionError("nothing was raised")


def raising(error: BaseException) -> Callable[[], object]:
    def function() -> None:
        raise error

    return function


def divide() -> float:
    return 1 / 0


def stored(failure: Failure) -> Failure:
    return pickle.loads(pickle.dumps(failure, 3))  # type: ignore[no-any-return]


@pytest.fixture(params=["live", "stored"])
def divided(request: pytest.FixtureRequest) -> Failure:
    failure = failure_of(divide)
    return failure if request.param == "live" else stored(failure)


# Making


def test_in_an_except_block_it_takes_the_current_exception() -> None:
    failure = failure_of(divide)

    assert failure.type is ZeroDivisionError
    assert [frame[0] for frame in failure.frames] == ["failure_of", "divide"]


def test_without_a_current_exception_there_is_none() -> None:
    with pytest.raises(NoCurrentExceptionError):
        Failure()


def test_of_an_exception_that_was_never_raised() -> None:
    failure = Failure(KeyError("x"))

    assert failure.type is KeyError
    assert failure.frames == []
    assert failure.getTraceback() == (
        "Traceback (most recent call last):\nFailure: builtins.KeyError: 'x'\n"
    )


def test_of_an_exception_that_was_raised_it_has_the_stack() -> None:
    try:
        divide()
    except ZeroDivisionError as error:
        caught = error

    failure = Failure(caught)

    assert failure.frames[-1][0] == "divide"


def test_the_arguments_of_twisteds_constructor_are_known() -> None:
    try:
        divide()
    except ZeroDivisionError as error:
        trace = error.__traceback__

    failure = Failure(KeyError("x"), LookupError, trace)

    assert failure.type is LookupError
    assert failure.frames[-1][0] == "divide"


def test_of_something_that_is_no_exception() -> None:
    failure = Failure("went wrong")  # as Twisted allows

    assert failure.getErrorMessage() == "went wrong"
    assert failure.type.__name__ == "str"
    with pytest.raises(Exception, match="went wrong"):
        failure.raiseException()


def test_of_one_of_twisteds_failures() -> None:
    try:
        divide()
    except ZeroDivisionError:
        theirs = TwistedFailure()

    failure = Failure.from_twisted(theirs)

    assert type(failure) is Failure
    assert failure.type is ZeroDivisionError
    assert failure.frames[-1][:1] == ("divide",)


def test_of_one_of_twisteds_failures_that_was_cleaned() -> None:
    try:
        divide()
    except ZeroDivisionError:
        theirs = TwistedFailure()
    theirs.cleanFailure()

    failure = Failure(theirs)

    assert failure.type is ZeroDivisionError
    assert failure.frames[-1][0] == "divide"
    assert "return 1 / 0" in failure.getTraceback()


def test_of_one_of_twisteds_failures_without_a_traceback() -> None:
    theirs = TwistedFailure(KeyError("x"))

    assert Failure(theirs).getErrorMessage() == "'x'"


def test_of_a_failure_that_another_process_has_sent() -> None:
    theirs = TwistedFailure(KeyError("x"))
    theirs.type = b"gone.Error"
    theirs.value = "remote text"
    theirs.parents = ["gone.Error", "builtins.LookupError"]

    failure = Failure(theirs)

    assert repr(failure) == "<zasync.failure.Failure gone.Error: remote text>"
    assert failure.check(LookupError) is LookupError
    assert failure.type.__module__ == "gone"


def test_of_a_failure_that_was_raised_itself() -> None:
    ours = failure_of(divide)

    again = failure_of(raising(ours))
    theirs = failure_of(raising(TwistedFailure(KeyError("x"))))

    assert again.getTraceback() == ours.getTraceback()
    assert theirs.type is KeyError


def test_one_of_ours_is_answered_as_it_is() -> None:
    failure = failure_of(divide)

    assert Failure.from_twisted(failure) is failure
    assert Failure(failure).getTraceback() == failure.getTraceback()


def test_a_subclass_keeps_its_class() -> None:
    assert type(stored(Special(ValueError("x")))) is Special


class Special(Failure):
    pass


# What is not kept


def test_neither_frames_nor_the_exception_live_on() -> None:
    class Local:
        pass

    class LocalError(Exception):
        pass

    references = []

    def fail() -> None:
        local, error = Local(), LocalError("x")
        references.extend([weakref.ref(local), weakref.ref(error)])
        raise error

    failure = failure_of(fail)
    gc.collect()

    assert [reference() for reference in references] == [None, None]
    assert failure.getErrorMessage() == "x"


def test_an_exception_that_is_given_does_not_live_on() -> None:
    class LocalError(Exception):
        pass

    error = LocalError("x")
    reference = weakref.ref(error)

    failure = Failure(error)
    del error
    gc.collect()

    assert reference() is None
    assert failure.check(LocalError)


def test_what_is_pickled_names_no_class_but_its_own() -> None:
    failure = failure_of(raising(Demanding(code=1, body=b"x")))

    names = {
        argument
        for opcode, argument, _ in pickletools.genops(pickle.dumps(failure, 3))
        if opcode.name == "GLOBAL"
    }

    assert names == {"zasync.failure Failure"}


def test_no_variable_is_kept_unless_asked_for() -> None:
    environment = SECRET

    def fail() -> None:
        password = environment
        raise ValueError(len(password))

    failure = failure_of(fail)

    assert SECRET.encode() not in pickle.dumps(failure)
    assert SECRET not in failure.getTraceback(detail="verbose")
    assert "not captured" in failure.getTraceback(detail="verbose")


def test_what_is_attached_to_it_when_it_is_raised_can_be_cleaned() -> None:
    failure = failure_of(divide)
    try:
        raise failure from KeyError("x")
    except Failure:
        pass

    failure.cleanFailure()

    assert failure.__traceback__ is failure.__cause__ is failure.__context__ is None
    assert failure.type is ZeroDivisionError


# Storing


@pytest.mark.parametrize("protocol", range(HIGHEST + 1))
def test_it_survives_pickling(protocol: int) -> None:
    failure = failure_of(divide)

    again = pickle.loads(pickle.dumps(failure, protocol))

    assert type(again) is Failure
    assert again.__getstate__() == failure.__getstate__()


@pytest.mark.parametrize("protocol", range(zodbpickle.pickle.HIGHEST_PROTOCOL + 1))
def test_it_survives_the_pickling_of_zodb(protocol: int) -> None:
    failure = failure_of(raising(ValueError("é", b"\xff", 1, None)))

    again = zodbpickle.pickle.loads(zodbpickle.pickle.dumps(failure, protocol))

    assert again.__getstate__() == failure.__getstate__()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_it_can_be_copied(copied: Callable[[Failure], Failure]) -> None:
    failure = failure_of(divide)

    again = copied(failure)

    assert again is not failure
    assert again.getTraceback() == failure.getTraceback()


def test_it_is_kept_by_a_database() -> None:
    database = ZODB.DB(None)
    with database.transaction() as connection:
        connection.root()["result"] = failure_of(divide)

    with database.transaction() as connection:
        failure = connection.root()["result"]

        assert failure.check(ZeroDivisionError)
    database.close()


def test_only_plain_values_are_stored() -> None:
    def plain(value: object) -> bool:
        if isinstance(value, tuple):
            return all(map(plain, value))
        return type(value) in (str, int, bool, bytes, float, type(None))

    failure = failure_of(raising(Demanding(code=1, body=b"x")), captureVars=True)
    state = failure.__getstate__()

    assert state["version"] == 1
    assert all(map(plain, state.values()))


def test_a_state_that_another_version_wrote_can_be_read() -> None:
    state = failure_of(divide).__getstate__()
    del state["notes"], state["members"]
    state["version"] = 99
    state["frames"] = tuple((*frame, "something new") for frame in state["frames"])
    state["invented later"] = 1

    failure = Failure.__new__(Failure)
    failure.__setstate__(state)

    assert failure.frames[-1][0] == "divide"
    assert "ZeroDivisionError: division by zero" in failure.getTraceback(detail="verbose")


def test_a_state_that_is_missing_can_be_read() -> None:
    failure = Failure.__new__(Failure)
    failure.__setstate__(None)

    assert repr(failure) == "<zasync.failure.Failure builtins.Exception: >"
    assert failure.type is Exception
    assert failure.getTraceback()


@pytest.fixture
def gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[bytes]:
    """The pickle of a failure with an exception whose module is no longer there."""
    (tmp_path / "zasync_gone.py").write_text(
        "class GoneError(LookupError):\n    pass\n\ndef fail():\n    raise GoneError('lost', 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import zasync_gone  # type: ignore[import-not-found]

    pickled = pickle.dumps(failure_of(zasync_gone.fail), 3)
    del sys.modules["zasync_gone"]
    (tmp_path / "zasync_gone.py").unlink()
    yield pickled
    sys.modules.pop("zasync_gone", None)


def test_it_is_read_after_the_class_is_gone(gone: bytes) -> None:
    failure = pickle.loads(gone)

    assert repr(failure) == "<zasync.failure.Failure zasync_gone.GoneError: ('lost', 1)>"
    assert "raise GoneError" in failure.getTraceback()
    assert failure.check("zasync_gone.GoneError")
    assert failure.check(LookupError)
    assert not failure.check(ValueError)


def test_a_class_that_is_gone_has_a_stand_in(gone: bytes) -> None:
    failure = pickle.loads(gone)

    assert issubclass(failure.type, Exception)
    assert failure.type.__module__ == "zasync_gone"
    assert failure.type.__name__ == failure.type.__qualname__ == "GoneError"
    assert isinstance(failure.value, failure.type)
    assert str(failure.value) == "('lost', 1)"
    assert failure.value.args == ("lost", 1)


def test_what_is_raised_for_a_class_that_is_gone_is_caught_by_its_type(gone: bytes) -> None:
    failure = pickle.loads(gone)

    with pytest.raises(failure.type):
        pickle.loads(gone).raiseException()


def test_a_failure_of_a_stand_in_is_like_the_first(gone: bytes) -> None:
    failure = pickle.loads(gone)

    again = failure_of(failure.raiseException)

    assert again.check(LookupError)
    assert again.parents == failure.parents
    assert again.getErrorMessage() == failure.getErrorMessage()


def test_a_class_is_imported_when_it_is_asked_for_and_no_sooner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zasync_later.py").write_text("class LaterError(Exception):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    failure = Failure.__new__(Failure)
    failure.__setstate__({"type": ("zasync_later", "LaterError"), "message": "x"})

    failure.check(KeyError), failure.getTraceback(), repr(failure)
    assert "zasync_later" not in sys.modules
    assert failure.type is sys.modules.pop("zasync_later").LaterError


@pytest.mark.parametrize(
    "source",
    [
        "raise SystemExit(1)",
        "import no_such_module_at_all",
        "def",
        "LaterError = 5",
        "LaterError = int",
    ],
)
def test_a_module_that_cannot_be_imported_does_no_harm(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zasync_bad.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    failure = Failure.__new__(Failure)
    failure.__setstate__({"type": ("zasync_bad", "LaterError"), "message": "kept"})

    assert failure.type.__name__ == "LaterError"
    assert str(failure.value) == "kept"
    sys.modules.pop("zasync_bad", None)


def test_a_name_that_no_class_can_have_does_no_harm() -> None:
    failure = Failure.__new__(Failure)
    failure.__setstate__({"type": ("", "a\0b\ud800.c\n"), "message": "kept"})

    assert str(failure.value) == "kept"


# Types


def test_the_class_is_known_by_class_and_by_name(divided: Failure) -> None:
    assert divided.type is ZeroDivisionError
    assert divided.check(KeyError, ArithmeticError, ZeroDivisionError) is ArithmeticError
    assert divided.check("builtins.ArithmeticError") == "builtins.ArithmeticError"
    assert divided.check(KeyError, "builtins.KeyError") is None
    assert "builtins.ArithmeticError" in divided.parents


def test_a_class_in_a_class_is_known_by_twisteds_name_too() -> None:
    failure = stored(Failure(Outer.InnerError("x")))

    assert failure.type is Outer.InnerError
    assert failure.check(f"{__name__}.Outer.InnerError")
    assert failure.check(f"{__name__}.InnerError")
    assert failure.check(Outer.InnerError)


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_exceptions_that_end_processes_are_known(error: BaseException) -> None:
    failure = stored(Failure(error))

    assert failure.check(type(error))
    assert type(failure.value) is type(error)


def test_what_is_no_class_and_no_name_is_never_found(divided: Failure) -> None:
    assert divided.check(None) is None  # type: ignore[arg-type]


def test_the_live_class_is_known_even_if_it_cannot_be_imported() -> None:
    class LocalConflict(ConflictError):
        pass

    failure = failure_of(raising(LocalConflict("x")))

    assert failure.type is LocalConflict
    assert isinstance(failure.value, ConflictError)
    assert stored(failure).check(LocalConflict, ConflictError) is LocalConflict


def test_trap_answers_what_fits(divided: Failure) -> None:
    assert divided.trap(KeyError, ZeroDivisionError) is ZeroDivisionError


def test_trap_raises_what_does_not_fit(divided: Failure) -> None:
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        divided.trap(KeyError)


# The exception


def test_the_value_is_a_new_exception_each_time(divided: Failure) -> None:
    first, second = divided.value, divided.value

    assert type(first) is ZeroDivisionError
    assert str(first) == "division by zero"
    assert first.args == ("division by zero",)
    assert first is not second


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        OSError(2, "No such file", "here.txt"),
        OSError(18, "Cross-device link", "here", None, "there"),
        OSError("only text"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        SyntaxError("bad", ("file.py", 3, 4, "text", 3, 5)),
        SystemExit(3),
        StopIteration("result"),
        ConflictError("late", oid=b"\0" * 8),
        Outer.InnerError("a", 1, (2.5, None)),
    ],
    ids=lambda error: f"{type(error).__name__}{len(error.args)}",
)
def test_the_value_is_as_the_exception_was(error: BaseException) -> None:
    value = stored(failure_of(raising(error))).value

    assert type(value) is type(error)
    assert str(value) == str(error)
    assert value.args == error.args
    assert vars(value) == vars(error)


def test_the_attributes_of_builtin_exceptions_are_there() -> None:
    value = stored(Failure(OSError(2, "No such file", "here.txt"))).value

    assert isinstance(value, FileNotFoundError)
    assert (value.errno, value.strerror, value.filename) == (2, "No such file", "here.txt")
    assert stored(Failure(SystemExit(3))).value.code == 3  # type: ignore[attr-defined]


def test_a_class_that_needs_its_init_says_the_message_all_the_same() -> None:
    value = stored(Failure(Demanding(code=404, body=b"object that is not kept" * 1000))).value

    assert isinstance(value, Demanding)
    assert str(value).startswith("code 404, body object that is")
    assert type(value).__name__ == "Demanding"
    assert value.code == 404
    assert stored(Failure(value)).parents == Failure(Demanding(code=1, body=b"")).parents


def test_no_subclass_is_made_where_subclasses_are_counted() -> None:
    failure = stored(Failure(Registered()))

    value = failure.value

    assert type(value) is Registered
    assert Registered.names == []
    assert failure.getErrorMessage() == "something"


def test_the_code_of_the_class_is_not_called() -> None:
    failure = Failure(BaseException.__new__(Picky, "a"))

    assert type(failure.value) is Picky
    assert str(failure.value) == "a"


def test_a_group_has_a_stand_in_with_its_message() -> None:
    failure = stored(Failure(ExceptionGroup("all of it", [ValueError("one"), KeyError("two")])))

    assert failure.type is ExceptionGroup
    assert str(failure.value) == "all of it (2 sub-exceptions)"
    assert "builtins.ValueError: one" in failure.getTraceback()
    assert "[exception 2 of 2]" in failure.getTraceback()


def test_arguments_that_are_not_plain_are_kept_as_their_repr() -> None:
    failure = stored(Failure(ValueError(["a"], 1)))

    assert failure.value.args == ("['a']", 1)
    assert str(failure.value) == "(['a'], 1)"


def test_notes_are_kept_and_printed() -> None:
    error = ValueError("x")
    error.add_note("while reading page 3")

    failure = stored(failure_of(raising(error)))

    assert failure.value.__notes__ == ["while reading page 3"]
    assert failure.getTraceback().endswith("ValueError: x\nwhile reading page 3\n")


def test_attributes_that_look_like_secrets_are_not_kept() -> None:
    error = ValueError("x")
    error.retry_after, error.api_key = 30, SECRET  # type: ignore[attr-defined]

    failure = Failure(error)

    assert failure.value.retry_after == 30  # type: ignore[attr-defined]
    assert SECRET.encode() not in pickle.dumps(failure)


def test_what_is_raised_again_tells_where_it_came_from(divided: Failure) -> None:
    again = failure_of(divided.raiseException)

    text = again.getTraceback()
    assert text.index("in divide") < text.index("direct cause") < text.index("in raiseException")
    assert text.count("division by zero") == 2


def test_it_is_thrown_into_a_generator(divided: Failure) -> None:
    def generator() -> Generator[str, None, None]:
        try:
            yield "waiting"
        except ZeroDivisionError as error:
            yield str(error)

    waiting = generator()
    next(waiting)

    assert divided.throwExceptionIntoGenerator(waiting) == "division by zero"


# Printing


def test_the_traceback_is_as_python_prints_it(divided: Failure) -> None:
    text = divided.getTraceback(elideFrameworkCode=1)

    line = divide.__code__.co_firstlineno + 1
    assert text.startswith("Traceback (most recent call last):\n  File ")
    assert text.endswith(
        f'  File "{__file__}", line {line}, in divide\n'
        "    return 1 / 0\n"
        "builtins.ZeroDivisionError: division by zero\n"
    )


def test_the_brief_traceback_has_a_line_for_each_frame(divided: Failure) -> None:
    first, *frames = divided.getBriefTraceback().splitlines()

    assert first == "Traceback: builtins.ZeroDivisionError: division by zero"
    assert len(frames) == 2
    assert frames[1] == f"{__file__}:{divide.__code__.co_firstlineno + 1}:divide"


def test_the_brief_traceback_says_that_there_are_no_frames() -> None:
    assert Failure(KeyError("x")).getBriefTraceback() == (
        "Traceback (failure with no frames): builtins.KeyError: 'x'\n"
    )


def test_it_is_written_to_files(divided: Failure) -> None:
    plain, brief, detailed = io.StringIO(), io.StringIO(), io.StringIO()

    divided.printTraceback(plain)
    divided.printBriefTraceback(brief)
    divided.printDetailedTraceback(detailed)

    assert plain.getvalue() == divided.getTraceback()
    assert brief.getvalue() == divided.getBriefTraceback()
    assert detailed.getvalue() == divided.getTraceback(detail="verbose")


def test_without_a_file_it_is_written_to_standard_error(
    divided: Failure, capsys: pytest.CaptureFixture[str]
) -> None:
    divided.printTraceback()

    assert capsys.readouterr().err == divided.getTraceback()


def test_an_unknown_detail_is_an_error(divided: Failure) -> None:
    with pytest.raises(ValueError, match="default, brief, verbose, not 'full'"):
        divided.getTraceback(detail="full")


def test_the_repr_is_one_short_line() -> None:
    failure = Failure(ValueError("one\ntwo \x1b[31m" + "x" * 10_000))

    assert repr(Failure(KeyError("x"))) == "<zasync.failure.Failure builtins.KeyError: 'x'>"
    assert repr(failure) == str(failure)
    assert repr(failure).startswith(
        "<zasync.failure.Failure builtins.ValueError: one\\ntwo \\x1b[31mx"
    )
    assert len(repr(failure)) < 300


def test_control_characters_are_escaped_when_printed_and_kept_otherwise() -> None:
    failure = stored(Failure(ValueError("a\x1b[2J\r\nb\tc \ud800")))

    assert failure.getErrorMessage() == "a\\x1b[2J\\r\nb\tc \\ud800"
    assert "\x1b" not in failure.getTraceback()
    assert failure.getTraceback().encode("utf-8")
    assert str(failure.value) == "a\x1b[2J\r\nb\tc \ud800"


def test_names_of_files_and_functions_cannot_forge_lines() -> None:
    code = compile("1/0", "x.py\nbuiltins.Forged: error", "exec")

    failure = failure_of(lambda: exec(code))

    for detail in ("default", "brief", "verbose"):
        assert "\nbuiltins.Forged" not in failure.getTraceback(detail=detail)


def test_causes_are_printed_before_what_they_led_to() -> None:
    def fail() -> None:
        try:
            divide()
        except ZeroDivisionError as error:
            raise KeyError("second") from error

    text = stored(failure_of(fail)).getTraceback()

    assert text.index("in divide") < text.index("direct cause") < text.index("KeyError: 'second'")


# Variables


def capture() -> Failure:
    def fail(document: object, password: str) -> None:
        config = {"user": "me", "token": SECRET}
        raise ValueError(TOP, config["user"])

    return failure_of(lambda: fail(Document(), SECRET), captureVars=True)


class Document(Persistent):
    def __repr__(self) -> str:
        raise AssertionError("a persistent object was asked for its repr")


TOP = "at the top"


@pytest.mark.parametrize("prepared", [lambda failure: failure, stored], ids=["live", "stored"])
def test_variables_that_were_asked_for_are_shown(prepared: Callable[[Failure], Failure]) -> None:
    failure = prepared(capture())

    text = failure.getTraceback(detail="verbose")

    assert failure.captureVars
    assert f"  document : {__name__}.Document (no oid yet)\n" in text
    assert "  password : <redacted>\n" in text
    assert "  config : {'user': 'me', 'token': <redacted>}\n" in text
    assert " [globals]\n  SECRET : <redacted>\n  TOP : 'at the top'\n" in text
    assert SECRET not in text
    assert "not captured" not in text


def test_variables_that_were_asked_for_are_texts_in_the_frames() -> None:
    _, _, _, own, mentioned = capture().frames[-1]

    assert dict(own)["password"] == "<redacted>"
    assert mentioned == [("SECRET", "<redacted>"), ("TOP", "'at the top'")]


def test_variables_of_one_of_twisteds_failures_are_taken_if_asked_for() -> None:
    try:
        divide()
    except ZeroDivisionError:
        theirs = TwistedFailure()

    assert Failure(theirs, captureVars=True).captureVars
    assert not Failure.from_twisted(theirs).captureVars
    assert Failure.from_twisted(theirs, captureVars=True).captureVars


# As Twisted sees it


def test_a_deferred_fails_with_it() -> None:
    failure = failure_of(divide)
    seen: list[Any] = []

    defer.fail(failure).addErrback(seen.append)

    assert seen == [failure]


def test_returned_from_a_callback_it_fires_the_errbacks(divided: Failure) -> None:
    seen: list[Any] = []

    deferred: defer.Deferred[Any] = defer.succeed(None)
    deferred.addCallback(lambda _: divided)
    deferred.addErrback(lambda failure: failure.trap(KeyError))
    deferred.addErrback(seen.append)

    assert seen[0].check(ZeroDivisionError)
    assert "in divide" in Failure.from_twisted(seen[0]).getTraceback()


def test_it_is_awaited_in_inline_callbacks(divided: Failure) -> None:
    @defer.inlineCallbacks
    def wait() -> Generator[defer.Deferred[Any], Any, str]:
        try:
            yield defer.fail(divided)
        except ZeroDivisionError as error:
            return f"caught {error}"
        return "nothing"

    seen: list[Any] = []
    wait().addCallback(seen.append)

    assert seen == ["caught division by zero"]


def test_it_is_awaited_in_a_coroutine(divided: Failure) -> None:
    async def wait() -> str:
        try:
            await defer.fail(divided)
        except ZeroDivisionError as error:
            return f"caught {error}"
        return "nothing"

    seen: list[Any] = []
    defer.Deferred.fromCoroutine(wait()).addCallback(seen.append)

    assert seen == ["caught division by zero"]


def test_the_attributes_that_twisted_reads_are_there(divided: Failure) -> None:
    assert divided.stack == []
    assert divided.tb is None
    assert divided.pickled == 1
    assert divided.count == 0
    assert divided.captureVars is False
    assert [len(frame) for frame in divided.frames] == [5, 5]


def test_its_traceback_object_can_be_formatted_by_python(divided: Failure) -> None:
    text = "".join(
        traceback.format_exception(divided.type, divided.value, divided.getTracebackObject())
    )

    assert "in divide" in text
    assert text.endswith("ZeroDivisionError: division by zero\n")


def test_twisteds_log_takes_it(divided: Failure) -> None:
    event = {"log_failure": divided, "log_format": "x", "log_time": 0.0}

    assert json.loads(eventAsJSON(event))["log_failure"]["message"] == "division by zero"


def test_a_chain_of_errbacks_leaves_nothing_unhandled() -> None:
    script = (
        "from twisted.internet import defer; from zasync.failure import Failure\n"
        "defer.fail(Failure(KeyError('handled'))).addErrback(lambda failure: None)\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)

    assert done.stderr == b""


# Hostile exceptions


def hostile(**names: Any) -> BaseException:
    return type("Hostile", (Exception,), names)("argument")  # type: ignore[no-any-return]


def broken(self: object, *args: object) -> str:
    raise RuntimeError("from within")


def test_a_live_failure_of_an_exception_that_misbehaves_can_be_raised() -> None:
    error = hostile(__str__=broken, __setattr__=broken, __init__=lambda self, *args: None)
    type(error).__init__ = broken  # type: ignore[assignment, misc]
    type(error).__new__ = broken  # type: ignore[assignment, method-assign]

    with pytest.raises(type(error)):
        failure_of(raising(error)).raiseException()


def test_a_metaclass_that_misbehaves_does_no_harm() -> None:
    class Meta(type):
        __hash__ = None  # type: ignore[assignment]

        def __getattribute__(cls, name: str) -> Any:
            if name in ("__name__", "__module__", "__qualname__"):
                raise RuntimeError(name)
            return super().__getattribute__(name)

    Odd = Meta("Odd", (Exception,), {"__str__": broken})

    failure = Failure(Odd("x"))

    assert failure.check(Odd) is Odd
    assert isinstance(failure.value, Odd)
    assert f"{__name__}.Odd" in repr(failure)


def test_a_message_of_100_mb_is_cut() -> None:
    failure = Failure(ValueError("x" * 100_000_000))

    assert len(failure.getErrorMessage()) <= 8192
    assert len(pickle.dumps(failure)) < 20_000
    assert str(failure.value) == failure.getErrorMessage()
    assert type(failure.value) is ValueError


def test_a_transaction_can_be_aborted_with_a_failure_of_a_loaded_object() -> None:
    database = ZODB.DB(None)
    connection = database.open()
    connection.root()["document"] = Document()
    transaction.commit()
    connection.cacheMinimize()

    failure = failure_of(raising(KeyError(connection.root()["document"])))
    transaction.abort()

    assert failure.getErrorMessage() == f"{__name__}.Document (oid 1, db 'unnamed')"
    assert connection.root()["document"]._p_changed is None
    connection.close()
    database.close()
