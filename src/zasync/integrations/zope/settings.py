# SPDX-License-Identifier: ZPL-2.1
"""The settings of zope.conf: a typed section `<zasync>`, or else `<product-config zasync>`.

`component.xml` beside this module names the functions here as its datatypes, one for each key, so
that an error names the key.  Read when Zope has read its configuration: `find_settings`.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from App.config import getConfiguration
from ZConfig.datatypes import asBoolean

from zasync.integrations.zope.faults import SettingsError

NAME = "zasync"  # of the <product-config>
DEFAULT_SIZE = 3

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_INTERVAL = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What zope.conf says about zasync."""

    section_name: str = NAME
    database: str | None = None
    queues: tuple[str, ...] = ("",)
    dispatcher: bool = False
    size: int | None = None
    poll_interval: float = 5.0
    grace: float = 30.0
    retention: timedelta = timedelta(days=1)
    web_threads: int = 4
    plugins: tuple[Mapping[str, Any], ...] = ()
    """What `zasync.plugins.register_from_config` takes."""

    def getSectionName(self) -> str:
        """For Zope, which asks each of its product sections."""
        return self.section_name


# The datatypes.  What they raise is told together with the line of the key.


def database(text: str) -> str:
    """The name of a `<zodb_db>`; whether there is one is seen when Zope starts."""
    if not text or len(text.split()) != 1:
        raise ValueError(f"database is the name of one <zodb_db>, not {text!r}")
    return text.lower()  # as ZConfig makes the names of sections


def queues(text: str) -> tuple[str, ...]:
    """Names of queues; the one without a name always comes first."""
    names = text.split()
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise ValueError(f"queues names {doubled.pop()!r} twice")
    return ("", *names)


def dispatcher(text: str) -> bool:
    try:
        return bool(asBoolean(text))
    except ValueError:
        raise ValueError(f"dispatcher is on or off, not {text!r}") from None


def _whole_number(key: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{key} is a whole number from 1 on, not {text!r}")
    return int(text)


def size(text: str) -> int:
    return _whole_number("size", text)


def web_threads(text: str) -> int:
    return _whole_number("web-threads", text)


def _interval(key: str, text: str) -> float:
    """Seconds."""
    found = _INTERVAL.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(f"{key} is a time such as 90, 0.5s, 15m, 12h or 7d, not {text!r}")
    return float(found[1]) * _SECONDS[found[2]]


def _positive(key: str, text: str) -> float:
    seconds = _interval(key, text)
    if not seconds:
        raise ValueError(f"{key} must be more than nothing")
    return seconds


def poll_interval(text: str) -> float:
    return _positive("poll-interval", text)


def grace(text: str) -> float:
    return _interval("grace", text)


def retention(text: str) -> timedelta:
    return timedelta(seconds=_positive("retention", text))


def timeout(text: str) -> timedelta:
    return timedelta(seconds=_positive("timeout", text))


def plugin(section: Any) -> dict[str, Any]:
    """The value of a `<zasync-plugin>` section."""
    options = {name: getattr(section, name) for name in section.getSectionAttributes()}
    return {"name": section.getSectionName(), **options}


def section(section: Any) -> Settings:
    """The value of a `<zasync>` section."""
    values = {name: getattr(section, name) for name in _KEYS.values()}
    return Settings(section_name=section.getSectionName(), plugins=tuple(section.plugins), **values)


_CONVERT: Mapping[str, Callable[[str], Any]] = {
    "database": database,
    "queues": queues,
    "dispatcher": dispatcher,
    "size": size,
    "poll-interval": poll_interval,
    "grace": grace,
    "retention": retention,
    "web-threads": web_threads,
}
_KEYS = {key: key.replace("-", "_") for key in _CONVERT}


# Finding them


def find_settings(configuration: Any = None) -> Settings:
    """What zope.conf says, or else the defaults.

    SettingsError if it says something in two places, or something wrong in `<product-config>`;
    of what is wrong in the typed section ZConfig has told already, with the line.
    """
    configuration = getConfiguration() if configuration is None else configuration
    sections = getattr(configuration, "product_config", None) or {}
    found = [value for value in sections.values() if isinstance(value, Settings)]
    fallback = sections.get(NAME)
    if isinstance(fallback, Mapping):
        found.append(from_mapping(fallback))
    if len(found) > 1:
        names = ", ".join(repr(each.section_name) for each in found)
        raise SettingsError(f"zope.conf has {len(found)} sections for zasync ({names}): keep one")
    return found[0] if found else Settings()


def from_mapping(mapping: Mapping[str, str]) -> Settings:
    """The settings in a `<product-config zasync>`.  SettingsError names the key."""
    values = {}
    for key, text in mapping.items():
        if key not in _CONVERT:
            near = difflib.get_close_matches(key, _CONVERT, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it knows {', '.join(_CONVERT)}"
            raise SettingsError(f"<product-config {NAME}> of zope.conf has no key {key!r}; {hint}")
        try:
            values[_KEYS[key]] = _CONVERT[key](text)
        except ValueError as error:
            raise SettingsError(f"<product-config {NAME}> of zope.conf: {error}") from None
    return Settings(**values)
