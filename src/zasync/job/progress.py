# SPDX-License-Identifier: ZPL-2.1
"""The line of progress of a job that runs, kept where the job's own commit never meets it.

It lies in a tree of the agent that holds the job, under the job's oid; the dispatcher moves it to
the job's record when it lets go of the job.  A callback is not held itself: its line takes the
place of that of the job whose callback it is.  So each line says whose it is, and of which run.
"""

from __future__ import annotations

import math
from typing import Any

from zasync.foundation.text import printable
from zasync.job import relations

LONGEST = 200  # characters

Numbers = tuple[float, float]
"""How much is done, how much there is to do."""

Line = tuple[int, int, str] | tuple[int, int, str, Numbers]
"""Oid of the job, when its run began (microseconds since 1970), text; numbers if any were given."""


def checked_numbers(done: float | None, total: float | None) -> Numbers | None:
    """The two numbers, or None if neither is given.

    ValueError if one is missing, or if they cannot be a part and the whole.
    """
    if done is None and total is None:
        return None
    if done is None or total is None:
        raise ValueError("progress in numbers is told by both done and total")
    for number in (done, total):
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"done and total are numbers, not {number!r}")
    if not (math.isfinite(done) and math.isfinite(total) and 0 <= done <= total and total > 0):
        raise ValueError(f"done must lie between 0 and total, which is more: {done} of {total}")
    return done, total


def note_progress(job: Any, text: str, numbers: Numbers | None = None) -> None:
    """Keep `text`, cut to LONGEST, as the line of this run of `job`.  Does not commit.

    Nothing is kept where no agent holds the job: one that was called by hand.
    """
    agent = job.agent
    if agent is None:
        return
    line: Line = (job.oid, job._active_start, printable(text, one_line=True)[:LONGEST])
    if numbers is not None:
        line = (*line[:3], numbers)
    agent.need_progress()[relations.topmost(job).oid] = line


def progress_of(job: Any) -> str | None:
    """The last line of the present, or last, run of `job`; None if it noted none."""
    line = _line_of(job)
    return None if line is None else line[2]


def numbers_of(job: Any) -> Numbers | None:
    """What was told in numbers with that line; None if nothing was."""
    line = _line_of(job)
    return None if line is None or len(line) < 4 else line[3]


def _line_of(job: Any) -> Line | None:
    holder = relations.topmost(job)
    agent = holder.agent
    line: Line | None = None if agent is None else agent.progress.get(holder.oid)
    line = holder._progress if line is None else line
    if line is None or line[:2] != (job.oid, job._active_start):
        return None
    return line
