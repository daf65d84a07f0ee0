# SPDX-License-Identifier: ZPL-2.1
"""Plugins from configuration: a mapping of words to words, as a section of a file has them."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from zasync.plugins.handlers import resolve
from zasync.plugins.registry import BadPlugin, Plugin, register

OPTIONS = frozenset({"name", "handler", "description", "timeout", "retry", "zope_aware"})

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)", re.IGNORECASE)
_YES = frozenset({"yes", "true", "on", "1"})
_NO = frozenset({"no", "false", "off", "0"})


def register_from_config(options: Mapping[str, Any]) -> Plugin:
    """Register the plugin that `options` describe; answers it.

    `name` and `handler` (`package.module:function`) are needed; `description`, `timeout`
    (seconds, or with a unit: 90s, 5m, 4h, 1d), `retry` and `zope-aware` (yes or no) are not.
    BadPlugin or BadHandler says what is wrong.
    """
    return register(plugin_from_config(options))


def plugin_from_config(options: Mapping[str, Any]) -> Plugin:
    """The plugin that `options` describe, not registered."""
    known = {str(key).replace("-", "_"): value for key, value in options.items()}
    known = {key: value for key, value in known.items() if value is not None}
    for key in known:
        if key not in OPTIONS:
            near = difflib.get_close_matches(key, OPTIONS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {sorted(OPTIONS)}"
            raise BadPlugin(f"a plugin has no option {key!r}; {hint}")
    for key in ("name", "handler"):
        if not known.get(key):
            raise BadPlugin(f"the plugin {known.get('name', '')!r} needs the option {key!r}")
    handler = known["handler"]
    return Plugin(
        name=known["name"],
        callable=resolve(handler) if isinstance(handler, str) else handler,
        description=str(known.get("description", "")),
        timeout=span(known["timeout"]) if "timeout" in known else None,
        retry=yes_or_no(known.get("retry", True), "retry"),
        zope_aware=yes_or_no(known.get("zope_aware", False), "zope-aware"),
    )


def span(value: Any) -> timedelta:
    """A time from a timedelta, a number of seconds, or text such as '90', '90s', '5m', '4h'."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return timedelta(seconds=value)
    match = _SPAN.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise BadPlugin(f"a time is a number of seconds, or like 90s, 5m, 4h, 1d, not {value!r}")
    try:
        return timedelta(seconds=float(match[1]) * _UNITS[match[2].lower()])
    except OverflowError:
        raise BadPlugin(f"a time of {value!r} is too long") from None


def yes_or_no(value: Any, option: str) -> bool:
    """True or False from a bool, or from 'yes' or 'no' and their like."""
    word = str(value).strip().lower()
    if word not in _YES | _NO:
        raise BadPlugin(f"the option {option!r} is yes or no, not {value!r}")
    return word in _YES
