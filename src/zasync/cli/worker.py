# SPDX-License-Identifier: ZPL-2.1
"""`zasync worker`: a dispatcher in the foreground, or several processes with one each."""

from __future__ import annotations

import logging
import sys
from typing import Any

import click

from zasync.cli.child import FROZEN_AFTER
from zasync.cli.children import Children
from zasync.cli.errors import ExitCode, IdentityTaken, WorkerBroken
from zasync.cli.opening import db_option, opened, prepare_queues
from zasync.cli.running import END_OF_REACTOR, Intervals, dispatching
from zasync.cli.sharing import Shared
from zasync.cli.signals import Requests, stop_requests
from zasync.cli.supervision import Supervisors, supervised
from zasync.dispatcher.dispatcher import GRACE
from zasync.queue.registration import PING_DEATH_INTERVAL, PING_INTERVAL

_LOG_FORMAT = "%(asctime)s %(levelname)s %(process)d %(message)s"

log = logging.getLogger("zasync.events")


@click.command()
@db_option
@click.option("--queue", "queues", multiple=True, metavar="NAME", help="Work this queue only.")
@click.option("--size", type=click.IntRange(0), metavar="N", help="Run N jobs at once (first: 3).")
@click.option(
    "--batch",
    type=click.IntRange(1),
    metavar="N",
    help="Commit up to N short jobs together (first: 1, each by itself).",
)
@click.option("--processes", type=click.IntRange(1), default=1, metavar="N", help="Start N of it.")
@click.option(
    "--poll-interval",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    metavar="S",
    help="Look for work at least every S seconds (5).",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=GRACE,
    metavar="S",
    help="When told to stop, let running jobs end for S seconds (30).",
)
@click.option(
    "--frozen-after",
    type=click.FloatRange(min=0),
    default=FROZEN_AFTER,
    metavar="S",
    help="Replace a process of --processes that does nothing at all for S seconds (30; 0: never).",
)
@click.option(
    "--ping-interval",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Say every S seconds that it lives (first: 15).",
)
@click.option(
    "--death-interval",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Be taken for dead after S seconds without that (first: 60).",
)
@click.option("--until-input-ends", is_flag=True, hidden=True)
@click.option("--heartbeat-to", type=int, hidden=True)
@click.pass_obj
def worker(
    obj: dict[str, bool],
    uri: str,
    queues: tuple[str, ...],
    size: int | None,
    batch: int | None,
    processes: int,
    poll_interval: float,
    grace: float,
    frozen_after: float,
    ping_interval: float | None,
    death_interval: float | None,
    until_input_ends: bool,
    heartbeat_to: int | None,
) -> None:
    """Perform the jobs of the database's queues until told to stop (Ctrl-C, SIGTERM).

    Then no new job is begun, running ones get the grace time, and the rest is handed back; being
    told a second time ends it at once.  Each worker keeps its UUID in a file of its own, see
    ZASYNC_UUID and ZASYNC_STATE.  A FileStorage is served to several processes through ZEO.
    Of several processes, one that dies is replaced.
    """
    _log_to_stderr(obj["debug"])
    intervals = _intervals(ping_interval, death_interval)
    with stop_requests() as requests, supervised(heartbeat_to) as supervisors:
        if until_input_ends:
            requests.post_at_end_of_input()
        if processes == 1:
            _work(uri, requests, supervisors, queues, size, batch, poll_interval, grace, intervals)
            return
        with Shared(uri, processes) as shared:
            with opened(shared.uri) as db:
                prepare_queues(db, queues)
            with Children(
                processes,
                ["--db", shared.uri, *_options(queues, size, batch, poll_interval, intervals)],
                requests=requests,
                source=uri,
                grace=grace,
                frozen_after=frozen_after,
                debug=obj["debug"],
            ) as children:
                _supervise(children, shared, requests, supervisors)
        if not children.stopped_cleanly:
            raise click.exceptions.Exit(ExitCode.CUT_SHORT)


def _supervise(
    children: Children, shared: Shared, requests: Requests, supervisors: Supervisors
) -> None:
    """Keep the children working until we are told to stop."""
    ready = False
    while (reason := requests.wait()) is None:
        shared.check()
        children.check()
        if children.ready and not ready:
            ready = True
            supervisors.ready()
    supervisors.stopping()
    log.info("%s: stopping the worker processes", reason)


def _log_to_stderr(debug: bool) -> None:
    if not debug:
        logging.basicConfig(
            level=logging.WARNING, format=_LOG_FORMAT, stream=sys.stderr, force=True
        )
        log.setLevel(logging.INFO)


def _intervals(ping: float | None, death: float | None) -> Intervals | None:
    """Both, in seconds, as soon as one is given."""
    if ping is None and death is None:
        return None
    ping = PING_INTERVAL.total_seconds() if ping is None else ping
    death = PING_DEATH_INTERVAL.total_seconds() if death is None else death
    if death <= ping:
        raise click.UsageError(
            f"the death interval ({death:g} s) must be longer than the ping interval ({ping:g} s)"
        )
    return ping, death


def _options(
    queues: tuple[str, ...],
    size: int | None,
    batch: int | None,
    poll_interval: float,
    intervals: Intervals | None,
) -> list[str]:
    """How a child is told what we were told."""
    options = [word for name in queues for word in ("--queue", name)]
    if size is not None:
        options += ["--size", str(size)]
    if batch is not None:
        options += ["--batch", str(batch)]
    if intervals is not None:
        ping, death = map(str, intervals)
        options += ["--ping-interval", ping, "--death-interval", death]
    return [*options, "--poll-interval", str(poll_interval)]


def _work(
    uri: str,
    requests: Requests,
    supervisors: Supervisors,
    queues: tuple[str, ...],
    size: int | None,
    batch: int | None,
    poll_interval: float,
    grace: float,
    intervals: Intervals | None,
) -> None:
    with opened(uri) as db:
        prepare_queues(db, queues)
        with dispatching(
            db,
            uri,
            requests,
            queue_names=queues or None,
            size=size,
            batch=batch,
            poll_interval=poll_interval,
            grace=grace,
            intervals=intervals,
        ) as running:
            supervisors.ready()
            while (reason := requests.wait()) is None:
                _check_for_twins(running.dispatcher)
            if reason == END_OF_REACTOR:
                raise WorkerBroken(f"the reactor has ended: {running.broken or 'a job stopped it'}")
            supervisors.stopping()
            running.is_last = True
            log.info("%s: no new jobs are begun; running ones have %g s to end", reason, grace)


def _check_for_twins(dispatcher: Any) -> None:
    if dispatcher.twins:
        names = ", ".join(map(repr, sorted(dispatcher.twins)))
        raise IdentityTaken(
            f"another process that lives works queue {names} under our UUID {dispatcher.UUID};"
            " give this one a uuid file of its own (ZASYNC_UUID, or ZASYNC_STATE)"
        )
