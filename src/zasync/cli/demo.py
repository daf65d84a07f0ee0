# SPDX-License-Identifier: ZPL-2.1
"""`zasync demo`: real work on a fresh database, by one command.

The application itself is `zasync.demo`; this module puts its jobs, has them performed, here or by
worker processes, and shows how it goes.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from zasync.cli import demo_report
from zasync.cli.children import Children
from zasync.cli.demo_place import Place, begin, continued, fresh_place
from zasync.cli.errors import CommandError
from zasync.cli.identity import state_in
from zasync.cli.opening import connected, look, opened
from zasync.cli.progress import progress
from zasync.cli.running import dispatching
from zasync.cli.sharing import Shared
from zasync.cli.signals import Requests, stop_requests
from zasync.demo import corpus, jobs
from zasync.demo.report import Latency, make_report
from zasync.foundation import clock
from zasync.interfaces import COMPLETED, KEY
from zasync.job import Job

SIZE = 4  # jobs at once in each process
POLL_INTERVAL = 1.0
GRACE = 15.0
PROBES = 20  # jobs that are put one by one, to see how soon an idle dispatcher begins
LOOK_EVERY = 0.1  # seconds
PROBE_SECONDS = 10.0  # at most, for one of them
INTERRUPTED = 130


@dataclasses.dataclass(frozen=True)
class Session:
    """What this command has seen itself: how many jobs in how many seconds; idle latency."""

    jobs: int
    seconds: float
    idle: Latency | None


@click.command()
@click.option(
    "--path",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Index the files of this tree, not those of Python's standard library.",
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the database goes; by default a new ./zasync-demo.",
)
@click.option("--resume", is_flag=True, help="Finish what was interrupted.")
@click.option("--processes", type=click.IntRange(1), default=1, metavar="N", help="Work in N.")
@click.option("--files", type=click.IntRange(1), metavar="N", help="Index N files at most.")
@click.pass_obj
def demo(
    obj: dict[str, bool],
    path: Path | None,
    directory: Path | None,
    resume: bool,
    processes: int,
    files: int | None,
) -> None:
    """Build a full-text index over real files, in jobs, and report how it went.

    By default over some hundred files of Python's standard library, in this process; with
    --processes N in N worker processes over a ZEO server that is started for them.  One file is
    broken on purpose, and one job conflicts on purpose.  After Ctrl-C, --resume finishes the rest.
    """
    console = Console(highlight=False, soft_wrap=True)
    if resume and (path is not None or files is not None):
        raise CommandError("--resume goes on with the files of before: give no --path or --files")
    place = continued(directory) if resume else fresh_place(directory)
    console.print(f"The database of this demo is {place.data}", markup=False)
    _log_to(place.log, obj["debug"])
    if not resume:
        _begin(place, path, files, console)
    with (
        stop_requests() as requests,
        Shared(place.uri, processes) as shared,
        opened(shared.uri) as db,
    ):
        session = _perform(db, shared, place, processes, requests, console)
        if session is not None:
            with connected(db) as connection:
                _tell(connection, session, place, console)
            return
    console.print("Interrupted.  What was done is kept, and the rest waits.")
    again = f"{demo_report.command_name()} demo --resume --dir {place.directory}"
    console.print(f"Finish it:  {again}", markup=False)
    raise click.exceptions.Exit(INTERRUPTED)


def _begin(place: Place, path: Path | None, files: int | None, console: Console) -> None:
    """Choose the files, and put the jobs that index them."""
    if path is None:
        paths = corpus.library_files(files)
    else:
        paths = corpus.tree_files(path, files, place.directory)
    if not paths:
        raise CommandError(f"there are no files to index in {path or 'the standard library'}")
    begin(place, paths)
    console.print(f"Indexing {len(paths)} files, and one that is broken on purpose.")


def _log_to(path: Path, debug: bool) -> None:
    """The screen is for the progress; the log, with the traceback of each failure, is a file."""
    form = "%(asctime)s %(levelname)s %(name)s %(message)s"
    level = logging.DEBUG if debug else logging.WARNING
    logging.basicConfig(filename=path, level=level, format=form, encoding="utf-8", force=True)
    logging.getLogger("zasync.events").setLevel(logging.INFO)


def _tell(connection: Any, session: Session, place: Place, console: Console) -> None:
    root = look(connection)
    report = make_report(root[jobs.ROOT], root[KEY][""])
    demo_report.show(report, session.jobs, session.seconds, session.idle, console)
    demo_report.show_next(place.uri, report.top, console)


# Having it done


def _perform(
    db: Any, shared: Shared, place: Place, processes: int, requests: Requests, console: Console
) -> Session | None:
    """Work until all is done; None if that was interrupted."""
    with connected(db) as connection:
        before, started = _count(connection)[0], clock.monotonic()
        with state_in(place.workers), _workers(db, shared, place, processes, requests) as check:
            if not _watch(connection, requests, console, check):
                return None
            seconds = clock.monotonic() - started
            done = _count(connection)[0] - before
            return Session(done, seconds, _probe(connection, check))


@contextmanager
def _workers(
    db: Any, shared: Shared, place: Place, processes: int, requests: Requests
) -> Iterator[Callable[[], None]]:
    """Have the queue worked; yields what keeps it so, to be called often."""
    if processes == 1:
        with dispatching(
            db, shared.uri, requests, size=SIZE, poll_interval=POLL_INTERVAL, grace=GRACE
        ):
            yield lambda: None
        return
    options = ["--db", shared.uri, "--size", str(SIZE), "--poll-interval", str(POLL_INTERVAL)]
    with Children(
        processes,
        options,
        requests=requests,
        source=place.uri,
        grace=GRACE,
        logs=place.directory,
    ) as children:

        def check() -> None:
            shared.check()
            children.check()

        yield check


def _watch(
    connection: Any, requests: Requests, console: Console, check: Callable[[], None]
) -> bool:
    """Show how far it has come until all is done (True) or a request to stop comes."""
    total = look(connection)[jobs.ROOT].expected
    with progress(console, total) as display:
        while True:
            done, running = _count(connection)
            if connection.root()[jobs.ROOT].run.status == COMPLETED:
                display.show(total, 0)
                return True
            display.show(done, running)
            if requests.wait(LOOK_EVERY) is not None:
                return False
            check()


def _count(connection: Any) -> tuple[int, int]:
    """How many jobs have been completed, and how many run, as of now."""
    queue = look(connection)[KEY][""]
    agents = [agent for record in queue.dispatchers.values() for agent in record.values()]
    return sum(len(agent.completed) for agent in agents), sum(agent.running for agent in agents)


def _probe(connection: Any, check: Callable[[], None]) -> Latency | None:
    """How soon jobs are begun that are put while nothing else is to be done."""
    probes = [Job(jobs.nothing) for _ in range(PROBES)]
    for probe in probes:
        look(connection)[KEY][""].put(probe)
        connection.transaction_manager.commit()
        deadline = clock.monotonic() + PROBE_SECONDS
        while probe.status != COMPLETED:
            if clock.monotonic() > deadline:
                return None
            check()
            clock.wait(None, 0.002)
            look(connection)
    return Latency.of(probes)
