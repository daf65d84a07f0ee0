# SPDX-License-Identifier: ZPL-2.1
"""The settings `zasync.*` of a Pyramid application, read once, each error with the name in it."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from pyramid.exceptions import ConfigurationError

PREFIX = "zasync."

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_SHOWN = 100  # characters of a wrong value


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the settings say; `worker_*` None means the worker's own default."""

    queue: str = ""
    queues: tuple[str, ...] = ()
    database: str | None = None
    application_url: str = "http://localhost"
    calls_path: str | None = "/zasync/calls/{call_id}"
    calls_queue: str | None = None
    calls_retention: timedelta = timedelta(days=1)
    calls_poll_interval: timedelta = timedelta(seconds=5)
    worker_size: int | None = None
    worker_poll_interval: float | None = None
    worker_grace: float | None = None

    @property
    def all_queues(self) -> tuple[str, ...]:
        """The names of all queues that are to be there."""
        named = ["", self.queue, *self.queues, self.calls_queue or ""]
        return tuple(dict.fromkeys(named))


def read(settings: Mapping[str, Any]) -> Settings:
    """The settings of ours among those of the application.  ConfigurationError."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if not isinstance(key, str) or not key.startswith(PREFIX):
            continue
        name = key.removeprefix(PREFIX)
        if name not in _READERS:
            raise ConfigurationError(_unknown(key))
        try:
            found[name.replace(".", "_")] = _READERS[name](value)
        except ValueError as error:
            shown = repr(value)[:_SHOWN]
            raise ConfigurationError(f"the setting {key} is {error}, not {shown}") from None
    return Settings(**found)


def _unknown(key: str) -> str:
    near = difflib.get_close_matches(key, NAMES, n=1)
    advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(NAMES))}"
    return f"there is no setting {key}; {advice}"


def _name(value: Any) -> str:
    """The name of a queue; an empty one is that of the primary queue."""
    if not isinstance(value, str) or len(value.split()) > 1:
        raise ValueError("the name of one queue")
    return value.strip()


def _names(value: Any) -> tuple[str, ...]:
    names = tuple(value.split() if isinstance(value, str) else value)
    if not all(isinstance(name, str) for name in names):
        raise ValueError("a list of names of queues, with blanks between them")
    return names


def _database(value: Any) -> str | None:
    if not isinstance(value, str) or len(value.split()) > 1:
        raise ValueError("the NAME of a setting zodbconn.uri.NAME")
    return value.strip() or None


def _span(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        span = value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        span = timedelta(seconds=value)
    else:
        found = _SPAN.fullmatch(value.strip().lower()) if isinstance(value, str) else None
        if found is None:
            raise ValueError("a time such as 90, 0.5s, 15m, 12h or 7d")
        span = timedelta(seconds=float(found[1]) * _SECONDS[found[2]])
    return span


def _positive(value: Any) -> timedelta:
    span = _span(value)
    if span <= timedelta():
        raise ValueError("a time that is more than nothing")
    return span


def _seconds(value: Any) -> float:
    return _span(value).total_seconds()


def _positive_seconds(value: Any) -> float:
    return _positive(value).total_seconds()


def _number(value: Any) -> int:
    text = str(value).strip()
    if isinstance(value, bool) or not text.isdecimal() or int(text) < 1:
        raise ValueError("a whole number from 1 on")
    return int(text)


def _path(value: Any) -> str | None:
    """The pattern of the route; an empty one means that there is none."""
    if isinstance(value, str) and not value.strip():
        return None
    if not isinstance(value, str) or "{call_id}" not in value:
        raise ValueError("the pattern of a route with {call_id} in it, or empty for none")
    return value.strip()


def _url(value: Any) -> str:
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError("the address under which users see the application, with http(s)://")
    return str(value).rstrip("/")


_READERS: dict[str, Callable[[Any], Any]] = {
    "queue": _name,
    "queues": _names,
    "database": _database,
    "application_url": _url,
    "calls.path": _path,
    "calls.queue": _name,
    "calls.retention": _positive,
    "calls.poll_interval": _positive,
    "worker.size": _number,
    "worker.poll_interval": _positive_seconds,
    "worker.grace": _seconds,
}

NAMES = frozenset(PREFIX + name for name in _READERS)
"""All settings of ours."""
