# SPDX-License-Identifier: ZPL-2.1
"""What a user or a manager does with a call that runs or has ended.  Nothing here commits."""

from __future__ import annotations

from typing import Any

from zasync.calls import CallOutcome
from zasync.interfaces import ZasyncError


class NotFailed(ZasyncError):
    """Only a call that has failed or was cancelled can be done again, or be discarded."""


def cancel(call: Any) -> bool:
    """End it; False if it has ended already."""
    return bool(call.cancel())


def retry(call: Any) -> None:
    """Have it done again, under the same id and as the same user."""
    _check_failed(call)
    forget_parked(call.job)
    call.retry()


def discard(call: Any, jobs: Any) -> None:
    """Forget it, now rather than when its time has come; `jobs` is the register of the site."""
    _check_failed(call)
    forget_parked(call.job)
    jobs.discard(call)


def _check_failed(call: Any) -> None:
    if call.outcome not in (CallOutcome.FAILED, CallOutcome.CANCELLED):
        raise NotFailed("The job has not failed and was not cancelled.")


def forget_parked(job: Any) -> None:
    """Take the job, and the steps that it consists of, out of what its queue has parked.

    Whoever says what is to become of the whole has seen to them.
    """
    queue = job.queue
    if queue is None or not queue.parked:
        return
    for each in (job, *job.performed_for_it()):
        if each in queue.parked:
            queue.parked.discard(each)
