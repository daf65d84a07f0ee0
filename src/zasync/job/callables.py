# SPDX-License-Identifier: ZPL-2.1
"""Stored: callables as names, resolved when they are run.

A function that is pickled by reference comes back as a broken class once its module is gone, and
calling that raises nothing.  So a callable is kept as a tuple of strings (`names`), and only what
is really an object (the `target`: a persistent object whose method is meant, the parts of a
partial) is kept as an object.  `zasync.job.job` decides where both lie.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from ZODB.broken import Broken

from zasync.foundation.text import safe_repr
from zasync.interfaces import NotStorableError, UnresolvableError

Names = tuple[Any, ...]

GLOBAL = "global"  # (GLOBAL, module, qualified name)
PROGRAM = "program"  # (PROGRAM, qualified name, file of the program): of the module __main__
METHOD = "method"  # (METHOD, module and qualified name of the target's class, method name)
OWN = "own"  # (OWN, method name): a method of the job itself
OBJECT = "object"  # (OBJECT, module and qualified name of the target's class)
PARTIAL = "partial"  # (PARTIAL, names of the function); target: (its target, args, keywords)


def describe(callable: Any, owner: Any = None) -> tuple[Names, Any]:
    """Answer `(names, target)` for `callable`; `target` is None where names suffice.

    TypeError if it cannot be called at all.  What cannot be named is answered as an object;
    `check_storable` tells whether the database will take it.
    """
    if not builtin_callable(callable):
        raise TypeError(f"a job needs something that can be called, not {safe_repr(callable)}")
    if isinstance(callable, functools.partial):
        names, target = describe(callable.func, owner)
        return (PARTIAL, names), (target, callable.args, callable.keywords)
    name = _global_name(callable)
    if name is not None:
        module, qualname = name
        if module == "__main__":
            return (PROGRAM, qualname, program()), None
        return (GLOBAL, module, qualname), None
    bound_to = _bound_to(callable)
    if bound_to is not None:
        target, method = bound_to
        if target is owner and owner is not None:
            return (OWN, method), None
        return (METHOD, *_class_name(target), method), target
    return (OBJECT, *_class_name(callable)), callable


builtin_callable = callable


def resolve(names: Names, target: Any, owner: Any = None) -> Callable[..., Any]:
    """Answer the callable of `describe`.  UnresolvableError if this process has no such code."""
    kind = names[0]
    if kind in (GLOBAL, PROGRAM):
        return _find(names)  # type: ignore[no-any-return]
    if kind == OWN:
        return _attribute(owner, names[1])
    if kind == PARTIAL:
        inner, args, keywords = target
        return functools.partial(resolve(names[1], inner, owner), *args, **keywords)
    if isinstance(target, Broken):
        raise UnresolvableError(f"the class {names[1]}.{names[2]} is not in this process")
    if kind == METHOD:
        return _attribute(target, names[3])
    return target  # type: ignore[no-any-return]


def check_resolvable(names: Names, owner: Any, load_target: Callable[[], Any]) -> None:
    """UnresolvableError if `resolve` would raise it; loads the target only if it must."""
    kind = names[0]
    if kind in (GLOBAL, PROGRAM):
        _find(names)
    elif kind == OWN:
        _attribute(owner, names[1])
    elif kind == PARTIAL:
        check_resolvable(names[1], owner, lambda: load_target()[0])
    elif not _class_tells(names):
        resolve(names, load_target(), owner)


def _class_tells(names: Names) -> bool:
    """Whether the class that `names` has is there, and with the method; else ask the object."""
    try:
        found = find_global(names[1], names[2])
    except UnresolvableError:  # also of one that pickles by other means than its class
        return False
    return names[0] == OBJECT or hasattr(found, names[3])


def program() -> str:
    """The file of the program that runs; '' in an interactive session."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    return os.path.abspath(file) if file else ""


def _find(names: Names) -> Any:
    """What a function or class is named after, by the kind of its name."""
    if names[0] == GLOBAL:
        return find_global(names[1], names[2])
    if names[2] != program():
        raise UnresolvableError(
            f"{names[1]} is of the program {names[2] or 'of an interactive session'}, and no other"
            " process can find it there; define it in a module that can be imported"
        )
    return find_global("__main__", names[1])


