# SPDX-License-Identifier: ZPL-2.1
"""Installers: what to do when a database is opened, or a dispatcher is activated.

Each is an object to register as a handler (`zope.component.provideHandler`, or `<subscriber>`
in ZCML) or to call with an event, once or again.  `zasync.configure.start` puts them together.
What SIGINT and SIGTERM do to a dispatcher that has a thread of its own is here, too.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterable
from typing import Any

import zope.component
from twisted.internet.error import ReactorNotRunning
from twisted.internet.selectreactor import SelectReactor

from zasync.agent import Agent
from zasync.dispatcher import Dispatcher, registry
from zasync.dispatcher.dispatcher import GRACE
from zasync.foundation import platform
from zasync.foundation.attempts import OwnManager, committed, end
from zasync.foundation.reporting import events
from zasync.interfaces import KEY, IDatabaseOpenedEvent, IDispatcherActivated
from zasync.queue import Queue, Queues
from zasync.storage import tell_others

ENDING = 10.0  # seconds for a dispatcher to end in, beyond the grace time of its jobs


# Queues


def make_queue(connection: Any, name: str) -> Queue:
    """The factory that a QueueInstaller uses by default."""
    return Queue()


class QueueInstaller:
    """Makes, and commits, the queues that a newly opened database does not have yet.

    `queues` are their names and `factory(connection, name)` makes one.  With `db_name` the
    mapping of queues lies in that database of the multi-database, and is mounted in the root
    of the one that was opened.
    """

    def __init__(
        self,
        queues: Iterable[str] = ("",),
        factory: Callable[[Any, str], Any] = make_queue,
        db_name: str | None = None,
    ) -> None:
        zope.component.adapter(IDatabaseOpenedEvent)(self)
        self.queues = tuple(queues)
        self.factory = factory
        self.db_name = db_name

    def __call__(self, event: Any) -> None:
        manager = OwnManager()
        connection = event.database.open(transaction_manager=manager)
        try:
            installed = committed(self._install, connection, transaction_manager=manager)
        finally:
            end(manager)
            connection.close()
        tell_others(event.database)
        for name in installed or ():
            events.queue_installed(name)

    def _install(self, connection: Any) -> list[str]:
        """Make what is missing; answers the names of the new queues.  Does not commit."""
        queues = self._mapping(connection)
        missing = [name for name in self.queues if name not in queues]
        for name in missing:
            queues[name] = self.factory(connection, name)
        return missing

    def _mapping(self, connection: Any) -> Any:
        root = connection.root()
        if KEY not in root:
            root[KEY] = Queues() if self.db_name is None else self._mounted(connection)
        return root[KEY]

    def _mounted(self, connection: Any) -> Any:
        if self.db_name not in connection.db().databases:
            raise ValueError(
                f"no database {self.db_name!r} to hold the queues: the multi-database has"
                f" {sorted(connection.db().databases)}"
            )
        other = connection.get_connection(self.db_name)
        queues = other.root().get(KEY)
        if queues is None:
            queues = other.root()[KEY] = Queues()
            # Said now, since both roots refer to it: ZODB would take the first that it writes.
            other.add(queues)
        return queues


queue_installer = QueueInstaller()
multidb_queue_installer = QueueInstaller(db_name="async")


# Dispatchers


def running_dispatcher(db: Any, uuid: Any = None) -> Any:
    """The activated dispatcher of `db` with that UUID (None: of the IUUID utility), or None."""
    dispatcher = registry.get(uuid)
    return dispatcher if dispatcher and dispatcher.activated and dispatcher.db is db else None


class ThreadedDispatcherInstaller:
    """Starts a dispatcher with a reactor of its own in a thread of its own (`.thread`).

    Called in the main thread it also sees to SIGINT and SIGTERM (`signal_handlers`), unless
    `signals` is off.  A database whose dispatcher is activated already is left alone.
    `queue_names` and `grace` are those of the dispatcher.  The reactor that `reactor_factory` makes
    is run by `run(installSignalHandlers=False)` and ended by `stop()`, as Twisted's are.
    """

    def __init__(
        self,
        poll_interval: float = 5,
        reactor_factory: Callable[[], Any] = SelectReactor,
        uuid: Any = None,
        *,
        queue_names: Iterable[str] | None = None,
        grace: float = GRACE,
        signals: bool = True,
    ) -> None:
        zope.component.adapter(IDatabaseOpenedEvent)(self)
        self.poll_interval = poll_interval
        self.reactor_factory = reactor_factory
        self.uuid = uuid
        self.queue_names = queue_names
        self.grace = grace
        self.signals = signals

    def __call__(self, event: Any) -> None:
        if running_dispatcher(event.database, self.uuid) is not None:
            return
        _forget_stopped(self.uuid)
        reactor = self.reactor_factory()
        dispatcher = Dispatcher(
            event.database,
            reactor,
            self.poll_interval,
            self.uuid,
            queue_names=self.queue_names,
            grace=self.grace,
        )
        dispatcher.activate()
        # A daemon: the process may end without asking; what was running is then recovered.
        dispatcher.thread = threading.Thread(
            target=reactor.run,
            kwargs={"installSignalHandlers": False},
            name="zasync dispatcher",
            daemon=True,
        )
        if self.signals and threading.current_thread() is threading.main_thread():
            CleanEnd(dispatcher).install()
        dispatcher.thread.start()


class TwistedDispatcherInstaller:
    """Starts a dispatcher in the installed Twisted reactor, which others run and end."""

    def __init__(self, poll_interval: float = 5, uuid: Any = None) -> None:
        zope.component.adapter(IDatabaseOpenedEvent)(self)
        self.poll_interval = poll_interval
        self.uuid = uuid

    def __call__(self, event: Any) -> None:
        if running_dispatcher(event.database, self.uuid) is not None:
            return
        _forget_stopped(self.uuid)
        dispatcher = Dispatcher(event.database, None, self.poll_interval, self.uuid)
        dispatcher.activate(threaded=True)


def _forget_stopped(uuid: Any) -> None:
    """Make room for a new dispatcher in the place of one that was stopped."""
    dispatcher = registry.get(uuid)
    if dispatcher is not None and not dispatcher.activated:
        registry.pop(dispatcher.UUID)
        restore_signal_handlers(dispatcher)


threaded_dispatcher_installer = ThreadedDispatcherInstaller()
twisted_dispatcher_installer = TwistedDispatcherInstaller()


# Agents


class AgentInstaller:
    """Gives a dispatcher that is activated in a queue an agent, unless it has one of that name.

    `queue_names` None means every queue.  It does not commit: the dispatcher does.
    """

    def __init__(
        self,
        agent_name: str,
        chooser: Callable[[Any], Any] | None = None,
        size: int = 3,
        queue_names: Iterable[str] | None = None,
        filter: Callable[[Any], Any] | None = None,
    ) -> None:
        zope.component.adapter(IDispatcherActivated)(self)
        if chooser is not None and filter is not None:
            raise ValueError("an agent has a chooser or a filter, not both")
        self.agent_name = agent_name
        self.chooser = chooser
        self.size = size
        self.queue_names = None if queue_names is None else frozenset(queue_names)
        self.filter = filter

    def __call__(self, event: Any) -> None:
        record = event.object
        queue_name = record.parent.name
        if self.queue_names is not None and queue_name not in self.queue_names:
            return
        if self.agent_name not in record:
            agent = Agent(chooser=self.chooser, filter=self.filter, size=self.size)
            record[self.agent_name] = agent
            events.agent_installed(queue_name, self.agent_name)


agent_installer = AgentInstaller("main")


# Signals

signal_handlers: dict[int, dict[int, tuple[Any, Any]]] = {}
"""id of a dispatcher -> number of a signal -> our handler and the one that was before."""


def restore_signal_handlers(dispatcher: Any) -> None:
    """Put back the handlers that were there before `dispatcher` was installed, and forget them.

    A handler that another took the place of is left to that one.  Only the main thread can do
    this; elsewhere nothing happens, and our handlers, once the dispatcher has ended, do it when
    they are first called.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number, (ours, previous) in signal_handlers.pop(id(dispatcher), {}).items():
        ours.forget()
        if signal.getsignal(number) is ours:
            signal.signal(number, previous)


