# SPDX-License-Identifier: ZPL-2.1
"""Asks an exception for what is to be kept of it: plain values of bounded size.

The answer, in the form of `zasync.foundation.tracebacks`, holds no exception, class or frame; and
nothing here fails because of what an exception does when it is asked.  `zasync.failure` stores it.
"""

from __future__ import annotations

import linecache
import pickle
import traceback
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice
from types import BuiltinFunctionType, FrameType, FunctionType, ModuleType, TracebackType
from typing import Any, TypeVar

from zasync.foundation.text import (
    REDACTED,
    bounded_text,
    class_address,
    is_persistent,
    is_really,
    looks_secret,
    safe_repr,
    safe_str,
)
from zasync.foundation.tracebacks import (
    CAUSED,
    EMPTY,
    MEANWHILE,
    Address,
    Frame,
    State,
    Variables,
    short_traceback,
)

MAX_STATE = 32 * 1024  # bytes of the whole when pickled; the sizes below are in characters

MAX_MESSAGE = 8 * 1024
MAX_ARGS_SIZE = 8 * 1024
MAX_ARGS = 16
MAX_ATTRIBUTES_SIZE = 4 * 1024
MAX_ATTRIBUTES = 16
MAX_NOTE = 1024
MAX_NOTES = 8
MAX_BITS = 1024  # of a whole number
MAX_NAME = 200  # of a function, file or variable, and of a line of source
FIRST_PARENTS, LAST_PARENTS = 20, 12
FIRST_FRAMES, LAST_FRAMES = 10, 20
MAX_VARIABLES = 64  # of all frames; the last frames, where it happened, are served first
MAX_VARIABLES_OF_FRAME = 16
MAX_CHAIN = 8 * 1024
MAX_LINKS = 8  # of a chain of causes, and members of a group
LINK_FIRST_FRAMES, LINK_LAST_FRAMES = 2, 4
MAX_LINK_MESSAGE = 1024

_T = TypeVar("_T")


class KeptTraceback(Exception):
    """The cause of an exception that was made from what was kept: its traceback of that time."""


def describe(
    value: object, cls: type, trace: TracebackType | None, *, capture_variables: bool = False
) -> State:
    """Answer what is to be kept of an exception: not more than MAX_STATE bytes.

    Variables are kept with `capture_variables` only: bounded reprs, without those that are named
    like a secret.  Never raises; only what ends processes goes through (SystemExit).
    """
    live, left_out = _ends(traceback.walk_tb(trace), FIRST_FRAMES, LAST_FRAMES)
    frames = [_frame_of(frame, line) for frame, line in live]
    if capture_variables:
        frames = _with_variables(frames, [_variables_of(frame) for frame, _ in live])
    state = _asked_of(value, class_address(cls), parents_of(cls))
    return _fitting(
        {**state, "frames": tuple(frames), "left_out": left_out, "captured": capture_variables}
    )


def describe_without_traceback(
    value: object,
    address: Address,
    parents: tuple[Address, ...],
    frames: Iterable[tuple[Any, ...]],
) -> State:
    """Answer the same for an exception of which others have kept the frames, or none.

    `frames` begin with function, file and line number, the oldest first; no variables are kept.
    """
    known, left_out = _ends(frames, FIRST_FRAMES, LAST_FRAMES)
    kept = tuple(_frame(frame[0], frame[1], frame[2]) for frame in known)
    return _fitting({**_asked_of(value, address, parents), "frames": kept, "left_out": left_out})


def _asked_of(value: object, address: Address, parents: tuple[Address, ...]) -> State:
    return {
        **EMPTY,
        "type": address,
        "parents": parents,
        "message": _message_of(value, MAX_MESSAGE),
        "args": _args_of(value),
        "attributes": _attributes_of(value),
        "notes": _notes_of(value),
        "chain": _chain_of(value),
        "members": _members_of(value),
    }


def parents_of(cls: type) -> tuple[Address, ...]:
    """Answer the addresses of a class and of all its bases."""
    stood_for: tuple[Address, ...] | None = type.__getattribute__(cls, "__dict__").get(STOOD_FOR)
    if stood_for is not None:
        return stood_for
    addresses = dict.fromkeys(map(class_address, type.__getattribute__(cls, "__mro__")))
    return tuple(_ends(addresses, FIRST_PARENTS, LAST_PARENTS)[0])


STOOD_FOR = "_zasync_parents"
"""Where a class that stands for one that is gone has the parents of that one."""


# What the exception tells


