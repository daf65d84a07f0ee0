# SPDX-License-Identifier: ZPL-2.1
"""The registrations that zasync needs, and a quick start of everything in one process.

`base` is for every process, `start` for one that also performs jobs.  The same in ZCML is in
the `*.zcml` files beside this module; the installers that `start` uses are in
`zasync.subscribers`.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import zope.component
from persistent.interfaces import IPersistent
from transaction.interfaces import ITransactionManager
from ZODB.interfaces import IConnection
from zope.interface import Interface, implementedBy
from zope.interface.interfaces import IInterface

from zasync import instanceuuid, subscribers
from zasync.interfaces import IUUID, DatabaseOpened, IDispatcherActivated, IJob, IQueue
from zasync.job import Job
from zasync.queue import getDefaultQueue

# What a job can be made of: functions and builtin functions (which builtin methods are too),
# methods, and the methods of builtin types such as `[].__len__`.
CALLABLES = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.MethodWrapperType,
)


def connection_of(obj: Any) -> Any:
    """Adapter: the connection of a persistent object; none if it is not in a database yet."""
    return obj._p_jar


def transaction_manager_of(obj: Any) -> Any:
    """Adapter: the transaction manager of a connection, or of a persistent object's."""
    connection = IConnection(obj, None)
    return None if connection is None else connection.transaction_manager


def minimal() -> None:
    """Register the adapters that lead from persistent objects to their transaction manager.

    Like `base` and `start` it may be called again, and what the application has registered for
    the same stays.
    """
    _provide(transaction_manager_of, IConnection, ITransactionManager)
    _provide(connection_of, IPersistent, IConnection)
    _provide(transaction_manager_of, IPersistent, ITransactionManager)


def base() -> None:
    """Register all that is required to put jobs and to perform them.

    That is `minimal`, the adapters that make jobs of callables, and the UUID of this instance,
    for which its file is read, or made (see `zasync.instanceuuid`).
    """
    minimal()
    provide_jobs()
    if zope.component.queryUtility(IUUID) is None:
        zope.component.provideUtility(instanceuuid.get(), IUUID, "")


def provide_jobs() -> None:
    """Register the adapters from callables to IJob."""
    for kind in CALLABLES:
        _provide(Job, kind, IJob)


def provide_default_queue() -> None:
    """Have persistent objects and connections adapt to the queue named ''."""
    _provide(getDefaultQueue, IPersistent, IQueue)
    _provide(getDefaultQueue, IConnection, IQueue)


def start(
    db: Any,
    poll_interval: float = 5,
    db_name: str | None = None,
    agent_chooser: Callable[[Any], Any] | None = None,
    agent_size: int = 3,
    twisted: bool = False,
) -> None:
    """Have this process perform the jobs of the queue '' of `db`; makes and commits the queue.

    The queue lies in `db`, or in the database `db_name` of its multi-database.  The dispatcher
    polls every `poll_interval` seconds, in a thread of its own, or, with `twisted`, in the
    installed Twisted reactor, which the caller runs.  Its agent 'main' takes what
    `agent_chooser` chooses, by default anything, and runs `agent_size` jobs at once; an agent
    'main' that the database has already stays as it is.  Once the dispatcher works, another
    call for the same database does nothing.
    """
    base()
    provide_default_queue()
    if subscribers.running_dispatcher(db) is not None:
        return
    _give_agent(MainAgentInstaller("main", chooser=agent_chooser, size=agent_size))
    opened = DatabaseOpened(db)
    subscribers.QueueInstaller(db_name=db_name)(opened)
    if twisted:
        subscribers.TwistedDispatcherInstaller(poll_interval=poll_interval)(opened)
    else:
        subscribers.ThreadedDispatcherInstaller(poll_interval=poll_interval)(opened)


class MainAgentInstaller(subscribers.AgentInstaller):
    """The agent installer of `start`; another start puts its own in its place."""


def _give_agent(installer: MainAgentInstaller) -> None:
    site = zope.component.getGlobalSiteManager()
    for registration in list(site.registeredHandlers()):
        if isinstance(registration.handler, MainAgentInstaller):
            site.unregisterHandler(registration.handler, (IDispatcherActivated,))
    site.registerHandler(installer)


def _provide(factory: Callable[[Any], Any], adapts: Any, provides: type[Interface]) -> None:
    """Register an adapter, unless there is one for exactly the same."""
    required = adapts if IInterface.providedBy(adapts) else implementedBy(adapts)  # type: ignore[no-untyped-call]
    adapters = zope.component.getGlobalSiteManager().adapters
    if adapters.registered((required,), provides) is None:
        zope.component.provideAdapter(factory, adapts=(adapts,), provides=provides)
