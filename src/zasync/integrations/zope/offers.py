# SPDX-License-Identifier: ZPL-2.1
"""Which plugins a form can offer to users, what the form asks for, and what comes out of it.

A plugin fits if each of its arguments is a text, a number, or a yes or no, by its annotation (none
means text).  Only what the site manager has chosen in the settings is offered; a name that comes
with a request is looked up there and nowhere else.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Mapping
from typing import Any

from zasync import plugins
from zasync.interfaces import ZasyncError

LONGEST_TEXT = 10_000
LARGEST = 2**63 - 1

KINDS = {str: "text", int: "integer", float: "number", bool: "choice"}
"""What an argument of that annotation is in a form."""

_REQUIRED: Any = inspect.Parameter.empty
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class NotOffered(ZasyncError, LookupError):
    """A plugin was asked for that the site manager does not offer, or that no form can offer."""


class WrongArguments(ZasyncError, ValueError):
    """A form was filled in wrongly; `errors` says by argument what is wrong."""

    def __init__(self, errors: dict[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {text}" for name, text in errors.items()))
        self.errors = errors


@dataclasses.dataclass(frozen=True)
class Field:
    """One argument of a plugin, as a form asks for it."""

    name: str
    kind: str
    default: Any = _REQUIRED

    @property
    def label(self) -> str:
        """The name for people."""
        return self.name.replace("_", " ").strip().capitalize()

    @property
    def required(self) -> bool:
        """Whether something must be filled in."""
        return self.default is _REQUIRED and self.kind != "choice"

    @property
    def shown_default(self) -> str:
        """What the field shows before anything is filled in."""
        if self.default is _REQUIRED or self.default is None or self.default is False:
            return ""
        return str(self.default)


def problem_with(name: str) -> str | None:
    """Why no form can offer the plugin `name`; None if one can."""
    try:
        fields_of(name)
    except (ZasyncError, LookupError) as error:
        return str(error)
    return None


def description_of(name: str) -> str:
    """What the plugin says that it does."""
    try:
        return plugins.get(name).description
    except LookupError:
        return ""


def fields_of(name: str) -> tuple[Field, ...]:
    """What the plugin `name` is to be told.  UnknownPlugin, or NotOffered if no form can do it."""
    plugin = plugins.get(name)
    if plugin.makes_job:
        raise NotOffered(f"plugin {name!r} is made of other jobs, which no form can give to it")
    try:
        signature = inspect.signature(plugin.callable, eval_str=True)
    except (ValueError, TypeError, NameError, SyntaxError) as error:
        raise NotOffered(f"plugin {name!r} does not tell what it takes: {error}") from None
    fields = []
    for parameter in signature.parameters.values():
        kind = KINDS.get(str if parameter.annotation is _REQUIRED else parameter.annotation)
        optional = parameter.default is not _REQUIRED
        if parameter.kind in _BY_NAME and kind is not None:
            fields.append(Field(parameter.name, kind, parameter.default))
        elif not (optional or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)):
            raise NotOffered(
                f"plugin {name!r} cannot be offered in a form: its argument {parameter.name!r} is"
                " not annotated as one of str, int, float and bool"
            )
    return tuple(fields)


def offered_fields(manager: Any, name: str) -> tuple[Field, ...]:
    """The same for what the settings of `manager` offer; NotOffered for anything else."""
    if name not in manager.offered:
        raise NotOffered("That is not on offer here.")
    return fields_of(name)


def arguments(fields: tuple[Field, ...], form: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a filled-in form, or what a program has sent, stands for.

    WrongArguments, with all that is wrong.
    """
    found: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for field in fields:
        value = form.get(field.name)
        if value in (None, "") and field.kind != "choice":
            if field.required:
                errors[field.name] = "Please fill this in."
            continue
        try:
            found[field.name] = _READERS[field.kind](value)
        except ValueError as error:
            errors[field.name] = str(error)
    for name in sorted(set(form) - {field.name for field in fields}, key=str):
        errors[str(name)[:100]] = "There is no such argument."
    if errors:
        raise WrongArguments(errors)
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("A text, please.")
    if len(value) > LONGEST_TEXT:
        raise ValueError(f"At most {LONGEST_TEXT} characters, please.")
    return value


def _integer(value: Any) -> int:
    if isinstance(value, str) and len(value) < 50:
        try:
            value = int(value)
        except ValueError:
            value = None
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > LARGEST:
        raise ValueError("A whole number, please.")
    return value


def _number(value: Any) -> float:
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("A number, please.")
    return number


def _choice(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in (None, ""):
        return False
    if isinstance(value, str):
        return value not in ("0", "no", "false")
    raise ValueError("Yes or no, please.")


_READERS = {"text": _text, "integer": _integer, "number": _number, "choice": _choice}
