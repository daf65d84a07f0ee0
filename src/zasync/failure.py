# SPDX-License-Identifier: ZPL-2.1
"""Stored: a Twisted Failure that is safe to keep in the database and to print.

It is made of the plain state of `zasync.foundation.tracebacks` and of nothing else, so it reads
the same in the process that made it and in one that loads it years later, after the exception's
class is gone or Twisted has changed.  Below the dispatcher, only this module imports Twisted.
"""

from __future__ import annotations

import contextlib
import copyreg
import importlib
import sys
from collections.abc import Generator
from functools import lru_cache
from types import BuiltinMethodType, TracebackType, WrapperDescriptorType
from typing import Any, NoReturn, Self, TextIO

from twisted.python.failure import Failure as TwistedFailure
from twisted.python.failure import NoCurrentExceptionError

from zasync.foundation import exceptions
from zasync.foundation.exceptions import STOOD_FOR, KeptTraceback
from zasync.foundation.text import (
    bounded_text,
    class_address,
    class_name,
    is_really,
    printable,
    safe_str,
)
from zasync.foundation.tracebacks import EMPTY, Address, State, traceback_text

_Class = type  # within Failure, `type` is the exception's
_SHORT = 200  # characters of the message in a repr


class Failure(TwistedFailure):
    """What became of a call that raised: the exception as text, with its class by name.

    `Failure()` in an `except` block takes the current exception (NoCurrentExceptionError if there
    is none), `Failure(exception)` that one, `Failure(failure)` what a failure of Twisted or of
    ours tells.  Kept are the class and its bases by name, the message, plain arguments and
    attributes (others as repr), notes, the stack, and the causes as text; all bounded,
    not above about 32 KiB.  Not kept: the exception itself, frames, and variables.

    Raise it again with `raiseException()`; Twisted does not understand it if it is raised itself.

    `captureVars=True` keeps variables too: as bounded reprs, without those that are named like
    a secret.  They may still hold secrets; it is meant for development.
    """

    # Twisted's own attributes.  All is text already, as in one of Twisted's that was pickled.
    pickled = 1
    count = 0
    tb = None

    _state: State = EMPTY
    _class: type | None = None  # the real one, in the process where it happened; never stored

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        return super().__new__(cls)  # BaseException would keep the arguments: the exception

    def __init__(
        self,
        exc_value: object = None,
        exc_type: type | None = None,
        exc_tb: TracebackType | None = None,
        captureVars: bool = False,
    ) -> None:
        if exc_value is None:
            exc_type, exc_value, exc_tb = sys.exc_info()
        if exc_value is None:
            raise NoCurrentExceptionError
        if is_really(exc_value, Failure):
            self._state, self._class = exc_value._state, exc_value._class
        elif is_really(exc_value, TwistedFailure):
            self._state, self._class = _kept_of(exc_value, captureVars)
        else:
            self._class = exc_type if isinstance(exc_type, _Class) else _Class(exc_value)
            trace = exc_tb or exceptions.trace_of(exc_value)
            self._state = exceptions.describe(
                exc_value, self._class, trace, capture_variables=captureVars
            )

    @classmethod
    def from_twisted(cls, failure: TwistedFailure, captureVars: bool = False) -> Failure:
        """Answer `failure` if it is one of ours, else one of ours that tells the same."""
        return failure if isinstance(failure, Failure) else cls(failure, captureVars=captureVars)

    # Storing.  Twisted's own pickling holds the exception, and is free to change.

    def __getstate__(self) -> State:
        """Answer what is stored: a dict of plain values, described in foundation.tracebacks."""
        return dict(self._state)

    def __setstate__(self, state: State | None) -> None:
        self._state = {**EMPTY, **(state or {})}

    def __reduce__(self) -> tuple[Any, ...]:
        return copyreg.__newobj__, (_Class(self),), self.__getstate__()  # type: ignore[attr-defined]

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return self.__reduce__()

    def cleanFailure(self) -> None:
        """Forget the frames that hang on this object if it was raised itself."""
        self.__traceback__ = self.__cause__ = self.__context__ = None
        self._class = None

    # What happened

    @property
    def type(self) -> type[BaseException]:  # type: ignore[override]
        """The exception's class, imported if need be; one of the same name if it is gone."""
        if self._class is not None and issubclass(self._class, BaseException):
            return self._class
        address = self._state["type"]
        return _imported(address) or _stand_in(address, self._state["parents"])

    @property
    def value(self) -> BaseException:  # type: ignore[override]
        """A new exception of `type` with the message, arguments and plain attributes that it had.

        Made without calling its class.  Only where the class does not let that be, the exception
        is one of a class of the same name.
        """
        return _exception(self.type, self._state)

    @property  # type: ignore[misc]
    def parents(self) -> list[str]:
        """The names of the exception's class and of its bases, as `module.Class`."""
        return [".".join(address) for address in self._state["parents"]]

    @property
    def captureVars(self) -> bool:
        """Whether the frames have variables."""
        return bool(self._state["captured"])

    @property  # type: ignore[misc]
    def frames(self) -> list[tuple[Any, ...]]:
        """Function, file, line number, and names and reprs of local and global variables."""
        return [
            (function, file, line, list(own), list(mentioned))
            for function, file, line, _, own, mentioned, *_ in self._state["frames"]
        ]

    @property
    def stack(self) -> list[Any]:
        """Nothing, as in Twisted."""
        return []

    def check(self, *errorTypes: _Class | str) -> Any:
        """Answer the first of `errorTypes`, classes or their names, that the error is, or None.

        Compares names and imports nothing.
        """
        parents = self._state["parents"]
        names = {".".join(address) for address in parents}
        names |= {f"{module}.{name.rpartition('.')[2]}" for module, name in parents}  # Twisted's
        for wanted in errorTypes:
            named = isinstance(wanted, str) and wanted in names
            if named or (isinstance(wanted, _Class) and class_address(wanted) in parents):
                return wanted
        return None

    def trap(self, *errorTypes: _Class | str) -> Any:
        """Answer the first of `errorTypes` that the error is; raise the error if it is none."""
        found = self.check(*errorTypes)
        if found is None:
            self.raiseException()
        return found

    def raiseException(self) -> NoReturn:
        """Raise `value`, with the traceback that is kept as its cause."""
        raise self._raisable()

    def throwExceptionIntoGenerator(self, g: Generator[Any, Any, Any]) -> Any:
        """Raise the same where the generator waits; answer what it yields next."""
        return g.throw(self._raisable())

    def _raisable(self) -> BaseException:
        value = self.value
        BaseException.__setattr__(value, "__cause__", KeptTraceback(self.getTraceback()))
        return value

    # Printing

    def getErrorMessage(self) -> str:
        """Answer the message, with control characters escaped (`str(value)` has it raw)."""
        return printable(self._state["message"])

    def __repr__(self) -> str:
        kind = class_name(_Class(self))
        error = ".".join(self._state["type"])
        message = bounded_text(self._state["message"], _SHORT)
        return printable(f"<{kind} {error}: {message}>", one_line=True)

    __str__ = __repr__

    def getTraceback(self, elideFrameworkCode: int = 0, detail: str = "default") -> str:
        """Answer the stack, message, notes and causes as printable text of bounded size.

        `detail` is 'default', 'brief' (a line for each frame) or 'verbose' (with variables);
        ValueError if it is none of them.  `elideFrameworkCode` is ignored, as in Twisted.
        """
        return traceback_text(self._state, detail)

    def getBriefTraceback(self) -> str:
        """Answer the message and a line for each frame."""
        return self.getTraceback(detail="brief")

    def printTraceback(
        self,
        file: TextIO | None = None,
        elideFrameworkCode: int = False,
        detail: str = "default",
    ) -> None:
        """Write `getTraceback` to `file`, or to the standard error stream."""
        (file or sys.stderr).write(self.getTraceback(elideFrameworkCode, detail))

    def printBriefTraceback(self, file: TextIO | None = None, elideFrameworkCode: int = 0) -> None:
        """Write `getBriefTraceback`."""
        self.printTraceback(file, elideFrameworkCode, detail="brief")

    def printDetailedTraceback(
        self, file: TextIO | None = None, elideFrameworkCode: int = 0
    ) -> None:
        """Write the traceback with the variables, if they were captured."""
        self.printTraceback(file, elideFrameworkCode, detail="verbose")


