# SPDX-License-Identifier: ZPL-2.1
"""Crash a job at every commit of its life, one after the other, and see that it ends well.

    crash_at_every_commit(set_up, check)

Each try begins with a new database in memory and one dispatcher on virtual time.  Another try is
spoiled at another commit, until there are no more; then all accidents have been tried everywhere.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import ConflictError

from zasync.testing.faults import Fault, FaultyStorage, Killed, Point
from zasync.testing.processes import POLL_INTERVAL, Cluster, cluster

__all__ = ["Accident", "Crashes", "EndedBadly", "crash_at_every_commit"]

FIRST = UUID(int=1)
MOST_COMMITS = 1000  # of one job; more mean that it never ends

SetUp = Callable[[Any], Any]
Check = Callable[[Any, Any], object]


class Accident(enum.Enum):
    """What can happen at a commit; the value says it in words."""

    KILLED_BEFORE_VOTE = "killed before the vote of"
    KILLED_BEFORE_FINISH = "killed between the vote and the finish of"
    KILLED_AFTER_FINISH = "killed after the finish of"
    REPLY_LOST = "told that the connection was lost, though the storage did it: the reply to"
    DISCONNECTED = "disconnected before"
    CONFLICT = "told of a conflict in"

    @property
    def kills(self) -> bool:
        """Whether the process is dead after it."""
        return self.value.startswith("killed")

    def prepare(self, storage: FaultyStorage, skip: int = 0, *, only_here: bool = False) -> Fault:
        """Have it happen at the commit after `skip` others; or only to this thread's commits."""
        point, error = _ERRORS[self]
        return storage.fail(point, error(), skip=skip, only_here=only_here)


CRASHES = tuple(accident for accident in Accident if accident.kills)
"""The accidents that kill."""

_ERRORS: dict[Accident, tuple[Point, Callable[[], BaseException]]] = {
    Accident.KILLED_BEFORE_VOTE: (Point.VOTE, Killed),
    Accident.KILLED_BEFORE_FINISH: (Point.BEFORE_FINISH, Killed),
    Accident.KILLED_AFTER_FINISH: (Point.AFTER_FINISH, Killed),
    Accident.REPLY_LOST: (Point.AFTER_FINISH, ClientDisconnected),
    Accident.DISCONNECTED: (Point.BEFORE_FINISH, ClientDisconnected),
    Accident.CONFLICT: (Point.VOTE, ConflictError),
}


class EndedBadly(AssertionError):
    """The job did not end well; says after which accident, and what the check said."""


@dataclasses.dataclass(frozen=True)
class Crashes:
    """What was tried: how many commits there were, and how many accidents happened."""

    tried: int
    commits: int  # of the undisturbed try

    def __str__(self) -> str:
        return f"{self.tried} accidents at {self.commits} commits"


def crash_at_every_commit(
    set_up: SetUp, check: Check, *, accidents: Iterable[Accident] = Accident, agent_size: int = 3
) -> Crashes:
    """Spoil each commit of a job in each way, and have it end well; answers what was tried.

    `set_up(root)` fills the new database, by way of its root object, and answers the job (or
    whatever can be made one); that is put in the queue '', and all committed.  After each try
    `check(root, job)` raises an error, mostly an AssertionError, if something is not as it should
    be.  A dead process is followed by another of the same name.  EndedBadly, which names the
    accident, if the check raises or the job does not end.  Uses the clock of the whole process,
    so no other reactor of zasync may run meanwhile.
    """
    commits = _try(set_up, check, agent_size).commits
    tried = 0
    for accident in accidents:
        for number in itertools.count():
            if not _try(set_up, check, agent_size, accident, number).happened:
                break  # there are not so many commits
            tried += 1
    return Crashes(tried, commits)


@dataclasses.dataclass(frozen=True)
class _Tried:
    happened: bool
    commits: int


def _try(
    set_up: SetUp,
    check: Check,
    agent_size: int,
    accident: Accident | None = None,
    number: int = 0,
) -> _Tried:
    if number > MOST_COMMITS:
        raise EndedBadly(f"the job has not ended after {MOST_COMMITS} commits")
    with cluster() as here:
        job = here.queue.put(set_up(here.root))
        here.commit()
        process = here.add(FIRST, agent_size=agent_size)
        scene = _Scene(accident, number)
        fault = scene.prepare(process.storage) if accident is not None else None
        try:
            process.start()
            _run(here, job, agent_size)
            here.begin()
            check(here.root, job)
        except Exception as error:
            raise EndedBadly(scene.report(error, fault, here)) from error
        return _Tried(fault is not None and bool(fault.met), process.storage.commits)


def _run(here: Cluster, job: Any, agent_size: int) -> None:
    """Run to the end, with a new process after each death."""
    here.run_to_the_end(job)
    here.fly(2 * POLL_INTERVAL)  # what is still to be tidied can be spoiled as well
    if not here.alive():
        here.add(FIRST, agent_size=agent_size).start()
        here.run_to_the_end(job)


class _Scene:
    """Where an accident happens, for the report."""

    def __init__(self, accident: Accident | None, number: int) -> None:
        self.accident = accident
        self.number = number
        self.place = ""

    def prepare(self, storage: FaultyStorage) -> Fault:
        assert self.accident is not None
        fault = self.accident.prepare(storage, self.number)
        happen = fault.action

        def note_and_happen() -> None:
            self.place = _present_place()
            happen()

        fault.action = note_and_happen
        return fault

    def report(self, error: Exception, fault: Fault | None, here: Cluster) -> str:
        if self.accident is None or fault is None or not fault.met:
            story = "The job does not end well even if nothing goes wrong."
        else:
            story = f"The dispatcher was {self.accident.value} its commit {self.number + 1}"
            story += f" ({self.place})." if self.place else "."
        said = str(error) or "(without a message)"
        return f"{story}\nThen: {type(error).__name__}: {said}\nThe jobs: {here.describe()}"


def _present_place() -> str:
    """Which of our functions commits now."""
    testing = Path(__file__).parent
    for frame, line in traceback.walk_stack(None):
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("zasync.") and not Path(frame.f_code.co_filename).is_relative_to(
            testing
        ):
            return f"in {module}.{frame.f_code.co_qualname}, line {line}"
    return ""
