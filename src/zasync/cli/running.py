# SPDX-License-Identifier: ZPL-2.1
"""A dispatcher of this process: its reactor in a thread of its own, its agents, its end.

Twisted's installed reactor drives it, so that jobs that import that one find it running.  The
main thread is left to signals and to draining: were it the reactor's, the Deferreds and polls
that running jobs need could not go on while it waits for them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import click
import zope.component

from zasync import configure
from zasync.agent import Agent
from zasync.cli.errors import ExitCode
from zasync.cli.identity import worker_uuid
from zasync.cli.signals import Requests
from zasync.dispatcher import Dispatcher, pop
from zasync.dispatcher.dispatcher import AroundJob
from zasync.interfaces import IUUID, IDispatcherActivated

Intervals = tuple[float, float]

AGENT = "main"
DEFAULT_SIZE = 3
END_OF_REACTOR = "end of the reactor"  # a request to stop that the reactor makes
REACTOR_STOP = 5.0  # seconds for the reactor's thread to end
_LEFT_FOR_RECOVERY = (
    "the storage did not answer, so that the jobs of this worker could not be handed back; another"
    " worker, or this one when it is started again, recovers them"
)


class Running:
    """A dispatcher that works until it is drained."""

    def __init__(self, dispatcher: Any, requests: Requests) -> None:
        self.dispatcher = dispatcher
        self.broken: BaseException | None = None
        self.is_last = False
        """Nothing is to follow: where jobs run on that were handed back, the process ends at
        once, so that they do not run twice at the same time."""
        self._requests = requests
        self._thread = threading.Thread(target=self._run, name="zasync reactor", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self.dispatcher.activate()
        self._thread.start()

    def _run(self) -> None:
        try:
            self.dispatcher.reactor.run(installSignalHandlers=False)
        except BaseException as error:
            self.broken = error
        finally:
            self._requests.post(END_OF_REACTOR)

    def drain(self, grace: float) -> None:
        """Let running jobs end within `grace` seconds, hand back the rest, and stop.

        A further request to stop ends the process at once; what is running is recovered then
        like after a crash.
        """
        draining = threading.Thread(target=self._stop, args=(grace,), daemon=True)
        draining.start()
        while draining.is_alive():
            if self._requests.wait(0.05) not in (None, END_OF_REACTOR):
                os._exit(ExitCode.CUT_SHORT)
        if self.dispatcher.handed_back is False:  # closing the database might hang as well
            click.echo(f"zasync: {_LEFT_FOR_RECOVERY}", err=True)
            os._exit(ExitCode.CUT_SHORT)

    def _stop(self, grace: float) -> None:
        if self.dispatcher.activated:
            self.dispatcher.deactivate(grace)
        if self.dispatcher.handed_back is False:  # the reactor's thread may hang in a poll
            return
        if self.dispatcher.outlasted and self.is_last:
            os._exit(ExitCode.CLEAN)
        if self._thread.is_alive():
            reactor = self.dispatcher.reactor
            reactor.callFromThread(reactor.stop)
            self._thread.join(REACTOR_STOP)


@contextmanager
def dispatching(
    db: Any,
    uri: str,
    requests: Requests,
    *,
    queue_names: Iterable[str] | None = None,
    size: int | None = None,
    batch: int | None = None,
    poll_interval: float = 5.0,
    grace: float,
    intervals: Intervals | None = None,
    around_job: AroundJob | None = None,
) -> Iterator[Running]:
    """Work the queues of `db`, whose URI says under which UUID; drained at the end of the block.

    Each of the queues has the agent 'main' then.  `size` and `batch` None leave those of one that
    is there as they are; `intervals` are seconds between two pings, and without a ping until
    death, with None likewise.
    """
    with worker_uuid(uri) as uuid, _joining(uuid, size, batch, intervals):
        zope.component.provideUtility(uuid, IUUID)
        configure.base()
        configure.provide_default_queue()
        dispatcher = Dispatcher(
            db,
            poll_interval=poll_interval,
            uuid=uuid,
            queue_names=queue_names,
            grace=grace,
            around_job=around_job,
        )
        running = Running(dispatcher, requests)
        running.start()
        try:
            yield running
        finally:
            running.drain(grace)
            pop(dispatcher.UUID)


@contextmanager
def _joining(
    uuid: Any, size: int | None, batch: int | None, intervals: Intervals | None
) -> Iterator[None]:
    """Give the dispatcher `uuid` its agent and its intervals in each queue that it joins."""

    @zope.component.adapter(IDispatcherActivated)  # type: ignore[untyped-decorator]
    def joined(event: Any) -> None:
        record = event.object
        if uuid != record.UUID:
            return
        if AGENT not in record:
            record[AGENT] = Agent(size=DEFAULT_SIZE if size is None else size)
        elif size is not None:
            record[AGENT].size = size
        if batch is not None:
            record[AGENT].batch = batch
        if intervals is not None:
            ping, death = intervals
            record.set_intervals(timedelta(seconds=ping), timedelta(seconds=death))

    zope.component.provideHandler(joined)
    try:
        yield
    finally:
        zope.component.getGlobalSiteManager().unregisterHandler(joined)
