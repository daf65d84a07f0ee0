# SPDX-License-Identifier: ZPL-2.1
"""Named places in zasync's own code at which a test can make something happen.

Nothing is armed in production, and then a place costs the look at an empty dictionary.  What may
be armed there (an end of the process, an error, a pause) is the test's affair; tests of users
arm them through `zasync.testing`.
"""

from __future__ import annotations

from collections.abc import Callable

POINTS = {
    # Put
    "put.added": "a job lies in its queue; the client has not committed",
    # Claim, in a poll
    "poll.pinged": "the poll has said that the dispatcher lives; not committed",
    "poll.tidying": "what ended is about to be moved to where it belongs",
    "poll.claimed": "jobs are chosen and marked; not committed",
    "poll.committing": "the poll is about to commit",
    "poll.committed": "the poll is committed; the jobs are not handed to threads",
    # Run, in a thread
    "run.taken": "a thread has the job, and has not loaded it",
    "run.begun": "the job is loaded; its callable has not been entered",
    "run.returned": "the callable has returned; nothing is written down yet",
    "run.committing": "the result and the changes are about to be committed",
    "run.half_committed": "other databases have the changes; the queue's own does not yet",
    "run.settled": "they are committed; nobody in the process knows yet",
    # Group
    "group.called": "a member of a group has returned; nothing of the group is committed",
    "group.committing": "the results and changes of a group are about to be committed",
    "group.settled": "they are committed; nobody in the process knows yet",
    # Failure
    "run.failed": "the callable has raised; its policy has not been asked",
    "run.failing": "a failure is written as the result; not committed",
    "run.rescheduling": "it is written that the job is to run again; not committed",
    # Callbacks
    "callbacks.next": "the next callback, or the end, is chosen; not committed",
    "callbacks.chosen": "that is committed; the callback has not been entered",
    "callbacks.called": "a callback has ended",
    "callbacks.done": "the last has ended, and the job is completed",
    # Maintenance
    "recovery.found_dead": "a sibling is found dead; nothing is written yet",
    "recovery.handed_back": "some jobs of a dead dispatcher are handed back; not committed",
    "recovery.interrupting": "what becomes of an interrupted job is decided; not committed",
    "maintenance.pruned": "records of dispatchers are removed; not committed",
    # Stop
    "stop.draining": "no more claims; jobs may still run",
    "stop.deactivating": "what is left is about to be handed back",
}
"""The places by name, and what is the case there.  Part of no promise: they follow the code."""

Action = Callable[[], object]

armed: dict[str, Action] = {}


def reach(name: str) -> None:
    """Do what is armed at the place `name`."""
    if armed:
        action = armed.get(name)
        if action is not None:
            action()