def find_global(module: str, qualname: str) -> Any:
    """Import `module` and answer its attribute `qualname`; UnresolvableError if that fails."""
    try:
        # Not from sys.modules: that has modules too which another thread is importing right now.
        found: Any = importlib.import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # an import may raise anything
        raise UnresolvableError(
            f"{module}.{qualname} is not to be found in this process"
            f" ({type(error).__name__}: {error})"
        ) from error
    return found


def title(names: Names) -> str:
    """The callable for people, without loading or importing anything."""
    if names[0] == GLOBAL:
        return ".".join(names[1:])
    if names[0] == PROGRAM:
        return f"__main__.{names[1]}"
    if names[0] == OWN:
        return f"self.{names[1]}"
    if names[0] == PARTIAL:
        return f"partial of {title(names[1])}"
    return ".".join(names[1:])


def check_nameable(names: Names, target: Any) -> None:
    """NotStorableError if the callable is one that no other process could ever find."""
    if names[0] == PARTIAL:
        check_nameable(names[1], target[0])
    elif names[0] == OBJECT and isinstance(target, types.FunctionType):
        kind = "a lambda" if target.__name__ == "<lambda>" else "a local function"
        raise NotStorableError(
            f"{safe_repr(target)} is {kind} or is not found under its own name"
            f" {target.__module__}.{target.__qualname__}; the database keeps functions by name."
            "  Define it at the top level of a module, or use a method of a persistent object."
        )
    elif names[0] == OBJECT and isinstance(target, type):
        raise NotStorableError(
            f"the class {target.__module__}.{target.__qualname__} is not found under that name;"
            " define it at the top level of a module."
        )
    elif names[0] == OBJECT and isinstance(target, _BOUND):
        raise NotStorableError(
            f"{safe_repr(target)} is not found as an attribute of what it is bound to;"
            " use a method of the object's class, or functools.partial of a function."
        )


_BOUND = (types.MethodType, types.BuiltinMethodType)


def _global_name(callable: Any) -> tuple[str, str] | None:
    """Module and qualified name under which `callable` is really found, or None."""
    module = getattr(callable, "__module__", None)
    qualname = getattr(callable, "__qualname__", None)
    of_class = isinstance(getattr(callable, "__self__", None), type)
    if isinstance(callable, types.MethodType) and not of_class:
        return None
    if isinstance(callable, _BOUND) and of_class:  # if the class can be found by name
        owner: Any = callable.__self__
        module, qualname = owner.__module__, owner.__qualname__
        qualname = f"{qualname}.{callable.__name__}"
    if not isinstance(module, str) or not isinstance(qualname, str) or "<" in qualname:
        return None
    try:
        found = find_global(module, qualname)
    except UnresolvableError:
        return None
    if found is callable or (isinstance(callable, _BOUND) and found == callable):
        return module, qualname
    return None


def _bound_to(callable: Any) -> tuple[Any, str] | None:
    """The object that a (Python or builtin) method is bound to, and the attribute's name."""
    target = getattr(callable, "__self__", None)
    name = getattr(callable, "__name__", None)
    if target is None or isinstance(target, types.ModuleType) or not isinstance(name, str):
        return None
    for attribute in (name, *_other_names(target, callable)):
        if getattr(target, attribute, None) == callable:
            return target, attribute
    return None


def _other_names(target: Any, method: Any) -> Iterator[str]:
    """What the classes of `target` call `method`, if it is private or was decorated."""
    function = getattr(method, "__func__", None)
    for base in type(target).__mro__:
        for name, value in vars(base).items():
            if value is function and function is not None:
                yield name


def _attribute(target: Any, name: str) -> Callable[..., Any]:
    try:
        return getattr(target, name)  # type: ignore[no-any-return]
    except AttributeError:
        raise UnresolvableError(
            f"{'.'.join(_class_name(target))} has no method {name!r} in this process"
        ) from None


def _class_name(target: Any) -> tuple[str, str]:
    return type(target).__module__, type(target).__qualname__
