# SPDX-License-Identifier: ZPL-2.1
"""`zasync status`: what lies in the queues and who works them.

It reads kept counters, and of jobs those only that agents hold, so it costs the same whatever
waits.  It writes nothing.  What it finds is one plain document (`survey`); the tables and the JSON
are two ways to print that.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from zasync.cli.opening import connected, db_option, look, opened
from zasync.foundation import clock
from zasync.foundation.errors import why_unreadable
from zasync.interfaces import COMPLETED, KEY, IAgent
from zasync.storage import is_file_storage
from zasync.storage.uri import redacted, with_default

Document = dict[str, Any]


@click.command()
@db_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def status(uri: str, as_json: bool) -> None:
    """Show queues, jobs by state, quotas, and dispatchers with the age of their last ping.

    A FileStorage is read even while another process has it open.  The counts of completed jobs
    are those of about a week.
    """
    # Opened for reading, a FileStorage takes no lock.
    source = with_default(uri, "read_only", 1) if is_file_storage(uri) else uri
    with opened(source, create=False, writable=False) as db, connected(db) as connection:
        found = {"database": redacted(uri), **survey(look(connection))}
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        show(found, console())


# What there is


def survey(root: Any) -> Document:
    """The state of all queues: times as ISO 8601 in UTC, durations in seconds."""
    queues = [_queue(name, queue) for name, queue in (root.get(KEY) or {}).items()]
    return {
        "at": clock.now().isoformat(),
        "queues": queues,
        "problems": [problem for queue in queues for problem in _problems(queue)],
    }


def _queue(name: str, queue: Any) -> Document:
    dispatchers = [_dispatcher(record) for record in queue.dispatchers.values()]
    agents = [agent for dispatcher in dispatchers for agent in dispatcher["agents"]]
    due = queue.next_due()
    return {
        "name": name,
        "waiting": len(queue) + sum(agent["ahead"] for agent in agents),
        "next_due": _iso(due),
        "active": sum(agent["held"] for agent in agents),
        "completed": sum(agent["succeeded"] + agent["failed"] for agent in agents),
        "failed": sum(agent["failed"] for agent in agents),
        "parked": len(queue.parked),
        "quotas": [
            {"name": quota_name, "size": quota.size, "taken": len(quota)}
            for quota_name, quota in queue.quotas.items()
        ],
        "dispatchers": dispatchers,
    }


def _dispatcher(record: Any) -> Document:
    last = record.last_ping.value
    state = "stopped"
    if record.activated:
        state = "dead" if record.dead else "running"
    return {
        "uuid": str(record.UUID),
        "state": state,
        "activated": _iso(record.activated),
        "last_ping": _iso(last),
        # Never negative: the clock of another machine may be ahead.
        "ping_age": None if last is None else max(0.0, (clock.now() - last).total_seconds()),
        "overdue": [oid for oid, *_ in record.last_ping.overdue],
        "agents": [
            _agent(name, agent) for name, agent in record.items() if IAgent.providedBy(agent)
        ],
    }


def _agent(name: str, agent: Any) -> Document:
    """What its jobs do, by their own records: a poll may be yet to come that tidies up."""
    may_have_begun = agent.may_have_begun()
    readable = [job for job in agent if why_unreadable(job) is None]
    ended = {job._p_oid for job in readable if job.status == COMPLETED}
    ahead = {job._p_oid for job in readable if not may_have_begun(job)}
    with_place = {job._p_oid for _place, job in agent.held()}
    failed = sum(job.failed for job in readable if job._p_oid in ended)
    return {
        "name": name,
        "size": agent.size,
        "running": min(len(with_place - ended - ahead), agent.size),
        "held": len(agent) - len(ended) - len(ahead),  # with those that wait for others
        "ahead": len(ahead),  # claimed, and waiting for a thread
        "succeeded": agent.completed.succeeded + len(ended) - failed,
        "failed": agent.completed.failed + failed,
    }


def _problems(queue: Document) -> list[str]:
    """Why nothing moves, in sentences."""
    name = queue["name"]
    running = [each for each in queue["dispatchers"] if each["state"] == "running"]
    found = []
    if queue["waiting"] and not running:
        found.append(f"jobs wait in queue {name!r}, and no dispatcher works it")
    elif queue["waiting"] and not any(
        agent["size"] for each in running for agent in each["agents"]
    ):
        found.append(f"jobs wait in queue {name!r}, and no agent has a place for any")
    if queue["parked"]:
        found.append(
            f"{queue['parked']} jobs of queue {name!r} are parked, for a person to see to:"
            " zasync parked"
        )
    for each in queue["dispatchers"]:
        if each["overdue"] and each["state"] == "running":
            found.append(
                f"{len(each['overdue'])} jobs of dispatcher {each['uuid']} of queue {name!r} run"
                " for too long; its log says where they are"
            )
        if each["state"] == "dead":
            found.append(
                f"dispatcher {each['uuid']} of queue {name!r} is dead;"
                " its jobs are recovered when it, or another, works the queue"
            )
    return found


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


# How it is shown


def console() -> Console:
    """Where tables are printed: wide enough for a UUID where there is no terminal to fit."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=120)


def show(found: Document, console: Console) -> None:
    """Print the document as tables."""
    console.print(f"Database {found['database']}", markup=False, soft_wrap=True)
    if not found["queues"]:
        console.print("It has no queues: nothing was put, and no worker has worked here.")
        return
    console.print(_table_of_queues(found["queues"]))
    if any(queue["quotas"] for queue in found["queues"]):
        console.print(_table_of_quotas(found["queues"]))
    console.print(_table_of_dispatchers(found["queues"]))
    for problem in found["problems"]:
        console.print(f"! {problem}", markup=False, soft_wrap=True)


def _table(title: str, *texts: str, numbers: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in texts:
        table.add_column(heading, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def _add(table: Table, queue: Document, *cells: str) -> None:
    """Add a row for `queue`; a name is no markup."""
    table.add_row(*map(Text, (repr(queue["name"]), *cells)))


def _table_of_queues(queues: list[Document]) -> Table:
    table = _table("Queues", "queue", numbers=("waiting", "active", "completed", "failed"))
    for queue in queues:
        counts = (str(queue[key]) for key in ("waiting", "active", "completed", "failed"))
        _add(table, queue, *counts)
    return table


def _table_of_quotas(queues: list[Document]) -> Table:
    table = _table("Quotas", "queue", "quota", numbers=("size", "taken"))
    for queue in queues:
        for quota in queue["quotas"]:
            size, taken = str(quota["size"]), str(quota["taken"])
            _add(table, queue, quota["name"], size, taken)
    return table


def _table_of_dispatchers(queues: list[Document]) -> Table:
    table = _table(
        "Dispatchers",
        "queue",
        "dispatcher",
        "state",
        "agents (running/size)",
        numbers=("last ping",),
    )
    for queue in queues:
        for each in queue["dispatchers"]:
            age = each["ping_age"]
            agents = (f"{a['name']} {a['running']}/{a['size']}" for a in each["agents"])
            _add(
                table,
                queue,
                each["uuid"],
                each["state"],
                ", ".join(agents) or "none",
                "never" if age is None else f"{age:.0f} s ago",
            )
    return table
