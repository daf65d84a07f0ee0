# SPDX-License-Identifier: ZPL-2.1
"""A new job that asks for the same as another one, which may have ended."""

from __future__ import annotations

from typing import Any

from zasync.job import record, relations, values

# What belongs to the one life of a job, and not to what was asked for.
OF_ONE_LIFE = frozenset(
    {
        "_status",
        "_parent",
        "_begin_after",
        "_deadline",
        "_place",
        "_quota_hold",
        "_token",
        "_again",
        "_result",
        "_policy",
        "_assigner",
        "_suspension",
        "_starter",
        "_active_start",
        "_active_end",
        "_callbacks_end",
        "_cancelled",
        "_extras",
        "_own_commits",
        "_interrupted",
        "_interruption",
        "_crashes",
        "_crash_count",
        "_progress",
        "_alone",
    }
)


def again(job: Any) -> Any:
    """A NEW job of the same class with the same call and options as `job`."""
    kind: Any = type(job)
    made = kind.__new__(kind)
    state = record.unpacked(job.__getstate__())
    made.__setstate__(
        {name: value for name, value in state.items() if name not in kind.of_one_life}
    )
    if job._payload is not None:
        made._payload = values.Payload(job._payload.target, [], dict(job.kwargs))
    args = [made if arg is job else arg for arg in job.args]
    parent = relations.parent_job(job)
    if parent is not None:
        args.append(parent.result)
    made.args = args
    return made