class CleanEnd:
    """The handler of the signals that ask for the end, while a dispatcher runs in a thread.

    It has the reactor stopped and returns, so that the main thread, which may hold what the
    dispatcher needs to finish, goes on meanwhile.  When the thread has ended the signal is sent
    once more, and then meets what was there before.  A second signal does not wait for that.
    """

    def __init__(self, dispatcher: Any) -> None:
        self.dispatcher = dispatcher
        self._process = os.getpid()
        self._previous: dict[int, Any] = {}
        self._stopping = False
        # Its put() is the one way to tell a thread something from within a signal handler.
        self._asked: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def install(self) -> None:
        """Take the place of the present handlers.  In the main thread only."""
        for number in platform.termination_signals():
            previous = signal.getsignal(number)
            # An ignored signal stays ignored; one of another language could not be put back.
            if previous is not None and previous != signal.SIG_IGN:
                self._previous[number] = previous
                signal.signal(number, self)
        signal_handlers[id(self.dispatcher)] = {
            number: (self, previous) for number, previous in self._previous.items()
        }
        threading.Thread(target=self._wait, name="zasync signals", daemon=True).start()

    def __call__(self, number: int, frame: Any) -> None:
        here = os.getpid() == self._process  # else this is a child that a job has forked
        if here and self.dispatcher.thread.is_alive() and not self._stopping:
            self._stopping = True
            self._asked.put(number)
            return
        self._stopping = False
        restore_signal_handlers(self.dispatcher)
        previous = self._previous.get(number)
        if callable(previous):
            previous(number, frame)
        elif previous == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def forget(self) -> None:
        """Let the waiting thread end."""
        self._asked.put(None)

    def _wait(self) -> None:
        number = self._asked.get()
        if number is None:
            return
        reactor = self.dispatcher.reactor
        reactor.callFromThread(stop_reactor, reactor)
        self.dispatcher.thread.join(self.dispatcher.grace + ENDING)
        if self._stopping:
            platform.signal_main_thread(number)


def stop_reactor(reactor: Any) -> None:
    """End `reactor`, if it has not ended already.  In its own thread."""
    with contextlib.suppress(ReactorNotRunning):
        reactor.stop()
