# SPDX-License-Identifier: ZPL-2.1
"""Plugins by name, for one process: whoever puts jobs registers what may be asked for.

A job is stored with the module and the name of the plugin's callable, as any other job is, so a
worker needs no registrations, just the code.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from zasync.foundation.text import safe_repr
from zasync.interfaces import ZasyncError
from zasync.job import Job, NeverRetry
from zasync.plugins import handlers

SHIPPED = {
    "aggregate": "zasync.plugins.aggregate:PLUGIN",
    "http_fetch": "zasync.plugins.http_fetch:PLUGIN",
    "ldap_search": "zasync.plugins.ldap_search:PLUGIN",
    "schedule": "zasync.plugins.schedule:PLUGIN",
}
"""Those that are there without being registered, each imported when it is first asked for."""

_NAME = re.compile(r"[A-Za-z][\w.-]{0,99}", re.ASCII)
_Function = TypeVar("_Function", bound=Callable[..., Any])


class UnknownPlugin(ZasyncError, LookupError):
    """No plugin of that name is registered in this process; the message tells those that are."""


class BadPlugin(ZasyncError, ValueError):
    """What is said of a plugin cannot be; or another plugin has its name already."""


@dataclasses.dataclass(frozen=True)
class Plugin:
    """A callable that can be asked for by name, and how its jobs are to be run.

    `callable` is found under its own name in a module, or it cannot be stored.  A run that takes
    longer than `timeout` ends, as `Job.timeout` says.  `retry` no: a job is run once at most,
    also after a conflict or an interruption (NeverRetry).  `zope_aware`: it is run in Zope, as
    the user who asks.  `check` is called with the arguments when a job is made, and raises what
    is wrong with them.  `makes_job`: the callable answers the job; it is called at once, by
    whoever asks.
    """

    name: str
    callable: Callable[..., Any]
    description: str = ""
    timeout: timedelta | None = None
    retry: bool = True
    zope_aware: bool = False
    check: Callable[..., None] | None = None
    makes_job: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise BadPlugin(
                f"{safe_repr(self.name)} is no name of a plugin: it begins with a letter, and up to"
                " 99 letters, digits, '.', '_' and '-' follow"
            )
        if not callable(self.callable):
            raise BadPlugin(
                f"plugin {self.name!r} needs a callable, not {safe_repr(self.callable)}"
            )
        if "<" in getattr(self.callable, "__qualname__", ""):
            raise BadPlugin(
                f"the callable of plugin {self.name!r}, {safe_repr(self.callable)}, is a lambda or"
                " a local function, which no worker could find: define it in a module"
            )
        if self.timeout is not None and not (
            isinstance(self.timeout, timedelta) and self.timeout > timedelta()
        ):
            raise BadPlugin(
                f"the timeout of plugin {self.name!r} is a timedelta of more than nothing,"
                f" not {safe_repr(self.timeout)}"
            )


class _Registry:
    """What is registered in this process, and how jobs of zope-aware plugins are made."""

    def __init__(self) -> None:
        self.plugins: dict[str, Plugin] = {}
        self.zope_job: Callable[..., Job] | None = None
        self.lock = threading.Lock()


_registry = _Registry()


def register(plugin: Plugin) -> Plugin:
    """Have `plugin` found by its name in this process; answers it.

    The same may be registered again.  BadPlugin if another one has the name; a shipped one is
    replaced, and keeps its `check` if its callable is the same.
    """
    shipped = SHIPPED.get(plugin.name)
    if shipped is not None:
        original = handlers.load(shipped)
        if original.callable is plugin.callable:
            plugin = dataclasses.replace(
                plugin, check=plugin.check or original.check, makes_job=original.makes_job
            )
    with _registry.lock:
        known = _registry.plugins.setdefault(plugin.name, plugin)
    if known != plugin:
        raise BadPlugin(
            f"there is another plugin {plugin.name!r} already, {_title(known.callable)}, and so"
            f" {_title(plugin.callable)} needs a name of its own; or unregister the other one"
        )
    return known


def unregister(name: str) -> None:
    """Forget what was registered under `name`; a shipped plugin of that name is back then."""
    with _registry.lock:
        if _registry.plugins.pop(name, None) is None:
            raise unknown(name)


def plugin(
    name: str | None = None,
    *,
    description: str = "",
    timeout: timedelta | None = None,
    retry: bool = True,
    zope_aware: bool = False,
    check: Callable[..., None] | None = None,
) -> Callable[[_Function], _Function]:
    """Decorate a function to register it, under its own name or `name`; it stays as it is."""

    def registered(function: _Function) -> _Function:
        text = description or (inspect.getdoc(function) or "").partition("\n")[0]
        called = function.__name__ if name is None else name
        register(Plugin(called, function, text, timeout, retry, zope_aware, check))
        return function

    return registered


def get(name: str) -> Plugin:
    """The plugin of that name.  UnknownPlugin, which lists near names."""
    found = _registry.plugins.get(name)
    if found is None and name in SHIPPED:
        return handlers.load(SHIPPED[name])  # type: ignore[no-any-return]
    if found is None:
        raise unknown(name)
    return found


def names() -> list[str]:
    """The names under which a plugin is found, in order."""
    return sorted({*_registry.plugins, *SHIPPED})


def unknown(name: object) -> UnknownPlugin:
    """The error that there is no plugin `name`."""
    near = difflib.get_close_matches(str(name), names(), n=3) if isinstance(name, str) else []
    hint = f"did you mean {_listed(near)}?" if near else f"there are {_listed(names())}"
    return UnknownPlugin(f"no plugin {safe_repr(name)} is registered in this process; {hint}")


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names))


def provide_zope_jobs(factory: Callable[..., Job] | None) -> None:
    """Have jobs of zope-aware plugins made by `factory(callable, *args, **kwargs)`."""
    _registry.zope_job = factory


def job_for(item: Any, /, *args: Any, **kwargs: Any) -> Job:
    """A new job that calls a plugin, by its name, or itself; to be put in a queue.

    `item` may also be a callable: then the plugin registered for it says how it is run; one that
    is not registered becomes a plain job.  A name is that of a registered plugin and never that
    of a module or function: for those see `importable`.  UnknownPlugin, or TypeError for
    arguments that the callable does not take, or what the plugin's `check` raises.
    """
    plugin = item if isinstance(item, Plugin) else _find(item)
    if plugin is None:
        return Job(item, *args, **kwargs)
    _check(plugin, args, kwargs)
    return _with_options(plugin, _make(plugin, args, kwargs))


def blank_job(item: Any) -> Job:
    """Like `job_for`, of a job that gets its arguments later; nothing looks at those then."""
    plugin = item if isinstance(item, Plugin) else _find(item)
    if plugin is None:
        return Job(item)
    if plugin.makes_job:
        raise BadPlugin(f"plugin {plugin.name!r} makes jobs, and cannot be called later")
    return _with_options(plugin, _make(plugin, (), {}))


def _with_options(plugin: Plugin, job: Job) -> Job:
    if not plugin.retry:
        job.retry_policy_factory = NeverRetry
    if plugin.timeout is not None:
        job.timeout = job.run_limit = plugin.timeout
    return job


def _find(item: Any) -> Plugin | None:
    if isinstance(item, str):
        return get(item)
    if not callable(item):
        raise TypeError(f"a job is made of a plugin's name or a callable, not {safe_repr(item)}")
    of_item = [each for each in list(_registry.plugins.values()) if each.callable is item]
    return of_item[0] if of_item else None


def _check(plugin: Plugin, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        inspect.signature(plugin.callable).bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"plugin {plugin.name!r}: {error}") from None
    except ValueError:  # a builtin that does not tell what it takes
        pass
    if plugin.check is not None:
        plugin.check(*args, **kwargs)


def _make(plugin: Plugin, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Job:
    if plugin.makes_job:
        return plugin.callable(*args, **kwargs)  # type: ignore[no-any-return]
    if not plugin.zope_aware:
        return Job(plugin.callable, *args, **kwargs)
    if _registry.zope_job is None:
        raise BadPlugin(
            f"plugin {plugin.name!r} is to be run in Zope, and this process is not set up for"
            " that: include zasync.integrations.zope"
        )
    return _registry.zope_job(plugin.callable, *args, **kwargs)


def _title(function: Any) -> str:
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    return f"{module}.{name}" if module and name else safe_repr(function)