def _attribute(value: object, name: str, default: Any = None) -> Any:
    try:
        return getattr(value, name, default)
    except Exception:  # a property of the exception's class
        return default


def _message_of(value: object, limit: int) -> str:
    """Answer `str(value)`, but do not let that ask persistent objects for their repr."""
    ask = _attribute(type(value), "__str__")
    if ask is BaseException.__str__ or ask is KeyError.__str__:
        args = _raw_args_of(value)
        try:
            ours_to_tell = _holds_persistent(args)
        except RuntimeError:  # something that another thread changed meanwhile
            ours_to_tell = True
        if ours_to_tell:
            return safe_repr(args[0] if len(args) == 1 else args, limit)
    return safe_str(value, limit)


def _raw_args_of(value: object) -> tuple[Any, ...]:
    args = _attribute(value, "args")
    return args if type(args) is tuple else ()


def _holds_persistent(value: Any, depth: int = 3) -> bool:
    kind = type(value)
    if depth and kind in (tuple, list, set, frozenset):
        return any(_holds_persistent(item, depth - 1) for item in islice(value, 50))
    if depth and kind is dict:
        return _holds_persistent(list(islice(value.items(), 50)), depth)
    return is_persistent(value)


def _args_of(value: object) -> tuple[Any, ...]:
    args = _raw_args_of(value)
    if is_really(value, OSError) and len(args) == 2:
        args += _files_of(value)
    room = MAX_ARGS_SIZE
    kept: list[Any] = []
    for arg in args[:MAX_ARGS]:
        size = _plain_size(arg)
        if size <= room:
            room -= size
            kept.append(arg)
        else:
            kept.append(bounded_text(arg, room) if type(arg) is str else safe_repr(arg))
    if len(args) > MAX_ARGS:
        kept.append(f"... ({len(args)} in all)")
    return tuple(kept)


def _files_of(error: OSError) -> tuple[Any, ...]:
    """Answer the further arguments of an OSError, which it does not have in its args."""
    first, second = _attribute(error, "filename"), _attribute(error, "filename2")
    if first is None:
        return ()
    return (first,) if second is None else (first, None, second)


def _attributes_of(value: object) -> tuple[tuple[str, Any], ...]:
    attributes = _attribute(value, "__dict__")
    room = MAX_ATTRIBUTES_SIZE
    kept: list[tuple[str, Any]] = []
    if type(attributes) is not dict:
        return ()
    for name, item in list(attributes.items()):
        if type(name) is not str or name.startswith("__") or looks_secret(name):
            continue
        size = len(name) + _plain_size(item)
        if size <= room and len(kept) < MAX_ATTRIBUTES:
            room -= size
            kept.append((name, item))
    return tuple(kept)


def _plain_size(value: Any, depth: int = 4) -> int:
    """Answer about how many characters a plain value takes; of any other, more than is allowed."""
    kind = type(value)
    if value is None or kind is bool or kind is float:
        return 9
    if kind is int and value.bit_length() <= MAX_BITS:
        return 9 + int(value.bit_length()) // 8
    if kind is str or kind is bytes:
        return 9 + len(value)
    if kind is not tuple or not depth:
        return MAX_ARGS_SIZE + 1
    size = 9
    for item in value:
        size += _plain_size(item, depth - 1)
        if size > MAX_ARGS_SIZE:
            break
    return size


def _notes_of(value: object) -> tuple[str, ...]:
    notes = _attribute(value, "__notes__")
    if notes is None:
        return ()
    if type(notes) not in (list, tuple):
        return (safe_repr(notes),)
    return tuple(safe_str(note, MAX_NOTE) for note in notes[:MAX_NOTES])


def _chain_of(value: object) -> str:
    """Answer the tracebacks of the causes, the earliest first, each with how it led to the next."""
    texts: list[str] = []
    seen = {id(value)}
    cause, joint = _cause_of(value)
    while cause is not None and id(cause) not in seen:
        if len(texts) == MAX_LINKS:
            texts.append("(earlier exceptions left out)\n\n")
            break
        seen.add(id(cause))
        texts.append(_link(cause) + joint)
        cause, joint = _cause_of(cause)
    return bounded_text("".join(reversed(texts)), MAX_CHAIN)


def _cause_of(value: object) -> tuple[BaseException | None, str]:
    cause = _attribute(value, "__cause__")
    if is_really(cause, BaseException):
        return cause, CAUSED
    context = _attribute(value, "__context__")
    if is_really(context, BaseException) and not _attribute(value, "__suppress_context__"):
        return context, MEANWHILE
    return None, ""


