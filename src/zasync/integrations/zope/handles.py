# SPDX-License-Identifier: ZPL-2.1
"""A call as scripts and templates get it: what its owner may know and do, and nothing else.

It is made anew each time and never stored; trusted code finds the stored call in `call`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from AccessControl.class_init import InitializeClass
from AccessControl.SecurityInfo import ClassSecurityInfo

from zasync.calls import Call
from zasync.integrations.zope.expressions import tales_callback


class CallHandle:
    """One call.  `id` is what `getCall` takes."""

    security = ClassSecurityInfo()
    security.declareObjectPublic()
    security.declarePublic("cancel", "retry", "addCallback")
    security.setDefaultAccess(
        {
            "id": True,
            "label": True,
            "put_at": True,
            "state": True,
            "outcome": True,
            "progress": True,
            "done": True,
            "total": True,
            "result": True,
            "error": True,
        }
    )

    def __init__(self, call: Call) -> None:
        self._call = call

    @property
    def call(self) -> Call:
        """The stored call; scripts cannot have it."""
        return self._call

    @property
    def id(self) -> str:
        """What names the call."""
        return str(self._call.id)

    @property
    def label(self) -> str:
        """The plugin's name, or the callable's."""
        return str(self._call.label)

    @property
    def put_at(self) -> datetime | None:
        """When it was made."""
        return self._call.put_at

    @property
    def state(self) -> str:
        """'new', 'accepted' or 'resolved'."""
        return str(self._call.state)

    @property
    def outcome(self) -> str | None:
        """None while it runs; then 'succeeded', 'failed' or 'cancelled'."""
        outcome = self._call.outcome
        return None if outcome is None else str(outcome)

    @property
    def progress(self) -> str:
        """The line that it told last."""
        return self._call.progress.text or ""

    @property
    def done(self) -> float | None:
        """How much is done, if it tells that."""
        return self._call.progress.done

    @property
    def total(self) -> float | None:
        """How much there is to do, if it tells that."""
        return self._call.progress.total

    @property
    def result(self) -> Any:
        """What it returned; None if it has not, or has failed."""
        return self._call.result if self.outcome == "succeeded" else None

    @property
    def error(self) -> str | None:
        """Why it failed, in one message."""
        failure = self._call.failure
        return None if failure is None else str(failure.getErrorMessage())

    def cancel(self) -> bool:
        """End it, if it has not come to its end; answers whether it was ended."""
        return bool(self._call.cancel())

    def addCallback(self, expression: str, on: str = "success", context: Any = "") -> None:
        """Have a TALES expression evaluated when it has ended, as the present user.

        It sees `result`, `failure`, `job` and what `tales_callback` says; `context`, an object or
        a path, is its `here`.  `on` is 'success', 'failure' or 'both'.  A retry does not take the
        callbacks along.
        """
        tales_callback(self._call.job, expression, on, context=context)

    def retry(self) -> None:
        """Do it again, under the same id, if it has failed or was cancelled."""
        self._call.retry()


InitializeClass(CallHandle)
