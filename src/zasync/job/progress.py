# SPDX-License-Identifier: ZPL-2.1
"""The line of progress of a job that runs, kept where the job's own commit never meets it.

It lies in a tree of the agent that holds the job, under the job's oid; the dispatcher moves it to
the job's record when it lets go of the job.  A callback is not held itself: its line takes the
place of that of the job whose callback it is.  So each line says whose it is, and of which run.
"""

from __future__ import annotations

from typing import Any

from zasync.foundation.text import printable
from zasync.job import relations

LONGEST = 200  # characters

Line = tuple[int, int, str]
"""Oid of the job, when its run began (microseconds since 1970), text."""


def note_progress(job: Any, text: str) -> None:
    """Keep `text`, cut to LONGEST, as the line of this run of `job`.  Does not commit.

    Nothing is kept where no agent holds the job: one that was called by hand.
    """
    agent = job.agent
    if agent is None:
        return
    line: Line = (job.oid, job._active_start, printable(text, one_line=True)[:LONGEST])
    agent.need_progress()[relations.topmost(job).oid] = line


def progress_of(job: Any) -> str | None:
    """The last line of the present, or last, run of `job`; None if it noted none."""
    holder = relations.topmost(job)
    agent = holder.agent
    line: Line | None = None if agent is None else agent.progress.get(holder.oid)
    line = holder._progress if line is None else line
    if line is None or line[:2] != (job.oid, job._active_start):
        return None
    return line[2]