def _members_of(value: object) -> str:
    if not is_really(value, BaseExceptionGroup):
        return ""
    members = _attribute(value, "exceptions", ())
    texts = [
        f"[exception {number} of {len(members)}]\n{_link(member)}"
        for number, member in enumerate(members[:MAX_LINKS], 1)
    ]
    return bounded_text("".join(texts), MAX_CHAIN)


def _link(error: BaseException) -> str:
    """Answer a short traceback of an exception that is not the one in question."""
    if is_really(error, KeptTraceback):
        return safe_str(error, MAX_CHAIN)
    live, left_out = _ends(traceback.walk_tb(trace_of(error)), LINK_FIRST_FRAMES, LINK_LAST_FRAMES)
    frames = tuple(_frame_of(frame, line) for frame, line in live)
    message = _message_of(error, MAX_LINK_MESSAGE)
    return short_traceback(frames, left_out, class_address(type(error)), message)


# Frames and variables


def trace_of(value: object) -> TracebackType | None:
    """Answer the traceback that an exception has, if any."""
    trace = _attribute(value, "__traceback__")
    return trace if is_really(trace, TracebackType) else None


def _frame_of(frame: FrameType, line: int | None) -> Frame:
    return _frame(frame.f_code.co_name, frame.f_code.co_filename, line, frame.f_globals)


def _frame(
    function: object, file: object, line: object, variables: dict[str, Any] | None = None
) -> Frame:
    number = line if type(line) is int else 0
    return (
        safe_str(function, MAX_NAME),
        safe_str(file, MAX_NAME),
        number,
        bounded_text(_source(file, number, variables), MAX_NAME),
        (),
        (),
    )


def _source(file: Any, line: int, variables: dict[str, Any] | None) -> str:
    try:
        return linecache.getline(file, line, variables).strip()
    except Exception:  # whatever loaded the module may answer for it
        return ""


def _variables_of(frame: FrameType) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Answer the local variables and those global ones that the function mentions."""
    if frame.f_locals is frame.f_globals:
        return frame.f_locals, {}
    mentioned = [name for name in frame.f_code.co_names if name in frame.f_globals]
    return frame.f_locals, {name: frame.f_globals[name] for name in mentioned}


def _with_variables(
    frames: list[Frame], variables: list[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> list[Frame]:
    room = MAX_VARIABLES
    result: list[Frame] = []
    for frame, (own, mentioned) in zip(reversed(frames), reversed(variables), strict=True):
        shown = _shown(own, min(room, MAX_VARIABLES_OF_FRAME))
        room -= len(shown)
        shown_globals = _shown(mentioned, min(room, MAX_VARIABLES_OF_FRAME))
        room -= len(shown_globals)
        result.append((*frame[:4], shown, shown_globals))
    return result[::-1]


def _shown(variables: Mapping[str, Any], room: int) -> Variables:
    try:
        items = list(variables.items())
    except Exception:  # the body of a class runs in whatever mapping its metaclass made
        return ()
    worth_it = (
        (name, value)
        for name, value in items
        if type(name) is str and not name.startswith("__") and not issubclass(type(value), _CODE)
    )
    return tuple(
        (bounded_text(name, MAX_NAME), REDACTED if looks_secret(name) else safe_repr(value))
        for name, value in islice(worth_it, room)
    )


_CODE = (ModuleType, FunctionType, BuiltinFunctionType, type)


# Sizes


def _ends(items: Iterable[_T], first: int, last: int) -> tuple[list[_T], tuple[int, int]]:
    """Answer the first and last items; before which of them some are missing, and how many."""
    iterator = iter(items)
    head = list(islice(iterator, first))
    tail: deque[_T] = deque(maxlen=last)
    count = 0
    for item in iterator:
        tail.append(item)
        count += 1
    return head + list(tail), (len(head), count - len(tail))


def _fitting(state: State) -> State:
    """Answer `state` with its longest texts cut until the whole is not above MAX_STATE."""
    limit = MAX_MESSAGE
    while limit and len(pickle.dumps(state, 3)) > MAX_STATE:
        limit //= 2
        state = {name: _cut(part, limit) for name, part in state.items()}
    return state


def _cut(part: Any, limit: int) -> Any:
    if isinstance(part, str):
        return bounded_text(part, limit)
    if isinstance(part, bytes):
        return part[:limit]
    if isinstance(part, tuple):
        return tuple(_cut(item, limit) for item in part)
    return part
