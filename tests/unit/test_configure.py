# SPDX-License-Identifier: ZPL-2.1
"""The registrations in Python, and the quick start."""

from __future__ import annotations

import operator
import os
import subprocess
import sys
import types
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transaction
import zope.component
from persistent import Persistent
from persistent.interfaces import IPersistent
from transaction.interfaces import ITransactionManager
from ZODB.DB import DB
from ZODB.DemoStorage import DemoStorage
from ZODB.interfaces import IConnection
from zope.component.globalregistry import base as registrations

from zasync import configure, dispatcher, instanceuuid
from zasync.instanceuuid import InstanceUUID
from zasync.interfaces import IUUID, KEY, IJob, IQueue
from zasync.job import Job
from zasync.queue import Queue
from zasync.testing import get_poll, tear_down_dispatcher, wait_for_result

SECONDS = 30


class Document(Persistent):
    """Something of an application's, with a method."""

    title = "draft"

    def rename(self, title: str) -> str:
        self.title = title
        return title


def first_of_queue(agent: Any) -> Any:
    """A chooser."""
    return agent.queue.claim()


def another_connection(obj: Any) -> Any:
    """An adapter of an application's own."""
    return obj._p_jar


def registered() -> list[str]:
    return sorted(
        map(repr, [*registrations.registeredAdapters(), *registrations.registeredUtilities()])
    )


@pytest.fixture
def document(connection: Any) -> Document:
    """A committed object."""
    document = connection.root()["document"] = Document()
    connection.transaction_manager.commit()
    return document


# minimal


def test_a_persistent_object_leads_to_its_connection_and_transaction_manager(
    document: Document, connection: Any
) -> None:
    configure.minimal()

    assert IConnection(document) is connection
    assert ITransactionManager(document) is connection.transaction_manager
    assert ITransactionManager(connection) is connection.transaction_manager


def test_an_object_outside_of_databases_leads_nowhere() -> None:
    configure.minimal()

    assert IConnection(Document(), None) is None
    assert ITransactionManager(Document(), None) is None


def test_what_the_application_registered_stays() -> None:
    zope.component.provideAdapter(another_connection, (IPersistent,), IConnection)
    own = InstanceUUID(int=uuid.uuid4().int)
    zope.component.provideUtility(own, IUUID)

    configure.base()

    [found] = [each for each in registrations.registeredAdapters() if each.provided is IConnection]
    assert found.factory is another_connection
    assert zope.component.getUtility(IUUID) is own


# base


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (first_of_queue, types.FunctionType),
        (operator.mul, types.BuiltinFunctionType),
        ([].append, types.BuiltinMethodType),
        (Document().rename, types.MethodType),
        ("".__len__, types.MethodWrapperType),
    ],
)
def test_whatever_can_be_called_makes_a_job(call: Any, kind: type) -> None:
    configure.base()

    job = IJob(call)

    assert type(call) is kind
    assert type(job) is Job
    assert job.callable == call


def test_the_instance_has_the_uuid_of_its_file() -> None:
    configure.base()

    written = Path(os.environ["ZASYNC_UUID"]).read_text().splitlines()[0]
    assert zope.component.getUtility(IUUID) == uuid.UUID(written) == instanceuuid.UUID


def test_registering_twice_is_like_once() -> None:
    configure.base()
    once = registered()

    configure.minimal()
    configure.base()

    assert registered() == once


def test_the_registrations_alone_start_nothing() -> None:
    configure.base()

    assert dispatcher.get() is None
    assert list(registrations.registeredHandlers()) == []


# start


@pytest.fixture
def stopped(database: Any) -> Iterator[None]:
    """The dispatcher that a test starts is ended before its database is closed."""
    yield
    running = dispatcher.get()
    if running is not None:
        tear_down_dispatcher(running)


@pytest.mark.usefixtures("stopped")
def test_after_a_start_jobs_are_performed(database: Any, connection: Any) -> None:
    configure.start(database)
    connection.transaction_manager.begin()
    queue = IQueue(connection)
    job = queue.put(Job(operator.mul, 6, 7))
    connection.transaction_manager.commit()

    assert wait_for_result(job) == 42
    assert queue is IQueue(connection.root()) is connection.root()[KEY][""]


@pytest.mark.usefixtures("stopped")
def test_the_options_of_a_start_are_those_of_dispatcher_and_agent(
    database: Any, connection: Any
) -> None:
    configure.start(database, poll_interval=0.5, agent_chooser=first_of_queue, agent_size=7)

    running = dispatcher.get()
    get_poll(running, 0)
    connection.transaction_manager.begin()
    agent = IQueue(connection).dispatchers[running.UUID]["main"]
    assert running.poll_interval == 0.5
    assert (agent.size, agent.chooser) == (7, first_of_queue)


