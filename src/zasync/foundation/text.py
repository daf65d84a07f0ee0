# SPDX-License-Identifier: ZPL-2.1
"""Text about values of unknown origin: always short, always safe to print, never an error.

For logs, reprs and what is kept of failures.  Not for data: what comes out cannot be read back.
`bounded_text` cuts, `printable` escapes, `safe_str` and `safe_repr` ask an object.
"""

from __future__ import annotations

import inspect
import re
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, TypeGuard, TypeVar

from persistent import Persistent

_MAX_DEPTH = 4  # of containers in containers
_MAX_ITEMS = 8  # of each container
_MAX_BITS = 1024  # of a whole number; Python itself refuses to print very long ones
_MAX_NAME = 200  # of a class, its module, an object's database

# What moves the cursor, starts an escape sequence, turns the direction of the text, or cannot be
# encoded.  Newline and tab are not among them; a single line escapes those too.
_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_NOT_IN_ONE_LINE = re.compile(_UNPRINTABLE.pattern[:-1] + r"\t\n]")

# Substrings, since names are run together in many ways: `apiKey`, `DBPASSWORD`, `auth_token`.
_SECRET = re.compile(
    "passw|passphrase|pwd|token|secret|key|authorization|cookie|credential|private", re.IGNORECASE
)
REDACTED = "<redacted>"

_T = TypeVar("_T")


def bounded_text(text: str, limit: int) -> str:
    """Answer `text` with at most `limit` characters; where some were left out, it says how many.

    The beginning and the end are kept, since an error often says at the end what was wrong.
    """
    text = str.__str__(text)  # a subclass may lie about its length
    if len(text) <= limit:
        return text
    room = limit - len(_mark(len(text)))
    if room < 2:
        return text[: max(limit, 0)]
    head = room * 3 // 4
    tail = room - head
    return text[:head] + _mark(len(text) - room) + text[-tail:]


def _mark(count: int) -> str:
    return f" ...[{count} characters left out]... "


def printable(text: str, *, one_line: bool = False) -> str:
    """Answer `text` with its control characters escaped, as Python would write them.

    So text from elsewhere can neither drive a terminal nor, with `one_line`, forge further lines
    of a log.  Newlines and tabs stay unless `one_line` is asked for.  Encodes to UTF-8 always.
    """
    pattern = _NOT_IN_ONE_LINE if one_line else _UNPRINTABLE
    return pattern.sub(lambda found: ascii(found.group())[1:-1], text)


def looks_secret(name: str) -> bool:
    """Whether what is called `name` should rather not be shown: a password, a key, a token ..."""
    return _SECRET.search(name) is not None


def class_name(cls: type) -> str:
    """Answer module and qualified name of a class, whatever its metaclass does."""
    return ".".join(class_address(cls))


def class_address(cls: type) -> tuple[str, str]:
    """Answer module and qualified name of a class, each of at most 200 characters."""
    module = type.__getattribute__(cls, "__module__")
    if not isinstance(module, str):
        module = "?"
    name = type.__getattribute__(cls, "__qualname__")
    return bounded_text(module, _MAX_NAME), bounded_text(name, _MAX_NAME)


def is_really(value: object, cls: type[_T]) -> TypeGuard[_T]:
    """`isinstance` that asks the type only, and not what the value says that its class is."""
    return issubclass(type(value), cls)


def safe_str(value: object, limit: int) -> str:
    """Answer `str(value)` in at most `limit` characters; if it raises, a text that says so.

    Line breaks and control characters stay.  What ends processes goes through (SystemExit).
    """
    return bounded_text(_asked(str, value), limit)


def safe_repr(value: object, limit: int = 200) -> str:
    """Answer one printable line of at most `limit` characters that describes `value`.

    Never raises; only what ends processes goes through (SystemExit).  A persistent object is
    neither loaded nor asked: its class, oid and database name are given.  Of containers some
    items are shown, to a limited depth, and nothing under a key that looks like the name of a
    secret.  Other objects are asked for their own repr; what that does is theirs.
    """
    try:
        text = _described(value, limit, _MAX_DEPTH)
    except Exception as error:
        text = _refusal("repr", value, error)
    return bounded_text(printable(text, one_line=True), limit)


def _asked(question: Callable[[Any], str], value: object) -> str:
    try:
        return str.__str__(question(value))
    except Exception as error:  # RecursionError, and whatever else an object thinks of
        return _refusal(question.__name__, value, error)


