# SPDX-License-Identifier: ZPL-2.1
"""The 28 moments of a job's life at which a process is killed, as a table."""

from __future__ import annotations

import dataclasses
import enum

from torture.worker import FINISHED, INSIDE, VOTED


class Recovery(enum.Enum):
    """Who goes on after the death."""

    RESTART = "the same one, started again"
    SIBLING = "another one, and it never returns"
    BOTH = "both"


class Who(enum.Enum):
    """Which process is killed."""

    CLIENT = "puts a job"
    WORKER = "performs jobs"
    SWEEPER = "clears away another one, which was killed while it performed jobs"
    STOPPED = "performs jobs, and is told to stop"


@dataclasses.dataclass(frozen=True)
class Point:
    """A moment: the place at which it dies, once another one has been reached so many times."""

    number: int
    what: str
    place: str
    after: str | None = None
    who: Who = Who.WORKER
    job: str = "work"  # or: fail_once, fail

    def __str__(self) -> str:
        return f"{self.number:02} {self.what}"


POINTS = (
    Point(1, "put, before the client's commit", "put.added", who=Who.CLIENT),
    Point(2, "put, between vote and finish", VOTED, "put.added", who=Who.CLIENT),
    Point(3, "put, committed and not told", FINISHED, "put.added", who=Who.CLIENT),
    Point(4, "claimed, not committed", "poll.claimed"),
    Point(5, "in the commit of the claim", VOTED, "poll.claimed"),
    Point(6, "claim committed, not handed over", "poll.committed", "poll.claimed"),
    Point(7, "in the thread, nothing loaded", "run.taken"),
    Point(8, "loaded, callable not entered", "run.begun"),
    Point(9, "inside the callable", INSIDE),
    Point(10, "callable returned", "run.returned"),
    Point(11, "voted, not finished", VOTED, "run.committing"),
    Point(12, "committed, not told", FINISHED, "run.committing"),
    Point(13, "told, nothing noted", "run.settled"),
    Point(14, "before the first callback", "callbacks.next"),
    Point(15, "between two callbacks", "callbacks.called"),
    Point(16, "in the commit of a callback", VOTED, "callbacks.chosen"),
    Point(17, "last callback done, job not completed", "callbacks.next", "callbacks.called*2"),
    Point(18, "before the place in the quota is given back", "run.committing"),
    Point(19, "before the move to the completed", "poll.tidying", "callbacks.done"),
    Point(20, "raised, policy not asked", "run.failed", job="fail_once"),
    Point(21, "in the commit that reschedules", VOTED, "run.rescheduling", job="fail_once"),
    Point(22, "failure written, not committed", "run.failing", job="fail"),
    Point(23, "in the commit of a ping", VOTED, "poll.pinged", job="none"),
    Point(24, "a sibling found dead", "recovery.found_dead", who=Who.SWEEPER),
    Point(25, "one job handed back, others not", "recovery.handed_back", who=Who.SWEEPER),
    Point(26, "an interruption decided", "recovery.interrupting", who=Who.SWEEPER),
    Point(27, "records of dispatchers pruned", "maintenance.pruned"),
    Point(28, "told to stop, before the goodbye", "stop.deactivating", who=Who.STOPPED),
)
