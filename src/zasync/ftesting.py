# SPDX-License-Identifier: ZPL-2.1
"""A whole zasync for functional tests: queue, dispatcher and agent, on virtual time.

dispatcher = zasync.ftesting.setUp(connection)
job = zasync.interfaces.IQueue(connection).put(work)
transaction.commit()
dispatcher.reactor.wait_for(job)
zasync.ftesting.tearDown()
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import zope.component

from zasync import configure
from zasync.dispatcher import Dispatcher
from zasync.foundation import clock
from zasync.instanceuuid import InstanceUUID
from zasync.interfaces import IUUID, DatabaseOpened, IDispatcherActivated
from zasync.subscribers import AgentInstaller, QueueInstaller
from zasync.testing import Reactor, tear_down_dispatcher

_undo: ExitStack | None = None  # what `tearDown` has to do


def setUp(connection: Any) -> Any:
    """Make the database of `connection` ready; answers the dispatcher, which waits for work.

    Makes and commits the queue '' if there is none.  Whatever is not registered yet is
    registered, with a UUID that lies in no file.  The dispatcher is driven by a
    `zasync.testing.Reactor`, so jobs are performed when its time moves.  What was uncommitted
    in `connection` is aborted.  RuntimeError if `tearDown` was not called since the last time.
    """
    global _undo
    if _undo is not None:
        raise RuntimeError("zasync.ftesting is set up already; call tearDown() first")
    with ExitStack() as stack:
        _register(stack)
        db = connection.db()
        QueueInstaller()(DatabaseOpened(db))
        reactor = Reactor()
        dispatcher = Dispatcher(db, reactor)
        stack.callback(tear_down_dispatcher, dispatcher)
        dispatcher.activate()
        reactor.start()
        connection.transaction_manager.begin()
        _undo = stack.pop_all()
    return dispatcher


def tearDown() -> None:
    """End the dispatcher and its threads, and have time go by itself again.

    Undoes what `setUp` has registered.  May be called without it.
    """
    global _undo
    undo, _undo = _undo, None
    if undo is not None:
        undo.close()


def _register(stack: ExitStack) -> None:
    site = zope.component.getGlobalSiteManager()
    if zope.component.queryUtility(IUUID) is None:
        uuid = InstanceUUID(int=clock.current().uuid4().int)
        site.registerUtility(uuid, IUUID)
        stack.callback(site.unregisterUtility, uuid, IUUID)
    configure.base()
    configure.provide_default_queue()
    _handle(site, AgentInstaller("main"), stack.callback)


def _handle(site: Any, handler: Any, at_the_end: Callable[..., Any]) -> None:
    site.registerHandler(handler)
    at_the_end(site.unregisterHandler, handler, (IDispatcherActivated,))
