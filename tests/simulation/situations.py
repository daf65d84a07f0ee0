# SPDX-License-Identifier: ZPL-2.1
"""What must happen now and then, or the simulation proves less than it seems to."""

from __future__ import annotations

EVENTS = {
    "job_lost": "a zombie's commit is refused",
    "job_in_doubt": "a job's own commit is in doubt",
    "storage_trouble": "the storage is away",
    "job_committed_itself": "a job commits by itself",
    "job_unresolvable": "a job's code is not there",
    "process_ending_error": "a job wants to end its process",
    "interrupted": "an interrupted job's policy is asked",
    "job_rescheduled": "a job is put off",
    "job_retried": "a job is called again at once",
    "twin_is_alive": "a twin is left alone",
    "former_self_recovered": "a node recovers what it held in its former life",
    "sibling_is_dead": "a sibling is found dead",
    "was_deactivated": "a node finds itself declared dead",
    "poll_repeated": "a poll is repeated",
    "still_running": "a job does not end within the grace time",
    "deactivation_failed": "a node cannot say goodbye",
    "group_broken_up": "a group of jobs is broken up",
    "dispatcher_deactivated": "a node stops cleanly",
}
"""Reports of zasync that count as situations."""

POINTS_THAT_COUNT = {
    "recovery.handed_back": "a job of a dead node is handed back",
    "callbacks.chosen": "a callback is run",
    "group.settled": "a group of jobs is committed",
}
"""Fail points that count as situations."""

SITUATIONS: tuple[str, ...] = (
    *EVENTS.values(),
    *POINTS_THAT_COUNT.values(),
    # the storage and the network
    "a commit in doubt was committed",
    "a commit in doubt was not committed",
    "a commit lands after its sender gave up",
    "a commit waits for the commit lock",
    "a read that is no longer true stops a commit",
    "conflicts are resolved",
    "commit error: broken",
    "commit error: conflict",
    "commit error: locked",
    "a load is cut off",
    "a black hole ends, and calls go on",
    "all links are stopped in turn, and restored in another",
    "the storage is packed",
    # nodes
    "a node cannot even open its database",
    "a claimed job is given back as if nobody had claimed it",
    "a node dies in a commit",
    "a node is started: again",
    "a node is started: elsewhere",
    "a node is started: twin",
    "a holder of a full quota dies",
    "a clock jumps",
    "a record of a dispatcher is pruned",
    "an agent is removed",
    "an agent is resized",
    # applications
    "a client dies in its transaction",
    "a callback is added to a job in active-status",
    "a callback is added to a job in completed-status",
    "a callback is added to a job in pending-status",
    "a quota is removed",
    "a quota is resized",
    "a waiting job is taken out",
    "a waiting job is failed by hand",
    "a waiting job is given other quotas",
    "a Deferred fires",
)
