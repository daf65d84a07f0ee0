# SPDX-License-Identifier: ZPL-2.1
"""The life of a job as a table of moves.  Every change of a status goes through it.

`python -m zasync.job` prints the table.
"""

from __future__ import annotations

import enum
from typing import Any

from zasync.interfaces import (
    ACTIVE,
    ASSIGNED,
    CALLBACKS,
    COMPLETED,
    NEW,
    PENDING,
    BadStatusError,
)


class Move(enum.Enum):
    """What can happen to a job: from which statuses, and to which."""

    PUT = ("put in a queue", (NEW,), PENDING)
    TAKE_OUT = ("taken out of its queue", (PENDING,), NEW)
    ASSIGN = ("claimed by an agent", (NEW,), ASSIGNED)
    LET_GO = ("taken out of its agent", (NEW, ASSIGNED, ACTIVE), NEW)
    PUT_BACK = ("put back first in line", (NEW, ASSIGNED, ACTIVE), PENDING)
    START = ("started", (NEW, ASSIGNED), ACTIVE)
    RESCHEDULE = ("put back to be run later", (NEW, ACTIVE), PENDING)
    RETRY_CALLBACK = ("made ready to run again as a callback", (ACTIVE,), NEW)
    FINISH = ("given its result", (ACTIVE,), CALLBACKS)
    FAIL = ("failed before it began", (NEW, PENDING, ASSIGNED), CALLBACKS)
    COMPLETE = ("completed", (CALLBACKS,), COMPLETED)

    def __init__(self, words: str, sources: tuple[str, ...], target: str) -> None:
        self.words = words
        self.sources = sources
        self.target = target

    def check(self, job: Any) -> None:
        """BadStatusError, naming job, move and statuses, if `job` may not make this move."""
        if job.status not in self.sources:
            raise BadStatusError(
                f"{job!r} cannot be {self.words}: its status is {job.status},"
                f" and must be {' or '.join(self.sources)}"
            )


def table() -> str:
    """The moves as lines of text: what happens, from, to."""
    rows = [("what happens to a job", "from", "to")]
    rows += [(move.words, ", ".join(move.sources), move.target) for move in Move]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
