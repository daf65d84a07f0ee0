# SPDX-License-Identifier: ZPL-2.1
"""Questions about how jobs hang together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zasync.interfaces import CALLBACKS, COMPLETED, ICallbackProxy, IJob


def parent_job(job: Any) -> Any:
    """The job of which `job` is a callback (directly or through a proxy), or None."""
    parent = job.parent
    if ICallbackProxy.providedBy(parent):
        parent = parent.parent
    return parent if IJob.providedBy(parent) else None


def topmost(job: Any) -> Any:
    """The job of which `job` is a callback, however indirectly; `job` itself if it is none."""
    parent = parent_job(job)
    while parent is not None:
        job, parent = parent, parent_job(parent)
    return job


def awaited_by(job: Any) -> Iterator[Any]:
    """The jobs whose end `job` waits for, directly or not: its own awaited one, its parent ..."""
    todo, seen = [job], []
    while todo:
        waiting = todo.pop()
        for other in (waiting.awaited, parent_job(waiting)):
            if other is not None and not has_result(other) and other not in seen:
                seen.append(other)
                todo.append(other)
                yield other


def is_job(candidate: Any) -> bool:
    """Whether `candidate` provides IJob."""
    return bool(IJob.providedBy(candidate))


def has_result(job: Any) -> bool:
    """Whether the job has come to its end as far as its own callable is concerned."""
    return job.status in (CALLBACKS, COMPLETED)
