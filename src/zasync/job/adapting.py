# SPDX-License-Identifier: ZPL-2.1
"""What is taken for a job."""

from __future__ import annotations

from typing import Any

from zasync.interfaces import (
    IJob,
)


def as_job(item: Any) -> Any:
    """Adapt `item` to IJob; a callable that nothing adapts becomes a plain Job."""
    if IJob.providedBy(item):
        return item
    job = IJob(item, None)
    return plain_job(item) if job is None else job


def plain_job(item: Any) -> Any:
    """A job of ours that keeps books, whatever kind of job the application adapts callables to."""
    from zasync.job.job import Job  # a job is made of this module

    return Job(item)