def _kept_of(failure: TwistedFailure, capture_variables: bool) -> tuple[State, type | None]:
    """Answer what is to be kept of one of Twisted's, and its class."""
    value, cls = getattr(failure, "value", None), getattr(failure, "type", None)
    frames = getattr(failure, "frames", ())
    trace = getattr(failure, "tb", None)
    if trace is None and not frames:
        trace = exceptions.trace_of(value)
    if not isinstance(cls, type):  # it was sent to us by another process, which names it
        parents = tuple(map(_address, getattr(failure, "parents", ())))
        return exceptions.describe_without_traceback(value, _address(cls), parents, frames), None
    if trace is not None:
        state = exceptions.describe(value, cls, trace, capture_variables=capture_variables)
        return state, cls
    address, parents = class_address(cls), exceptions.parents_of(cls)
    return exceptions.describe_without_traceback(value, address, parents, frames), cls


def _address(name: object) -> Address:
    text = name.decode(errors="replace") if isinstance(name, bytes) else safe_str(name, 400)
    module, _, qualified_name = text.rpartition(".")
    return module, qualified_name


# Exceptions made of what was kept


def _imported(address: Address) -> type[BaseException] | None:
    """Answer the exception class of that address, or None if there is no such class."""
    module, qualified_name = address
    try:
        found: Any = importlib.import_module(module)
        for name in qualified_name.split("."):
            found = getattr(found, name)
    except (Exception, SystemExit):  # whatever the module does when it is imported
        return None
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def _stand_in(address: Address, parents: tuple[Address, ...]) -> type[BaseException]:
    """Answer a class in place of one that cannot be imported."""
    return _telling_class(address, Exception, parents)


