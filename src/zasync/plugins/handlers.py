# SPDX-License-Identifier: ZPL-2.1
"""Callables by dotted name, as configuration says them: what is found, and what is refused.

Configuration is written by people who may run code here anyway, so this is no fence against them.
It catches what should never be a handler, most of all where a name slipped in from outside.
"""

from __future__ import annotations

import importlib
import inspect
import re
import types
from typing import Any

from zasync.interfaces import ZasyncError

# What runs commands or code, or reaches into the interpreter.
REFUSED = frozenset(
    """
    _ctypes _frozen_importlib _imp _io _pickle _posixsubprocess _socket _thread _winapi
    asyncio.subprocess atexit builtins code codeop commands concurrent ctypes dill ensurepip
    faulthandler ftplib gc importlib inspect io marshal multiprocessing nt os pathlib pdb
    pickle pip pkgutil platform posix posixpath profile pty runpy shelve shutil signal site
    smtplib socket subprocess sys sysconfig telnetlib tempfile threading timeit trace turtle
    types unittest venv webbrowser xmlrpc zipimport zodbpickle
    """.split()  # noqa: SIM905
)

_PART = re.compile(r"[^\W\d]\w*")


class BadHandler(ZasyncError, ValueError):
    """A dotted name does not lead to something that can be a plugin's handler."""


def resolve(dotted: str) -> Any:
    """The callable that `package.module:name` or `package.module.name` stands for.

    BadHandler for what is not there, is no function or class, belongs to a module that runs
    commands or code, or is reached through a private name or another module's import.
    """
    found = load(dotted)
    module = getattr(found, "__module__", None)
    if not isinstance(found, types.FunctionType | type | types.MethodType):
        raise BadHandler(f"{dotted!r} is no function and no class: {type(found).__name__}")
    if not isinstance(module, str) or _is_refused(module):
        raise BadHandler(f"{dotted!r} is of the module {module!r}, which no plugin may be of")
    return found


def load(dotted: str) -> Any:
    """What the dotted name stands for, whatever that is.  BadHandler."""
    if not isinstance(dotted, str):
        raise BadHandler(f"a handler is named as 'package.module:function', not {dotted!r}")
    module_name, colon, path = dotted.strip().partition(":")
    if not colon:
        module_name, _, path = module_name.rpartition(".")
    parts = [*module_name.split("."), *path.split(".")]
    if not all(map(_PART.fullmatch, parts)):
        raise BadHandler(f"{dotted!r} names no function: write 'package.module:function'")
    if any(part.startswith("_") for part in parts):
        raise BadHandler(f"{dotted!r} has a private part, and cannot be a handler")
    if _is_refused(module_name):
        raise BadHandler(f"{dotted!r} is of a module that no plugin may be of")
    return _attribute(dotted, _module(dotted, module_name), path)


def _is_refused(module: str) -> bool:
    return module in REFUSED or module.partition(".")[0] in REFUSED


def _module(dotted: str, name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        raise BadHandler(
            f"{dotted!r}: cannot import {name!r} ({type(error).__name__}: {error})"
        ) from error


def _attribute(dotted: str, module: Any, path: str) -> Any:
    found = module
    for part in path.split("."):
        if found is not module and not isinstance(found, type):
            raise BadHandler(f"{dotted!r} leads through something that is no module and no class")
        try:
            found = inspect.getattr_static(found, part) if found is module else getattr(found, part)
        except AttributeError:
            raise BadHandler(f"{dotted!r}: there is no {part!r} in {module.__name__}") from None
        if isinstance(found, types.ModuleType):
            raise BadHandler(f"{dotted!r} leads through a module that {module.__name__} imports")
    return found


def importable(dotted: str) -> Any:
    """The callable `package.module:function`, for `job_for`; for trusted code only.

    The name must not come from outside: whoever chooses it chooses what is run.
    """
    return resolve(dotted)
