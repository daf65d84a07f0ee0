# SPDX-License-Identifier: ZPL-2.1
"""LDAP search filters (RFC 4515): values put into them safely, and mistakes found at the call."""

from __future__ import annotations

import re

from zasync.foundation.text import safe_repr

LONGEST = 8192  # characters
DEEPEST = 20  # filters within filters

_ITEM = re.compile(
    r"[A-Za-z0-9][\w.;-]*(?::dn)?(?::[\w.-]+)?\s*(?:[~<>]=|:?=)"  # attribute and comparison
    r"(?:[^\\()\x00]|\\[0-9A-Fa-f]{2})*",  # value
    re.ASCII,
)
_SPECIAL = re.compile(r"[\\*()\x00]")


class BadFilter(ValueError):
    """A text is no search filter; the message says where it goes wrong."""


def escape(value: object) -> str:
    """`value` as it is to be written in a filter, so that it means nothing but itself."""
    if isinstance(value, bytes):
        return "".join(f"\\{byte:02x}" for byte in value)
    return _SPECIAL.sub(lambda found: f"\\{ord(found.group()):02x}", str(value))


def fill(template: str, **values: object) -> str:
    """`template` with each `{name}` replaced by the escaped value of that name.

    KeyError for a name without a value.
    """
    filled = re.sub(r"\{(\w+)\}", lambda found: escape(values[found[1]]), template)
    check(filled)
    return filled


def check(text: object) -> None:
    """BadFilter if `text` is no filter; TypeError if it is no text."""
    if not isinstance(text, str):
        raise TypeError(f"a search filter is text, not {safe_repr(text)}")
    if len(text) > LONGEST:
        raise BadFilter(f"a search filter has at most {LONGEST} characters, not {len(text)}")
    end = _filter(text, 0, 0)
    if end != len(text):
        raise _bad(text, end, "something follows the filter")


def _filter(text: str, start: int, depth: int) -> int:
    """Where the filter that begins at `start` ends."""
    if depth > DEEPEST:
        raise _bad(text, start, f"more than {DEEPEST} filters are in each other")
    if text[start : start + 1] != "(":
        raise _bad(text, start, "'(' is missing")
    operator = text[start + 1 : start + 2]
    if operator in ("&", "|"):
        end = start + 2
        while text[end : end + 1] == "(":
            end = _filter(text, end, depth + 1)
    elif operator == "!":
        end = _filter(text, start + 2, depth + 1)
    else:
        item = _ITEM.match(text, start + 1)
        if item is None:
            raise _bad(text, start + 1, "attribute=value is missing")
        end = item.end()
    if text[end : end + 1] != ")":
        raise _bad(text, end, "')' is missing, or a character is not escaped")
    return end + 1


def _bad(text: str, place: int, what: str) -> BadFilter:
    return BadFilter(f"{what} at character {place + 1} of the search filter {safe_repr(text)}")