def _refusal(question: str, value: object, error: BaseException) -> str:
    return f"<{class_name(type(value))} whose {question}() raised {class_name(type(error))}>"


def _described(value: Any, limit: int, depth: int) -> str:
    if is_persistent(value):
        return persistent_name(value)
    kind: Any = type(value)
    if is_really(value, BaseException) and kind.__repr__ is BaseException.__repr__:
        return f"{kind.__name__}{_arguments_described(value.args, limit, depth)}"
    for base, describe in _DESCRIPTIONS:
        # A subclass with a repr of its own may have it to hide something.
        if issubclass(kind, base) and kind.__repr__ is base.__repr__:
            text = describe(value, limit, depth)
            return text if kind is base else f"{kind.__name__}({text})"
    return bounded_text(_asked(repr, value), limit)


def is_persistent(value: object) -> bool:
    """Whether `value` is an object of the database, or behaves like one; does not load it."""
    if is_really(value, type):  # a persistent class is not itself a persistent object
        return False
    try:
        if isinstance(value, Persistent):  # a proxy says so too
            return True
        return inspect.getattr_static(value, "_p_oid", None) is not None
    except Exception:  # it does not even tell its class
        return False


def persistent_name(value: Any) -> str:
    """Answer `module.Class (oid 26, db 'main')` for a persistent object, without loading it.

    The oid is missing if the object has none yet, the name if its connection does not tell.
    """
    name = class_name(value.__class__)
    oid = value._p_oid
    if not isinstance(oid, bytes):
        return f"{name} (no oid yet)"
    number = int.from_bytes(oid, "big")
    try:
        database = bounded_text(value._p_jar.db().database_name, _MAX_NAME)
    except Exception:  # no connection, or a stand-in for one
        return f"{name} (oid {number})"
    return f"{name} (oid {number}, db {database!r})"


def _text_described(value: str, limit: int, depth: int) -> str:
    return repr(bounded_text(value, limit - 2))  # with the quotes


def _bytes_described(value: bytes | bytearray, limit: int, depth: int) -> str:
    shown = repr(bytes(value[: limit // 2]))
    return shown if len(value) <= limit // 2 else f"{shown}... ({len(value)} bytes)"


def _number_described(value: int, limit: int, depth: int) -> str:
    bits = value.bit_length()
    return int.__repr__(value) if bits <= _MAX_BITS else f"<int of {bits} bits>"


def _mapping_described(value: dict[Any, Any], limit: int, depth: int) -> str:
    def pairs() -> Iterable[str]:
        for key, item in dict.items(value):
            hidden = isinstance(key, str) and looks_secret(key)
            shown = REDACTED if hidden else _described(item, limit, depth - 1)
            yield f"{_described(key, limit, depth - 1)}: {shown}"

    return _joined("{", pairs(), "}", len(value), depth)


def _in_brackets(
    opening: str, closing: str, empty: str | None = None
) -> Callable[[Any, int, int], str]:
    def described(value: Any, limit: int, depth: int) -> str:
        if not len(value) and empty is not None:
            return empty
        items = (_described(item, limit, depth - 1) for item in value)
        return _joined(opening, items, closing, len(value), depth)

    return described


def _tuple_described(value: tuple[Any, ...], limit: int, depth: int) -> str:
    items = (_described(item, limit, depth - 1) for item in value)
    return _joined("(", items, ",)" if len(value) == 1 else ")", len(value), depth)


def _joined(opening: str, items: Iterable[str], closing: str, count: int, depth: int) -> str:
    if count and depth <= 0:
        return f"{opening}...{closing}"
    shown = list(islice(items, _MAX_ITEMS))
    if count > _MAX_ITEMS:
        shown.append(f"... ({count} in all)")
    return opening + ", ".join(shown) + closing


_arguments_described = _in_brackets("(", ")")

# Each with the type whose repr it stands for.  OrderedDict and defaultdict have one of their own.
_DESCRIPTIONS: list[tuple[type, Callable[[Any, int, int], str]]] = [
    (str, _text_described),
    (bytes, _bytes_described),
    (bytearray, _bytes_described),
    (int, _number_described),
    (list, _in_brackets("[", "]")),
    (tuple, _tuple_described),
    (OrderedDict, _mapping_described),
    (defaultdict, _mapping_described),
    (dict, _mapping_described),
    (set, _in_brackets("{", "}", "set()")),
    (frozenset, _in_brackets("frozenset({", "})", "frozenset()")),
    (deque, _in_brackets("deque([", "])")),
]
