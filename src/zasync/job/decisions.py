# SPDX-License-Identifier: ZPL-2.1
"""What a retry policy says, and what that means.  Acting on it is up to those who ask."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from zasync.foundation import clock
from zasync.foundation.attempts import Stopped
from zasync.foundation.errors import Trouble, classify
from zasync.foundation.reporting import events
from zasync.foundation.text import safe_repr


def ask_policy(job: Any, question: str, *args: Any) -> Any:
    """The decision of the job's policy; one that cannot decide, or comes too late, is False."""
    try:
        decision = _checked(getattr(job.getRetryPolicy(), question)(*args))
    except Stopped:
        raise
    except Exception as error:
        if classify(error, from_storage=True) is not Trouble.OTHER:
            raise
        events.policy_failed(job, error)
        return False
    if decision is False or job._deadline is None:
        return decision
    return False if due_moment(decision) > job._deadline else decision


def _checked(decision: Any) -> Any:
    """A retry policy's answer, None as False; an error if it is none."""
    if decision is None:
        return False
    if not isinstance(decision, bool | datetime | timedelta):
        raise TypeError(
            "a retry policy answers a bool, a datetime or a timedelta, not", safe_repr(decision)
        )
    due_moment(decision)  # ValueError if it is naive
    return decision


def is_first_in_line(decision: Any) -> bool:
    """Whether a decision means to go back to the head of the queue: an empty timedelta."""
    return isinstance(decision, timedelta) and not decision


def due_moment(decision: Any) -> int:
    """When a decision means to run again, in microseconds since 1970."""
    if isinstance(decision, datetime):
        return clock.to_micros(clock.aware(decision, "the retry policy's answer"))
    if isinstance(decision, timedelta):
        return clock.now_micros() + decision // timedelta(microseconds=1)
    return clock.now_micros()
