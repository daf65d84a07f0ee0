# SPDX-License-Identifier: ZPL-2.1
"""A call as plain values that can be shown as JSON, whatever its result is."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from zasync.calls.call import Call, CallOutcome
from zasync.foundation.text import bounded_text, class_name, printable, safe_repr

LONGEST_MESSAGE = 2000
LONGEST_REPR = 2000
LONGEST_TRACEBACK = 20_000


def describe(call: Call, *, url: str | None = None, with_traceback: bool = False) -> dict[str, Any]:
    """What there is to tell about `call`; times are ISO 8601 in UTC.

    A result that JSON cannot show is told by its type and a text of bounded length, and
    `result_is_json` is false.  The traceback of a failure is for those only who may read code.
    """
    progress = call.progress
    told: dict[str, Any] = {
        "id": call.id,
        "label": printable(call.label, one_line=True),
        "owner": call.owner,
        "state": str(call.state),
        "outcome": None if call.outcome is None else str(call.outcome),
        "put_at": _moment(call.put_at),
        "started_at": _moment(call.job.active_start),
        "ended_at": _moment(call.job.active_end),
        "progress": {"text": progress.text, "done": progress.done, "total": progress.total},
        "retried": call.retried,
    }
    if url is not None:
        told["url"] = url
    if call.outcome is CallOutcome.SUCCEEDED:
        told |= _result(call)
    failure = call.failure
    if failure is not None:
        told["failure"] = _failure(failure, with_traceback)
    return told


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _result(call: Call) -> dict[str, Any]:
    try:
        result = call.result
    except Exception as error:  # what it is made of is gone
        text = f"cannot be read ({type(error).__name__})"
        return {"result": {"type": None, "repr": text}, "result_is_json": False}
    try:
        plain = json.loads(json.dumps(result, allow_nan=False))
    except Exception:  # TypeError mostly; but repr and the like are code of the value's class
        kind = class_name(type(result))
        told = {"type": kind, "repr": bounded_text(safe_repr(result, LONGEST_REPR), LONGEST_REPR)}
        return {"result": told, "result_is_json": False}
    return {"result": plain, "result_is_json": True}


def _failure(failure: Any, with_traceback: bool) -> dict[str, Any]:
    message = printable(failure.getErrorMessage())
    told = {
        "type": class_name(failure.type),
        "message": bounded_text(message, LONGEST_MESSAGE),
    }
    if with_traceback:
        told["traceback"] = bounded_text(printable(failure.getTraceback()), LONGEST_TRACEBACK)
    return told
