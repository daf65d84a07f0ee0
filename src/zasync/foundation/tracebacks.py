# SPDX-License-Identifier: ZPL-2.1
"""Stored: the form in which an exception is kept, and how that is printed.

`zasync.foundation.exceptions` fills the form.  A state is plain values; those of older and newer
versions must be readable, so a name in it never changes its meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zasync.foundation.text import printable

VERSION = 1

Address = tuple[str, str]
"""Module and qualified name of a class."""

Variables = tuple[tuple[str, str], ...]
"""Names and reprs."""

Frame = tuple[str, str, int, str, Variables, Variables]
"""Function, file, line number, source, local and global variables."""

State = dict[str, Any]
"""What is kept: texts, numbers and tuples of them, under the names of `EMPTY`."""

EMPTY: State = {
    "version": VERSION,
    "type": ("builtins", "Exception"),  # an Address
    "parents": (),  # the Addresses of the class and of all its bases, in the order of the search
    "message": "",
    "args": (),  # plain values as they were, of others the repr
    "attributes": (),  # names and values of what the exception had of plain attributes
    "notes": (),
    "frames": (),  # the oldest first
    "left_out": (0, 0),  # before which frame some were left out, and how many
    "chain": "",  # the tracebacks of its causes
    "members": "",  # the tracebacks of a group's exceptions
    "captured": False,  # whether the frames have variables
}
"""A state in which nothing is known; one that another version has written is completed by it."""

CAUSED = "\nThe above exception was the direct cause of the following exception:\n\n"
MEANWHILE = "\nDuring handling of the above exception, another exception occurred:\n\n"


def traceback_text(state: State, detail: str = "default") -> str:
    """Answer stack, message, notes and causes as printable text, of bounded size as they are.

    `detail` is 'default', 'brief' (a line for each frame) or 'verbose' (with the variables);
    ValueError if it is none of them.
    """
    if detail not in _FORMATS:
        raise ValueError(f"detail must be one of {', '.join(_FORMATS)}, not {detail!r}")
    return printable(_FORMATS[detail](state))


def short_traceback(
    frames: tuple[Frame, ...], left_out: tuple[int, int], address: Address, message: str
) -> str:
    """Answer frames and message as Python prints them, or as Twisted does if there is no frame."""
    heading = "Traceback (most recent call last):\n" + ("" if frames else "Failure: ")
    return heading + _frames(frames, left_out, _frame) + _last_line(address, message)


def _default(state: State) -> str:
    short = short_traceback(state["frames"], state["left_out"], state["type"], state["message"])
    notes = "".join(f"{note}\n" for note in state["notes"])
    return f"{state['chain']}{short}{notes}{state['members']}"


def _brief(state: State) -> str:
    heading = "Traceback" if state["frames"] else "Traceback (failure with no frames)"
    last_line = _last_line(state["type"], state["message"])
    return f"{heading}: {last_line}" + _frames(state["frames"], state["left_out"], _brief_frame)


def _verbose(state: State) -> str:
    frames = _frames(state["frames"], state["left_out"], _frame_with_variables)
    if not state["captured"]:
        frames += " [variables were not captured: that takes captureVars=True]\n"
    last_line = _last_line(state["type"], state["message"])
    return f"{state['chain']}*--- Failure ---\n{frames}{last_line}*--- End of Failure ---\n"


_FORMATS: dict[str, Callable[[State], str]] = {
    "default": _default,
    "brief": _brief,
    "verbose": _verbose,
}


def _frames(
    frames: tuple[Frame, ...], left_out: tuple[int, int], show: Callable[[Frame], str]
) -> str:
    texts = [show(frame) for frame in frames]
    before, count = left_out
    if count:
        texts.insert(before, f"  [{count} frames left out]\n")
    return "".join(texts)


def _frame(frame: Frame) -> str:
    function, file, line, source, *_ = frame
    text = f'  File "{_line(file)}", line {line}, in {_line(function)}\n'
    return f"{text}    {_line(source)}\n" if source else text


def _brief_frame(frame: Frame) -> str:
    function, file, line, *_ = frame
    return f"{_line(file)}:{line}:{_line(function)}\n"


def _frame_with_variables(frame: Frame) -> str:
    function, file, line, _, own, mentioned, *_ = frame
    lines = [f"{_line(file)}:{line}: {_line(function)}(...)"]
    for title, variables in (("locals", own), ("globals", mentioned)):
        if variables:
            lines.append(f" [{title}]")
            lines.extend(f"  {_line(name)} : {text}" for name, text in variables)
    return "\n".join(lines) + "\n"


def _last_line(address: Address, message: str) -> str:
    return f"{_line('.'.join(address))}: {message}\n"


def _line(text: str) -> str:
    return printable(text, one_line=True)
