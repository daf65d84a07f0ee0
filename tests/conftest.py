# SPDX-License-Identifier: ZPL-2.1
"""What every test has: a process in which nothing is registered, started or remembered.

The rest is for tests that want it: a database without queues, and a connection to it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
import transaction
import zope.component.hooks
import zope.event
from ZODB.DB import DB
from ZODB.DemoStorage import DemoStorage
from zope.component.globalregistry import base as registrations

import zasync.dispatcher
from tests.support.clocks import StandingClock
from zasync import instanceuuid, subscribers, testing
from zasync.dispatcher import registry
from zasync.foundation import clock
from zasync.testing import fail_points

pytest_plugins = ["tests.support.storages", "tests.support.zeo"]

# What a shell starts in the background ignores SIGINT, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def isolated(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """No registrations, dispatchers or virtual time from other tests; a uuid file of its own.

    A dispatcher that a test leaves behind is ended.
    """
    uuid_file = tmp_path_factory.mktemp("uuid") / "uuid.txt"
    monkeypatch.setenv("ZASYNC_UUID", str(uuid_file))
    instanceuuid.reset()
    registrations.__init__("base")  # type: ignore[misc]
    handlers, real_clock = list(zope.event.subscribers), clock.current()
    yield
    transaction.abort()
    end_dispatchers()
    subscribers.signal_handlers.clear()
    testing.tearDownDatetime()
    fail_points.disarm()
    clock.install(real_clock)
    zope.event.subscribers[:] = handlers
    zope.component.hooks.setSite(None)
    registrations.__init__("base")  # type: ignore[misc]
    instanceuuid.reset()


@pytest.fixture
def standing_clock() -> Iterator[StandingClock]:
    """Time stands still until the test moves it."""
    standing = StandingClock()
    previous = clock.install(standing)
    yield standing
    clock.install(previous)


def end_dispatchers() -> None:
    for dispatcher in registry.every():
        testing.tear_down_dispatcher(dispatcher)
    zasync.dispatcher.clear()


@pytest.fixture
def database() -> Iterator[Any]:
    """A database in memory that merges what can be merged, without queues."""
    db = DB(DemoStorage())
    yield db
    end_dispatchers()  # while they can say goodbye
    db.close()


@pytest.fixture
def connection(database: Any) -> Iterator[Any]:
    """A connection to `database` with a transaction manager of its own."""
    opened = database.open(transaction_manager=transaction.TransactionManager())
    yield opened
    opened.transaction_manager.abort()
    opened.close()
