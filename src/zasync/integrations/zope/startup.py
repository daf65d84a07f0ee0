# SPDX-License-Identifier: ZPL-2.1
"""What happens when Zope starts: queues, plugins, and a dispatcher where zope.conf asks for one.

These are event handlers, registered by configure.zcml.  Scripts that open Zope fire the same
events as a web server, which is why nothing performs jobs here unless it is asked for.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zope.component
import Zope2
from App.config import getConfiguration
from zope.processlifetime import IDatabaseOpenedWithRoot, IProcessStarting

from zasync import dispatcher, instanceuuid, plugins
from zasync.agent import Agent
from zasync.dispatcher.slots import free_slot
from zasync.foundation import clock
from zasync.instanceuuid import InstanceUUID
from zasync.integrations.zope import execution
from zasync.integrations.zope.faults import SettingsError
from zasync.integrations.zope.job import ZopeJob
from zasync.integrations.zope.settings import DEFAULT_SIZE, Settings, find_settings
from zasync.interfaces import IUUID, DatabaseOpened, IDispatcherActivated
from zasync.subscribers import QueueInstaller, ThreadedDispatcherInstaller, stop_reactor

AGENT = "main"
_CONSOLE = "Zope2.utilities.zconsole"  # which runs scripts, and nothing else imports
_SLOTS = "zasync"  # directory for the UUIDs of the processes of an instance, in its `var`

log = logging.getLogger("zasync.zope")

_state = {"hosted": False}


@contextlib.contextmanager
def hosted() -> Iterator[None]:
    """As long as the block somebody else has a dispatcher for this process: a worker."""
    _state["hosted"] = True
    try:
        yield
    finally:
        _state["hosted"] = False


@zope.component.adapter(IDatabaseOpenedWithRoot)  # type: ignore[untyped-decorator]
def database_opened(event: Any) -> None:
    """Install the queues and register the plugins that zope.conf names.

    SettingsError, and Zope does not start, if that cannot be.
    """
    settings = find_settings()
    _check_database(event.database, settings)
    register_plugins(settings)
    if event.database.storage.isReadOnly():
        log.warning("the database is read-only, so that no queue is installed in it")
        return
    QueueInstaller(settings.queues, db_name=settings.database)(event)


def _check_database(db: Any, settings: Settings) -> None:
    if settings.database is not None and settings.database not in db.databases:
        raise SettingsError(
            f"zope.conf: the queues are to lie in database {settings.database!r}, and there are"
            f" the <zodb_db> sections {', '.join(map(repr, sorted(db.databases)))} only"
        )


def register_plugins(settings: Settings) -> None:
    """Register the plugins of the section; zope-aware ones run as ZopeJobs."""
    plugins.register(execution.PLUGIN)
    plugins.provide_zope_jobs(ZopeJob)
    for options in settings.plugins:
        plugins.register_from_config(options)


@zope.component.adapter(IProcessStarting)  # type: ignore[untyped-decorator]
def process_starting(event: Any) -> None:
    """Perform jobs in this process, if zope.conf says so, unless it is a worker's or a script's."""
    settings = find_settings()
    if settings.dispatcher and not _state["hosted"] and _CONSOLE not in sys.modules:
        start_dispatcher(Zope2.DB, settings)


def start_dispatcher(db: Any, settings: Settings) -> Any:
    """Start a dispatcher in a thread of its own; answers it.

    It leaves the signals to the web server.  Where that dies of SIGTERM at once, its jobs are
    recovered as after any sudden death; where the interpreter ends in good order they are drained.
    """
    warn_of_small_pool(db, settings)
    uuid = process_uuid(Path(getConfiguration().clienthome) / _SLOTS)
    zope.component.provideUtility(uuid, IUUID)
    zope.component.provideHandler(MainAgent(uuid, settings.size))
    installer = ThreadedDispatcherInstaller(
        poll_interval=settings.poll_interval, uuid=uuid, grace=settings.grace, signals=False
    )
    installer(DatabaseOpened(db))
    running = dispatcher.get(uuid)
    _stop_before_the_end(running)
    log.info("this process performs jobs, as dispatcher %s", uuid)
    return running


def _stop_before_the_end(running: Any) -> None:
    """Have it stopped before the web server, which is stopped by Ctrl-C, closes the databases."""

    def closing(close: Any) -> Any:
        def stop_and_close() -> None:
            stop_dispatcher(running)
            close()

        return stop_and_close

    for db in running.db.databases.values():
        db.close = closing(db.close)
    atexit.register(stop_dispatcher, running)


def stop_dispatcher(running: Any) -> None:
    """Let running jobs end within the grace time, hand back the rest, and stop."""
    if running.activated:
        running.deactivate(running.grace)
    running.reactor.callFromThread(stop_reactor, running.reactor)


def process_uuid(directory: Path) -> InstanceUUID:
    """A UUID that no other process of the instance has now, and that a later one takes over."""
    if any(map(os.environ.get, instanceuuid.VARIABLES)):
        return instanceuuid.get()
    try:
        path, lock = free_slot(directory)
    except OSError as error:
        log.warning(
            "no UUID of this process can be kept in %s (%s): jobs that it leaves when it is killed"
            " wait until it is found dead",
            directory,
            error.strerror,
        )
        return InstanceUUID(int=clock.current().uuid4().int)
    _locks.append(lock)
    return instanceuuid.get(str(path))


_locks: list[Any] = []  # held as long as the process lives


class MainAgent:
    """Gives the dispatcher `uuid` its agent in each queue; `size` None leaves one as it is."""

    def __init__(self, uuid: Any, size: int | None) -> None:
        zope.component.adapter(IDispatcherActivated)(self)
        self.uuid = uuid
        self.size = size

    def __call__(self, event: Any) -> None:
        record = event.object
        if self.uuid != record.UUID:
            return
        if AGENT not in record:
            record[AGENT] = Agent(size=self.size or DEFAULT_SIZE)
        elif self.size is not None:
            record[AGENT].size = self.size


def warn_of_small_pool(db: Any, settings: Settings) -> bool:
    """Say so if the web server alone may use more connections than `pool-size` expects.

    What the dispatcher needs it adds by itself as long as it runs.
    """
    small: bool = db.getPoolSize() < settings.web_threads
    if small:
        log.warning(
            "pool-size of <zodb_db %s> is %d, but the %d threads of the web server use one"
            " connection each (and the dispatcher adds two for each of its threads by itself): set"
            " pool-size to at least %d, or web-threads of the <zasync> section to what is true",
            db.database_name,
            db.getPoolSize(),
            settings.web_threads,
            settings.web_threads,
        )
    return small
