# SPDX-License-Identifier: ZPL-2.1
"""The plugin `aggregate`: several plugin calls at once, with all their results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zasync.foundation.text import safe_repr
from zasync.job import Job, parallel
from zasync.plugins.registry import Plugin, job_for

LARGEST = 10_000  # calls in one group


def aggregate(*calls: Any) -> Job:
    """A job that performs `calls` in parallel; its result is the tuple of their results.

    A call is the name of a plugin, `(name, args)`, `(name, args, kwargs)`, or a job.  One that
    fails has its Failure among the results, and keeps no other from running.
    """
    if not calls:
        raise ValueError("aggregate needs at least one call")
    if len(calls) > LARGEST:
        raise ValueError(f"aggregate takes up to {LARGEST} calls, not {len(calls)}")
    return parallel(*[_job_of(index, call) for index, call in enumerate(calls)])


def _job_of(index: int, call: Any) -> Job:
    if isinstance(call, Job):
        return call
    if isinstance(call, str):
        return job_for(call)
    name, args, kwargs = _parts(index, call)
    try:
        return job_for(name, *args, **kwargs)
    except (TypeError, ValueError) as error:
        error.add_note(f"it is call {index} of the aggregate")
        raise


def _parts(index: int, call: Any) -> tuple[Any, Any, Any]:
    parts = list(call) if isinstance(call, list | tuple) else []
    if 1 <= len(parts) <= 3:
        parts += [(), {}][len(parts) - 1 :]
        name, args, kwargs = parts
        if isinstance(args, list | tuple) and isinstance(kwargs, Mapping):
            return name, args, kwargs
    raise TypeError(
        f"call {index} of the aggregate is a name, (name, args), (name, args, kwargs) or a job,"
        f" not {safe_repr(call)}"
    )


PLUGIN = Plugin("aggregate", aggregate, "Perform several plugin calls at once", makes_job=True)
