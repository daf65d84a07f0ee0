# SPDX-License-Identifier: ZPL-2.1
"""Stored: where arguments and results lie, and whether the database can take them.

The record of a job holds no value of a user's class, so that it can be written when the user's
code is gone.  Small plain values and references to persistent objects (which ZODB writes again
even when their class is gone) lie in it; anything else lies in a record beside it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import zodbpickle.pickle
from persistent import Persistent
from persistent.wref import WeakRef

from zasync.failure import Failure
from zasync.foundation.reporting import events
from zasync.foundation.text import safe_repr
from zasync.interfaces import NotStorableError

LARGE_ARGUMENT = 2**20  # bytes from which on the log says so
INLINE_LIMIT = 1024  # about as many bytes of plain values lie in the job's own record

_FIXED = frozenset(
    {type(None), bool, int, float, complex, date, timedelta, timezone, Decimal, UUID}
    | {type(Ellipsis)}
)
SMALL = frozenset({type(None), bool, int, float})  # of these nothing has to be asked
_SEQUENCES = frozenset({tuple, list, set, frozenset})
_TOO_MUCH = INLINE_LIMIT + 1


class Payload(Persistent):
    """What a job was given: the target of its callable, its arguments."""

    def __init__(self, target: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
        self.target = target
        self.args = args
        self.kwargs = kwargs


class Box(Persistent):
    """Holds one value of a user's class, so that the record that refers to it need not."""

    def __init__(self, value: Any) -> None:
        self.value = value


def boxed(value: Any) -> Any:
    """`value` itself if the record of a job may hold it, else a Box with it."""
    if type(value) in SMALL:
        return value
    if isinstance(value, Failure) or weight(value) <= INLINE_LIMIT:
        return value
    return Box(value)


def unboxed(value: Any) -> Any:
    """What was given to `boxed`."""
    return value.value if isinstance(value, Box) else value


def is_plain(value: Any) -> bool:
    """Whether `value` surely can be stored: nothing but small plain values, no objects."""
    return weight(value, reference=_TOO_MUCH) <= INLINE_LIMIT


def weight(value: Any, depth: int = 6, reference: int = 40) -> int:
    """About how many bytes `value` takes; more than INLINE_LIMIT if it holds what is not plain.

    `reference` is what a persistent object counts.
    """
    kind = type(value)
    if kind in _FIXED:
        return 8
    if kind is str or kind is bytes:
        return 4 + len(value)
    if kind is datetime or kind is time:  # a record with a zone of a class that is gone is lost
        return 8 if type(value.tzinfo) in _FIXED else _TOO_MUCH
    if depth and kind in _SEQUENCES:
        return _sum_of_weights(value, depth, reference)
    if depth and kind is dict:
        return _sum_of_weights(value.keys(), depth, reference) + _sum_of_weights(
            value.values(), depth, reference
        )
    return reference if isinstance(value, Persistent) else _TOO_MUCH


def _sum_of_weights(values: Iterable[Any], depth: int, reference: int) -> int:
    total = 4
    for value in values:
        total += weight(value, depth - 1, reference)
        if total > INLINE_LIMIT:
            break
    return total


class WatchedList(list[Any]):
    """A list that is stored elsewhere: read before each change in place, and stored after it.

    So what was changed there meanwhile is not lost, however old this view is.
    """

    def __init__(self, read: Callable[[], list[Any]], write: Callable[[list[Any]], None]) -> None:
        super().__init__(read())
        self._read, self._write = read, write

    def _refresh(self) -> None:
        list.__setitem__(self, slice(None), self._read())

    def _store(self) -> None:
        self._write(list(self))

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        """Copies, in memory or in the database, are plain lists."""
        return list, (list(self),)


class WatchedDict(dict[str, Any]):
    """The same for a dict."""

    def __init__(
        self, read: Callable[[], dict[str, Any]], write: Callable[[dict[str, Any]], None]
    ) -> None:
        super().__init__(read())
        self._read, self._write = read, write

    def _refresh(self) -> None:
        dict.clear(self)
        dict.update(self, self._read())

    def _store(self) -> None:
        self._write(dict(self))

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        """Copies, in memory or in the database, are plain dicts."""
        return dict, (dict(self),)


def _watch(kind: type, names: Iterable[str]) -> None:
    """Make each of the changing methods `names` of `kind` read before and store after its work."""
    for name in names:
        original = getattr(kind, name)

        def method(self: Any, *args: Any, _original: Any = original, **kwargs: Any) -> Any:
            self._refresh()
            answer = _original(self, *args, **kwargs)
            try:
                self._store()
            finally:
                self._refresh()  # it may have been refused, or stored in another form
            return answer

        method.__name__ = name
        setattr(kind, name, method)


_watch(WatchedList, ["append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse"])
_watch(WatchedList, ["__setitem__", "__delitem__", "__iadd__", "__imul__"])
_watch(WatchedDict, ["pop", "popitem", "clear", "update", "setdefault"])
_watch(WatchedDict, ["__setitem__", "__delitem__", "__ior__"])


def check_storable(what: str, value: Any, connection: Any) -> int:
    """NotStorableError, naming `what`, if `value` could not be committed through `connection`.

    `connection` may be None: then only whether it can be pickled is looked at.  New persistent
    objects that `value` leads to are looked into, those that are stored already are not.
    Answers how many bytes `value` takes, without those objects.
    """
    seen: set[int] = set()
    todo = [value]

    def persistent_id(candidate: Any) -> Any:
        if isinstance(candidate, WeakRef):
            return "weak"
        if isinstance(candidate, type) or not isinstance(candidate, Persistent):
            return None
        if id(candidate) not in seen:
            seen.add(id(candidate))
            _check_home(what, candidate, connection)
            if candidate._p_jar is None:
                todo.append(candidate.__getstate__())
        return "persistent"

    sizes: list[int] = []
    while todo:
        file = io.BytesIO()
        pickler = zodbpickle.pickle.Pickler(file, 3)
        pickler.persistent_id = persistent_id
        try:
            pickler.dump(todo.pop())
        except NotStorableError:
            raise
        except Exception as error:  # a pickler runs code of the objects
            raise NotStorableError(
                f"{what} cannot be stored: {safe_repr(value)}"
                f" ({type(error).__name__}: {error}); use plain values or persistent objects"
            ) from error
        sizes.append(file.tell())
    return sizes[0]


def check_argument(what: str, value: Any, connection: Any, largest: int | None) -> None:
    """NotStorableError as `check_storable` says, or if `value` takes more than `largest` bytes.

    What is large though allowed is logged.
    """
    size = check_storable(what, value, connection)
    if largest is not None and size > largest:
        raise NotStorableError(
            f"{what} takes {size:,} bytes, and at most {largest:,} are allowed: keep it in a"
            " persistent object or a blob and pass that, or raise Job.largest_argument"
        )
    if size > LARGE_ARGUMENT:
        events.large_argument(what, size)


def _check_home(what: str, candidate: Any, connection: Any) -> None:
    home = candidate._p_jar
    if home is None or connection is None or home in connection.connections.values():
        return
    raise NotStorableError(
        f"{what} cannot be stored: {safe_repr(candidate)} belongs to another connection or"
        " database, which is not connected with the queue's; load it through"
        " queue._p_jar (or its get_connection), or pass its id"
    )
