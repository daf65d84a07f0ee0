# SPDX-License-Identifier: ZPL-2.1
"""`zasync parked`: the jobs that a person is to see to, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from zasync.cli.errors import CommandError, first_line
from zasync.cli.opening import connected, db_option, find_queue, look, opened
from zasync.cli.status import console
from zasync.foundation import attempts
from zasync.foundation.errors import why_unreadable
from zasync.interfaces import KEY
from zasync.storage import is_file_storage
from zasync.storage.uri import with_default

ALL = "all"

Document = dict[str, Any]


@click.command()
@db_option
@click.option("--queue", "queue_name", metavar="NAME", help="This queue only; by default all.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--put-back", metavar="OID", help="Put this one, or 'all', back to be run again.")
@click.option("--discard", metavar="OID", type=int, help="Forget this one.")
def parked(
    uri: str, queue_name: str | None, as_json: bool, put_back: str | None, discard: int | None
) -> None:
    """Show the parked jobs, newest first, with why they are parked.

    A job is parked when the process in which it ran has died too often (its crash limit, 3 by
    default), and in Zope when its user is gone.  It has failed; what is put back is a new job with
    the same call.
    """
    if put_back is not None and discard is not None:
        raise CommandError("a job is put back or discarded, not both")
    if put_back is None and discard is None:
        _list(uri, queue_name, as_json)
        return
    with opened(uri, create=False) as db, connected(db) as connection:
        if discard is not None:
            _do(connection, queue_name, discard, lambda queue, job: queue.parked.discard(job))
            click.echo(f"discarded job {discard}")
        elif put_back == ALL:
            click.echo(f"put back {_put_back_all(connection, queue_name)} jobs")
        else:
            oid = _integer(put_back)
            _do(connection, queue_name, oid, lambda queue, job: queue.parked.put_back(job))
            click.echo(f"put job {oid} back")


def _integer(word: str | None) -> int:
    try:
        return int(word or "")
    except ValueError:
        raise CommandError(f"--put-back takes the oid of a parked job, or 'all': {word}") from None


# Acting


def _do(connection: Any, queue_name: str | None, oid: int, act: Any) -> None:
    """`act(queue, job)` for the parked job `oid`, and commit."""

    def change() -> None:
        for queue in queues(connection.root(), queue_name):
            for job in queue.parked:
                if _integer_oid(job) == oid:
                    _check_readable(job)
                    act(queue, job)
                    return
        raise CommandError(f"no job {oid} is parked")

    attempts.committed(change, transaction_manager=connection.transaction_manager, tries=20)


def _check_readable(job: Any) -> None:
    error = why_unreadable(job)
    if error is not None:
        raise CommandError(f"the job cannot be read here: {error}") from error


def _put_back_all(connection: Any, queue_name: str | None) -> int:
    """Put all back that can be read here, in several transactions; answers how many."""

    def some() -> int:
        return sum(queue.parked.put_back_all() for queue in queues(connection.root(), queue_name))

    total = 0
    while count := attempts.committed(
        some, transaction_manager=connection.transaction_manager, tries=20
    ):
        total += count
    return total


def queues(root: Any, name: str | None) -> list[Any]:
    """The queue `name`, or all."""
    return list((root.get(KEY) or {}).values()) if name is None else [find_queue(root, name)]


def _integer_oid(job: Any) -> int:
    return int.from_bytes(job._p_oid, "big")


# Showing


def _list(uri: str, queue_name: str | None, as_json: bool) -> None:
    # Opened for reading, a FileStorage takes no lock.
    source = with_default(uri, "read_only", 1) if is_file_storage(uri) else uri
    with opened(source, create=False, writable=False) as db, connected(db) as connection:
        found = list(survey(queues(look(connection), queue_name)))
    if as_json:
        click.echo(json.dumps({"parked": found}, indent=2))
    else:
        show(found, console())


def survey(of_queues: list[Any]) -> Iterator[Document]:
    """The parked jobs of the queues: times as ISO 8601 in UTC."""
    for queue in of_queues:
        for job in queue.parked:
            document = {"oid": _integer_oid(job), "queue": queue.name}
            error = why_unreadable(job)
            if error is not None:
                yield document | {"call": None, "unreadable": str(error), "crashes": []}
                continue
            yield document | {
                "call": repr(job),
                "parked": job.active_end.isoformat(),
                "why": first_line(job.result.value),
                "crashes": [crash | {"at": crash["at"].isoformat()} for crash in job.crashes],
            }


def show(found: list[Document], console: Console) -> None:
    """Print each job and its deaths."""
    if not found:
        console.print("No job is parked.")
    for job in found:
        what = job["call"] or f"cannot be read here: {job['unreadable']}"
        console.print(Text(f"{job['oid']} in queue {job['queue']!r}: {what}"), soft_wrap=True)
        if not job["crashes"] and "why" in job:
            console.print(Text(f"    {job['why']}"), soft_wrap=True)
        for crash in job["crashes"]:
            console.print(Text(f"    {_in_words(crash)}"), soft_wrap=True)


def _in_words(crash: Document) -> str:
    progress = "" if crash["progress"] is None else f", at {crash['progress']!r}"
    others = f", with {crash['held'] - 1} other jobs" if crash["held"] > 1 else ""
    return f"{crash['at']}: pid {crash['pid']} on {crash['host']}{progress}{others}"
