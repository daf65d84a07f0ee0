# SPDX-License-Identifier: ZPL-2.1
"""The plugin `schedule`: another plugin's call, some seconds from now."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

from zasync.foundation import clock
from zasync.foundation.text import safe_repr
from zasync.job import Job
from zasync.plugins.registry import Plugin, job_for

LONGEST = timedelta(days=366)


def schedule(seconds: float, item: Any, /, *args: Any, **kwargs: Any) -> Job:
    """A job that calls the plugin `item` with the arguments, `seconds` from now at the earliest.

    It is the plugin's own job, with its `begin_after` set.  ValueError for a time that is
    negative or longer than LONGEST; for `item` and the arguments see `job_for`.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"schedule needs a number of seconds, not {safe_repr(seconds)}")
    if not math.isfinite(seconds) or not 0 <= seconds <= LONGEST.total_seconds():
        raise ValueError(
            f"schedule takes from 0 seconds to {LONGEST.days} days, not {seconds!r} seconds"
        )
    job = job_for(item, *args, **kwargs)
    later = clock.now() + timedelta(seconds=seconds)
    job.begin_after = later if job.begin_after is None else max(later, job.begin_after)
    return job


PLUGIN = Plugin("schedule", schedule, "Call another plugin after so many seconds", makes_job=True)
