# SPDX-License-Identifier: ZPL-2.1
"""`zasync worker`: a dispatcher in the foreground, or several processes with one each."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from zasync.cli.child import FROZEN_AFTER
from zasync.cli.children import Children
from zasync.cli.errors import ExitCode, IdentityTaken, WorkerBroken
from zasync.cli.hosting import Bare, Defaults, Host, host_of, pyramid_option, zope_option
from zasync.cli.opening import database_option, opened, prepare_queues
from zasync.cli.running import END_OF_REACTOR, Intervals, dispatching
from zasync.cli.sharing import Shared
from zasync.cli.signals import Requests, stop_requests
from zasync.cli.supervision import Supervisors, supervised
from zasync.dispatcher.dispatcher import GRACE
from zasync.queue.registration import PING_DEATH_INTERVAL, PING_INTERVAL

POLL_INTERVAL = 5.0
_LOG_FORMAT = "%(asctime)s %(levelname)s %(process)d %(message)s"

log = logging.getLogger("zasync.events")


@click.command()
@database_option(required=False)
@zope_option
@pyramid_option
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
    metavar="S",
    help="Look for work at least every S seconds (5).",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
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
    uri: str | None,
    zope_conf: str | None,
    pyramid_ini: str | None,
    queues: tuple[str, ...],
    size: int | None,
    batch: int | None,
    processes: int,
    poll_interval: float | None,
    grace: float | None,
    frozen_after: float,
    ping_interval: float | None,
    death_interval: float | None,
    until_input_ends: bool,
    heartbeat_to: int | None,
) -> None:
    """Perform the jobs of a database's, or an application's, queues until told to stop.

    Once told to (Ctrl-C, SIGTERM), no new job is begun, running ones get the grace time, and the
    rest is handed back; being told a second time ends it at once.  Each worker keeps its UUID in a
    file of its own, see ZASYNC_UUID and ZASYNC_STATE.  A FileStorage is served to several processes
    through ZEO.  Of several processes, one that dies is replaced.
    """
    _log_to_stderr(obj["debug"])
    host = host_of(uri, zope_conf, pyramid_ini)
    intervals = _intervals(ping_interval, death_interval)
    wishes = Wishes(queues, size, batch, poll_interval, grace, intervals)
    with stop_requests() as requests, supervised(heartbeat_to) as supervisors:
        if until_input_ends:
            requests.post_at_end_of_input()
        if processes == 1:
            _work(host, requests, supervisors, wishes)
            return
        with (
            _shared(host, processes, queues) as (options, check),
            Children(
                processes,
                [*options, *wishes.options()],
                requests=requests,
                source=host.source,
                grace=wishes.over(host.defaults()).grace,
                frozen_after=frozen_after,
                debug=obj["debug"],
            ) as children,
        ):
            _supervise(children, check, requests, supervisors)
        if not children.stopped_cleanly:
            raise click.exceptions.Exit(ExitCode.CUT_SHORT)


def _supervise(
    children: Children,
    check: Callable[[], None],
    requests: Requests,
    supervisors: Supervisors,
) -> None:
    """Keep the children working until we are told to stop."""
    ready = False
    while (reason := requests.wait()) is None:
        check()
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


@dataclass(frozen=True)
class Wishes:
    """What the command line says about the work; None: nothing."""

    queues: tuple[str, ...]
    size: int | None
    batch: int | None
    poll_interval: float | None
    grace: float | None
    intervals: Intervals | None

    def over(self, defaults: Defaults) -> Work:
        """What is to be done, where the application's own configuration says `defaults`."""
        return Work(
            size=defaults.size if self.size is None else self.size,
            poll_interval=_first(self.poll_interval, defaults.poll_interval, POLL_INTERVAL),
            grace=_first(self.grace, defaults.grace, GRACE),
        )

    def options(self) -> list[str]:
        """How a child is told what we were told; but the grace time."""
        options = [word for name in self.queues for word in ("--queue", name)]
        if self.size is not None:
            options += ["--size", str(self.size)]
        if self.batch is not None:
            options += ["--batch", str(self.batch)]
        if self.intervals is not None:
            ping, death = map(str, self.intervals)
            options += ["--ping-interval", ping, "--death-interval", death]
        if self.poll_interval is not None:
            options += ["--poll-interval", str(self.poll_interval)]
        return options


@dataclass(frozen=True)
class Work:
    """How a worker works; `size` None leaves the size of an agent that is there as it is."""

    size: int | None
    poll_interval: float
    grace: float


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


@contextmanager
def _shared(
    host: Host, processes: int, queues: tuple[str, ...]
) -> Iterator[tuple[list[str], Callable[[], None]]]:
    """How several processes are told what to open, and what is to be called every second."""
    host.check_shareable()
    if not isinstance(host, Bare):
        yield host.options, lambda: None
        return
    with Shared(host.source, processes) as shared:
        with opened(shared.uri) as db:
            prepare_queues(db, queues)
        yield ["--db", shared.uri], shared.check


def _work(host: Host, requests: Requests, supervisors: Supervisors, wishes: Wishes) -> None:
    with host.around():
        db = host.open()
        prepare_queues(db, wishes.queues)
        work = wishes.over(host.defaults())
        with dispatching(
            db,
            host.source,
            requests,
            queue_names=wishes.queues or None,
            size=work.size,
            batch=wishes.batch,
            poll_interval=work.poll_interval,
            grace=work.grace,
            intervals=wishes.intervals,
            around_job=host.around_job,
        ) as running:
            supervisors.ready()
            while (reason := requests.wait()) is None:
                _check_for_twins(running.dispatcher)
            if reason == END_OF_REACTOR:
                raise WorkerBroken(f"the reactor has ended: {running.broken or 'a job stopped it'}")
            supervisors.stopping()
            running.is_last = True
            log.info("%s: no new jobs are begun; running ones have %g s to end", reason, work.grace)


def _check_for_twins(dispatcher: Any) -> None:
    if dispatcher.twins:
        names = ", ".join(map(repr, sorted(dispatcher.twins)))
        raise IdentityTaken(
            f"another process that lives works queue {names} under our UUID {dispatcher.UUID};"
            " give this one a uuid file of its own (ZASYNC_UUID, or ZASYNC_STATE)"
        )
