# SPDX-License-Identifier: ZPL-2.1
"""Stored: a job of Zope, which runs as the user who asked for it, in the same site and language.

Objects of Zope that it is given are kept as paths, and looked up as that user when it runs.
"""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Self

from Acquisition import aq_parent
from zExceptions import NotFound
from zope.globalrequest import getRequest

from zasync.integrations.zope.identity import (
    Identity,
    SpecialUser,
    acting_as,
    check_may_become,
    current_identity,
)
from zasync.integrations.zope.surroundings import find_app, find_object, path_of
from zasync.interfaces import NEW, BadStatusError, ZasyncError
from zasync.job import Job
from zasync.job.attempt import check_arguments_of_coroutine


@dataclass(frozen=True)
class ObjectAt:
    """Stands for an object of Zope among the arguments of a job, by its physical path."""

    path: str


class NoSuchObject(ZasyncError, LookupError):
    """A job names an object of Zope by a path at which there is none."""


ObjectAt.__module__ = "zasync.integrations.zope.job"


def call_method(item: Any, name: str, /, *args: Any, **kwargs: Any) -> Any:
    """Call the method `name` of an object, if the present user may."""
    return method_of(item, name)(*args, **kwargs)


def method_of(item: Any, name: str) -> Any:
    """What can be called under `name`.  NoSuchObject, or Unauthorized if not by this user."""
    try:
        method = item.restrictedTraverse(name)
    except (NotFound, LookupError, AttributeError):
        method = None
    if not builtins.callable(method):
        raise NoSuchObject(f"{path_of(item) or '/'} has no method {name!r}")
    return method


class ZopeJob(Job):
    """A job that runs as the user who made it, whoever and wherever the worker is.

    An argument that is an object of Zope, with its acquisition context, is stored as its path and
    found by restricted traversal when the job runs; so is the object whose method is given.
    """

    _identity: tuple[str | None, ...] | None = None

    def __init__(self, callable: Any, /, *args: Any, **kwargs: Any) -> None:
        target = getattr(callable, "__self__", None)
        if _is_placed(target):
            args = (target, callable.__name__, *args)
            callable = call_method
        super().__init__(
            callable,
            *map(_portable, args),
            **{name: _portable(value) for name, value in kwargs.items()},
        )
        with suppress(SpecialUser):  # then it is to be given another one before it is put
            self._identity = current_identity().as_tuple()

    @classmethod
    def run_as(cls, identity: Identity, callable: Any, /, *args: Any, **kwargs: Any) -> Self:
        """A job for another user than the present one; for trusted code."""
        job = cls(callable, *args, **kwargs)
        job.identity = identity
        return job

    @property
    def identity(self) -> Identity | None:
        """As whom it runs, and in which site and language.

        Can be set while the job is NEW; to another user than the present one by trusted code only.
        """
        return None if self._identity is None else Identity.from_tuple(self._identity)

    @identity.setter
    def identity(self, identity: Identity) -> None:
        if self.status != NEW:
            raise BadStatusError(f"the identity of {self!r} can be set while it is new only")
        check_may_become(identity)
        self._identity = identity.as_tuple()

    def check_storable(self, connection: Any) -> None:
        """Called when it is put: SpecialUser if nobody has said as whom it shall run."""
        if self._identity is None:
            current_identity()  # says what is wrong, if it still is
            raise SpecialUser(f"{self!r} has no identity; make it anew as the user who asks")
        super().check_storable(connection)
        identity = self.identity
        given = [*self.args, *self.kwargs.values()]
        if connection is not None and identity is not None and any(map(_is_place, given)):
            with acting_as(find_app(connection), identity) as app:
                self.check_in_zope(app)

    def check_in_zope(self, app: Any) -> None:
        """Called when it is put with objects of Zope, as the user as whom it shall run.

        NoSuchObject or Unauthorized if that user does not find them.
        """
        for value in (*self.args, *self.kwargs.values()):
            found(app, value)

    # The run

    def setUp(self) -> ExitStack:
        """Become the user.  UserGone, and the job is parked, if there is no such user any more."""
        identity = self.identity
        if identity is None:
            raise SpecialUser(f"{self!r} was put by code that did not say as whom it shall run")
        stack = ExitStack()
        stack.enter_context(acting_as(find_app(self._p_jar), identity))
        return stack

    def tearDown(self, setup_info: ExitStack | None) -> None:
        """Be nobody again."""
        if setup_info is not None:
            setup_info.close()

    def load_arguments(
        self, callable: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Find the objects at the paths, as the user."""
        app = current_app()
        args = [found(app, value) for value in args]
        kwargs = {name: found(app, value) for name, value in kwargs.items()}
        if inspect.iscoroutinefunction(callable):
            check_arguments_of_coroutine(self, callable, args, kwargs)
        return args, kwargs


ZopeJob.__module__ = call_method.__module__ = "zasync.integrations.zope.job"


def current_app() -> Any:
    """Zope's application object, as the running job sees it: with its request."""
    return getRequest()["PARENTS"][-1]


def _is_placed(value: Any) -> bool:
    """Whether `value` is an object of Zope that knows where it is."""
    return aq_parent(value) is not None and hasattr(value, "getPhysicalPath")


def _portable(value: Any) -> Any:
    return ObjectAt(path_of(value)) if _is_placed(value) else value


def _is_place(value: Any) -> bool:
    return isinstance(value, ObjectAt)


def object_at(context: Any) -> ObjectAt:
    """What stands for `context`, which is an object of Zope or its path.  LookupError."""
    if isinstance(context, str):
        if context and not context.startswith("/"):
            raise LookupError(f"the path of an object begins with '/': {context!r}")
        return ObjectAt(context.rstrip("/"))
    if isinstance(context, tuple | list):  # as getPhysicalPath answers
        return object_at("/".join(context))
    return ObjectAt(path_of(context))


def found(app: Any, value: Any) -> Any:
    """The value, or the object that it stands for, if the user may have it."""
    if not isinstance(value, ObjectAt):
        return value
    try:
        return find_object(app, value.path)
    except LookupError as error:
        raise NoSuchObject(f"there is no object {value.path or '/'} (any more)") from error