@pytest.mark.usefixtures("stopped")
def test_a_second_start_changes_nothing(database: Any) -> None:
    configure.start(database)
    before, running = registered(), dispatcher.get()

    configure.start(database, poll_interval=1, agent_size=100)

    assert dispatcher.get() is running
    assert running.activated
    assert running.poll_interval == 5
    assert registered() == before
    assert len(list(registrations.registeredHandlers())) == 1


@pytest.mark.usefixtures("stopped")
def test_a_start_after_an_end_is_a_new_start_with_its_own_options(database: Any) -> None:
    configure.start(database, agent_size=1)
    tear_down_dispatcher(dispatcher.get())
    other = DB(DemoStorage())

    configure.start(other, agent_size=2)

    running = dispatcher.get()
    get_poll(running, 0)
    with other.transaction() as connection:
        assert connection.root()[KEY][""].dispatchers[running.UUID]["main"].size == 2
    tear_down_dispatcher(running)
    other.close()


@pytest.mark.usefixtures("stopped")
def test_one_process_cannot_start_on_two_databases_under_one_uuid(database: Any) -> None:
    configure.start(database)
    other = DB(DemoStorage())

    with pytest.raises(ValueError, match="has a dispatcher of that UUID already"):
        configure.start(other)

    other.close()


def test_the_queue_can_lie_in_another_database() -> None:
    databases: dict[str, Any] = {}
    main = DB(DemoStorage(), databases=databases, database_name="main")
    DB(DemoStorage(), databases=databases, database_name="jobs")

    configure.start(main, db_name="jobs")

    manager = transaction.TransactionManager()
    connection = main.open(transaction_manager=manager)
    job = IQueue(connection).put(Job(operator.mul, 6, 7))
    manager.commit()
    assert wait_for_result(job) == 42
    assert job._p_jar.db().database_name == "jobs"
    assert isinstance(connection.root()[KEY][""], Queue)
    tear_down_dispatcher(dispatcher.get())
    manager.abort()
    connection.close()
    for each in databases.values():
        each.close()


# In processes of their own


def output(program: str) -> str:
    """What `program` prints, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


TWISTED = """
import operator
from twisted.internet import reactor
from ZODB.DB import DB
from ZODB.DemoStorage import DemoStorage
import zasync.configure, zasync.dispatcher
from zasync.interfaces import IQueue
from zasync.job import Job

def done(result):
    print(result, flush=True)
    reactor.callFromThread(reactor.stop)

if __name__ == "__main__":
    db = DB(DemoStorage())
    zasync.configure.start(db, twisted=True)
    zasync.configure.start(db, twisted=True)
    with db.transaction() as connection:
        job = IQueue(connection).put(Job(operator.mul, 6, 7))
        job.addCallback(done)
    dispatcher = zasync.dispatcher.get()
    reactor.callLater(20, reactor.stop)
    reactor.run()
    print(dispatcher.reactor is reactor, dispatcher.thread, dispatcher.activated)
    with db.transaction() as connection:
        print(connection.root()["zasync"][""].dispatchers[dispatcher.UUID].activated)
    db.close()
"""


@pytest.mark.process
def test_the_installed_twisted_reactor_can_drive_the_dispatcher() -> None:
    assert output(TWISTED).splitlines() == ["42", "True None None", "None"]


IMPORTING = """
import os, signal, sys, threading
before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
import zasync, zasync.agent, zasync.configure, zasync.dispatcher, zasync.ftesting
import zasync.instanceuuid, zasync.job, zasync.queue, zasync.subscribers, zasync.testing
from zope.component.globalregistry import base
from zasync.foundation import clock
print(threading.active_count(), os.listdir(), "twisted.internet.reactor" in sys.modules)
print(before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)))
print([*base.registeredAdapters(), *base.registeredHandlers(), *base.registeredUtilities()])
print(type(clock.current()).__name__)
"""


@pytest.mark.process
def test_importing_starts_makes_and_registers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in instanceuuid.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)

    assert output(IMPORTING).splitlines() == ["1 [] False", "True", "[]", "Clock"]


WITHOUT_PROCESSLIFETIME = """
import sys
sys.modules["zope.processlifetime"] = None  # importing it fails
import zasync.configure, zasync.dispatcher, zasync.interfaces, zasync.testing
from ZODB.DB import DB
from ZODB.DemoStorage import DemoStorage

zasync.configure.start(DB(DemoStorage()))
poll = zasync.testing.get_poll(zasync.dispatcher.get(), 0)
print(zasync.interfaces.IDatabaseOpenedEvent.__module__, list(poll))
"""


@pytest.mark.process
def test_zope_processlifetime_is_not_needed() -> None:
    assert output(WITHOUT_PROCESSLIFETIME).splitlines() == ["zasync.interfaces ['']"]