def _telling(cls: Any) -> type[BaseException] | None:
    """Answer a subclass whose instances say what was kept, or None if `cls` has a say in that.

    It serves classes with a `__str__` that needs what only their `__init__` can make.
    """
    ordinary = type(cls) is type and cls.__flags__ & _MAY_HAVE_SUBCLASSES
    if not ordinary or any("__init_subclass__" in vars(base) for base in cls.__mro__[:-1]):
        return None
    return _telling_class(class_address(cls), cls, exceptions.parents_of(cls))


@lru_cache(maxsize=256)  # so that what one failure raises can be caught with the type of another
def _telling_class(
    address: Address, base: type[Any], parents: tuple[Address, ...]
) -> type[BaseException]:
    module, qualified_name = (printable(part, one_line=True) for part in address)
    names = {
        "__module__": module,
        "__qualname__": qualified_name,
        "__str__": _tell,
        STOOD_FOR: parents,
    }
    return type(qualified_name.rpartition(".")[2], (base,), names)


def _tell(self: BaseException) -> str:
    message: str = self.__dict__.get(_MESSAGE, "")
    return message


_MAY_HAVE_SUBCLASSES = 1 << 10  # Py_TPFLAGS_BASETYPE
_MESSAGE = "__zasync_message__"  # in the __dict__ of an exception that says what was kept


def _exception(cls: type[BaseException], state: State) -> BaseException:
    """Answer an exception of `cls` that tells what was kept, if that can be had."""
    value = _instance(cls, state)
    if value is not None and safe_str(value, exceptions.MAX_MESSAGE) == state["message"]:
        return value
    telling = _telling(cls)
    if telling is not None and (told := _instance(telling, state)) is not None:
        return told
    if value is not None:
        return value
    return _instance(_stand_in(state["type"], state["parents"]), state) or Exception()


def _instance(cls: type[BaseException], state: State) -> BaseException | None:
    """Answer an instance made by the builtin bases of `cls`, without its own Python code."""
    try:
        value: BaseException = _builtin(cls, "__new__", BuiltinMethodType)(cls, *state["args"])
    except Exception:  # not the arguments that it takes
        return None
    with contextlib.suppress(Exception):
        _builtin(cls, "__init__", WrapperDescriptorType)(value, *state["args"])
    attributes = object.__getattribute__(value, "__dict__")
    attributes.update(state["attributes"])
    if STOOD_FOR in vars(cls):
        attributes[_MESSAGE] = state["message"]
    if state["notes"]:
        attributes["__notes__"] = list(state["notes"])
    return value


def _builtin(cls: type, name: str, kind: type) -> Any:
    """Answer the first method of that name, in the order of the search, that is written in C."""
    return next(vars(base)[name] for base in cls.__mro__ if type(vars(base).get(name)) is kind)
