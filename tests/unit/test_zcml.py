# SPDX-License-Identifier: ZPL-2.1
"""The ZCML files: each is loaded, and what it is for happens."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
import transaction
import zope.component
import zope.event
from persistent.interfaces import IPersistent
from transaction.interfaces import ITransactionManager
from ZODB.DB import DB
from ZODB.DemoStorage import DemoStorage
from ZODB.interfaces import IConnection
from zope.component.globalregistry import base as registrations
from zope.configuration import xmlconfig

import zasync
from zasync import configure, dispatcher, subscribers
from zasync.interfaces import IUUID, KEY, DatabaseOpened, IJob, IQueue
from zasync.job import Job
from zasync.queue import Queue, Queues
from zasync.testing import get_poll, tear_down_dispatcher, wait_for_result

POLICIES = ["basic_dispatcher_policy.zcml", "multidb_dispatcher_policy.zcml"]


@pytest.fixture
def databases() -> Iterator[dict[str, Any]]:
    """A multi-database of '' and 'async'; its dispatcher is ended before it is closed."""
    databases: dict[str, Any] = {}
    DB(DemoStorage(), databases=databases, database_name="")
    DB(DemoStorage(), databases=databases, database_name="async")
    yield databases
    running = dispatcher.get() if zope.component.queryUtility(IUUID) else None
    if running is not None:
        tear_down_dispatcher(running)
    for db in databases.values():
        db.close()


@pytest.fixture
def main(databases: dict[str, Any]) -> Iterator[Any]:
    """A connection to the database ''."""
    connection = databases[""].open(transaction_manager=transaction.TransactionManager())
    yield connection
    connection.transaction_manager.abort()
    connection.close()


def adapters() -> set[tuple[Any, ...]]:
    """What is adapted to what by what."""
    return {
        (*each.required, each.provided, each.factory)
        for each in registrations.registeredAdapters()
        if each.provided in (IConnection, ITransactionManager, IJob, IQueue)
    }


def test_every_file_is_tested_here() -> None:
    names = {each.name for each in files("zasync").iterdir() if each.name.endswith(".zcml")}

    names.remove("z3.zcml")  # in test_z3
    assert names == {"configure.zcml", "dispatcher.zcml", *POLICIES}


def test_the_client_part_registers_what_the_functions_register() -> None:
    configure.base()
    configure.provide_default_queue()
    by_functions, uuid = adapters(), zope.component.getUtility(IUUID)
    registrations.__init__("base")  # type: ignore[misc]

    xmlconfig.file("configure.zcml", zasync)

    assert adapters() == by_functions
    assert zope.component.getUtility(IUUID) is uuid


def test_a_client_puts_jobs_and_starts_nothing(databases: Any, main: Any) -> None:
    queues = main.root()[KEY] = Queues()
    queue = queues[""] = Queue()
    main.transaction_manager.commit()

    xmlconfig.file("configure.zcml", zasync)
    zope.event.notify(DatabaseOpened(databases[""]))
    job = IQueue(main).put(operator.mul)
    main.transaction_manager.commit()

    assert IQueue(main.root()) is queue
    assert job.assignerUUID == zope.component.getUtility(IUUID)
    assert list(queue) == [job]
    assert dispatcher.get() is None


def test_the_dispatcher_part_starts_a_dispatcher_when_the_database_is_opened(
    databases: Any, main: Any
) -> None:
    subscribers.queue_installer(DatabaseOpened(databases[""]))
    xmlconfig.file("dispatcher.zcml", zasync)
    assert dispatcher.get() is None

    zope.event.notify(DatabaseOpened(databases[""]))

    assert get_poll(dispatcher.get(), 0) == {"": {}}  # agents are up to others
    assert dispatcher.get().thread.is_alive()


@pytest.mark.parametrize(("policy", "home"), list(zip(POLICIES, ["", "async"], strict=True)))
def test_with_a_policy_jobs_are_performed_once_the_database_is_opened(
    policy: str, home: str, databases: Any, main: Any
) -> None:
    xmlconfig.file(policy, zasync)

    zope.event.notify(DatabaseOpened(databases[""]))

    main.transaction_manager.begin()
    job = IQueue(main).put(Job(operator.mul, 6, 7))
    main.transaction_manager.commit()
    assert wait_for_result(job) == 42
    assert job._p_jar.db() is databases[home]
    assert IPersistent.providedBy(job)
    assert job.agent.name == "main"


@pytest.mark.parametrize("policy", POLICIES)
def test_an_application_includes_a_policy(policy: str, databases: Any) -> None:
    xmlconfig.string(f"""
        <configure xmlns="http://namespaces.zope.org/zope">
          <include package="zope.component" file="meta.zcml" />
          <include package="zasync" file="{policy}" />
          <include package="zasync" file="configure.zcml" />
        </configure>
    """)

    zope.event.notify(DatabaseOpened(databases[""]))
    zope.event.notify(DatabaseOpened(databases[""]))

    assert list(get_poll(dispatcher.get(), 0)[""]) == ["main"]
