# SPDX-License-Identifier: ZPL-2.1
"""`zope_exec`: do something to an object of Zope later, elsewhere, as the user who asks now."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from zope.globalrequest import getRequest

from zasync.integrations.zope.expressions import BadExpression, compiled, evaluate
from zasync.integrations.zope.identity import Identity, in_site
from zasync.integrations.zope.job import ZopeJob, found, method_of, object_at
from zasync.plugins import Plugin

_METHOD = re.compile(r"[A-Za-z]\w*")


class ZopeExec(ZopeJob):
    """The job of `zope_exec`, which looks for the method, too, when it is put."""

    def check_in_zope(self, app: Any) -> None:
        """NoSuchObject or Unauthorized if the user may not call the method."""
        super().check_in_zope(app)
        context, what = self.args
        if is_method(what):
            method_of(found(app, context), what)


ZopeExec.__module__ = "zasync.integrations.zope.execution"


def zope_exec(
    context: Any,
    expression_or_method: str,
    request: Mapping[str, Any] | None = None,
    variables: Mapping[str, Any] | None = None,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    site: Any = None,
    language: str | None = None,
    user: Identity | None = None,
) -> ZopeExec:
    """A job, to be put in a queue, that evaluates an expression or calls a method of `context`.

    `context` is an object of Zope, or its path.  A plain name is a method of it, looked up by
    restricted traversal and called with `args` and `kwargs`; anything else is a TALES expression
    for the restricted engine, which sees `variables` beside `here`, `request`, `user` and `root`.
    `request` has values for the form of the request.  `site` (an object or a path) and `language`
    are, if not given, those of now; `user` is for trusted code.

    BadExpression at once if the expression does not compile; when the job is put, NoSuchObject,
    Unauthorized or UserGone if the user has no such object, or method, now.
    """
    if not isinstance(expression_or_method, str):
        raise BadExpression(
            f"what to do is an expression or the name of a method, not {expression_or_method!r}"
        )
    if not is_method(expression_or_method):
        if args or kwargs:
            raise BadExpression("an expression takes no args and kwargs; give it variables")
        compiled(expression_or_method)
    job = ZopeExec(
        execute,
        object_at(context),
        expression_or_method,
        request=dict(request or {}),
        variables=dict(variables or {}),
        args=tuple(args),
        kwargs=dict(kwargs or {}),
    )
    if user is not None:
        job.identity = user
    identity = job.identity
    if identity is not None and site is not None:
        identity = in_site(identity, site)
    if identity is not None and language is not None:
        identity = replace(identity, language=language)
    if identity is not None:
        job.identity = identity
    return job


def is_method(text: str) -> bool:
    """Whether it names a method, and is no expression."""
    return _METHOD.fullmatch(text) is not None


def execute(
    context: Any,
    expression_or_method: str,
    request: dict[str, Any],
    variables: dict[str, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """What the job of `zope_exec` does."""
    getRequest().form.update(request)
    if is_method(expression_or_method):
        return method_of(context, expression_or_method)(*args, **kwargs)
    return evaluate(expression_or_method, context, variables)


PLUGIN = Plugin(
    name="zope_exec",
    callable=zope_exec,
    description="Evaluates an expression, or calls a method of an object, inside of Zope",
    timeout=timedelta(hours=4),
    zope_aware=True,
    makes_job=True,
)
