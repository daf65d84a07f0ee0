# SPDX-License-Identifier: ZPL-2.1
"""TALES: expressions as work (`evaluate`) and as callbacks (`tales_callback`).

They are compiled when they are asked for, so that a mistake is told to whoever makes it, and
evaluated when the job runs, in the restricted engine and as the user who asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from AccessControl.SecurityManagement import getSecurityManager
from Products.PageTemplates.Expressions import getEngine, getTrustedEngine
from zope.globalrequest import getRequest
from zope.tales.tales import CompilerError

from zasync import local
from zasync.failure import Failure
from zasync.integrations.zope.identity import check_trusted_code
from zasync.integrations.zope.job import ZopeJob, current_app, object_at
from zasync.interfaces import ZasyncError
from zasync.job import relations

ON = ("success", "failure", "both")


class BadExpression(ZasyncError, ValueError):
    """An expression is not TALES, or is refused by the restricted engine; the message quotes it."""


def compiled(expression: str, *, trusted: bool = False) -> Any:
    """The expression, ready to be evaluated.  BadExpression."""
    if not isinstance(expression, str) or not expression.strip():
        raise BadExpression(f"an expression is a text such as 'python: 1 + 1', not {expression!r}")
    try:
        return (getTrustedEngine() if trusted else getEngine()).compile(expression)
    except (CompilerError, SyntaxError, KeyError) as error:
        # KeyError: of a kind that is none, such as in 'pyhton: 1'
        said = f"unknown kind {error}" if isinstance(error, KeyError) else str(error)
        reason = " ".join(said.split())
        raise BadExpression(f"the expression {expression!r} cannot be used: {reason}") from error


def evaluate(
    expression: str,
    context: Any,
    variables: Mapping[str, Any] | None = None,
    *,
    trusted: bool = False,
) -> Any:
    """Answer what the expression is.

    It sees `variables`, and `here` (or `context`), `request`, `user` and `root`, which no variable
    can replace.
    """
    names = {
        **(variables or {}),
        "here": context,
        "context": context,
        "request": getRequest(),
        "user": getSecurityManager().getUser(),
        "root": current_app(),
    }
    engine = getTrustedEngine() if trusted else getEngine()
    return engine.getContext(names).evaluate(compiled(expression, trusted=trusted))


# Callbacks


@dataclass(frozen=True)
class FailureFacts:
    """What restricted code may know of a failure."""

    __allow_access_to_unprotected_subobjects__ = True

    type: str
    message: str

    @classmethod
    def of(cls, failure: Failure) -> FailureFacts:
        return cls(failure.type.__name__, failure.getErrorMessage())


@dataclass(frozen=True)
class JobFacts:
    """What restricted code may know of the job whose callback it is."""

    __allow_access_to_unprotected_subobjects__ = True

    oid: int
    status: str
    callable: str
    progress: str | None

    @classmethod
    def of(cls, job: Any) -> JobFacts:
        return cls(job.oid, job.status, job.callable_name, job.progress)


def tales_callback(
    job: Any,
    expression: str,
    on: str = "success",
    *,
    context: Any = "",
    trusted: bool = False,
) -> ZopeJob:
    """Have `expression` evaluated when `job` has ended; answers the job that does it.

    It is evaluated as the present user, whoever the job belongs to, with `here` and `context` (an
    object or its path; by default the application object), `request`, `user`, `root`, `result`
    (None after a failure), `failure` (None after a success; else it has `type` and `message`)
    and `job`.  `on` is 'success', 'failure' or 'both'.  The caller commits.

    BadExpression if it does not compile.  With `trusted`, which only code in the file system may
    ask for, the engine is not restricted, and `failure` and `job` are the real ones.
    """
    if on not in ON:
        raise ValueError(f"on is one of {', '.join(ON)}, not {on!r}")
    if trusted:
        check_trusted_code("a trusted expression")
    compiled(expression, trusted=trusted)
    callback = ZopeJob(call_back, object_at(context), expression, trusted)
    if on == "both":
        job.addCallback(callback)
    else:
        job.addCallbacks(**{on: callback})
    return callback


def call_back(context: Any, expression: str, trusted: bool, result: Any) -> Any:
    """What the job of `tales_callback` does."""
    failure = result if isinstance(result, Failure) else None
    ended = relations.parent_job(local.getJob())
    variables = {
        "result": None if failure is not None else result,
        "failure": failure if trusted or failure is None else FailureFacts.of(failure),
        "job": ended if trusted else JobFacts.of(ended),
    }
    return evaluate(expression, context, variables, trusted=trusted)
