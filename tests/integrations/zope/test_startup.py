# SPDX-License-Identifier: ZPL-2.1
"""What happens when Zope starts, handler by handler; whole processes are in tests/acceptance."""

from __future__ import annotations

import logging
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transaction
import Zope2
from persistent.interfaces import IPersistent
from ZODB.DB import DB
from ZODB.DemoStorage import DemoStorage
from zope.component.globalregistry import base as registrations
from zope.configuration import xmlconfig
from zope.processlifetime import DatabaseOpenedWithRoot, ProcessStarting

import zasync.dispatcher
import zasync.integrations.zope
from tests.integrations.zope import jobs
from tests.support.running import until
from zasync import plugins
from zasync.dispatcher import registry
from zasync.integrations.zope import startup
from zasync.integrations.zope.faults import SettingsError
from zasync.integrations.zope.job import ZopeJob
from zasync.integrations.zope.settings import Settings
from zasync.interfaces import KEY, IJob, IQueue
from zasync.queue import getDefaultQueue


@pytest.fixture(autouse=True)
def no_plugins_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield
    plugins.provide_zope_jobs(None)
    if "zope_exec" in plugins.names():
        plugins.unregister("zope_exec")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Has zope.conf say something."""
    monkeypatch.delenv("ZASYNC_UUID")
    configuration = SimpleNamespace(clienthome=str(tmp_path))
    monkeypatch.setattr(startup, "getConfiguration", lambda: configuration)

    def say(**values: Any) -> Settings:
        settings = Settings(**values)
        monkeypatch.setattr(startup, "find_settings", lambda: settings)
        return settings

    say()
    return say


@pytest.fixture
def databases(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    databases: dict[str, Any] = {}
    for name in ("main", "async"):
        DB(DemoStorage(), databases=databases, database_name=name)
    monkeypatch.setattr(Zope2, "DB", databases["main"])
    yield databases
    for dispatcher in registry.every():
        startup.stop_dispatcher(dispatcher)
        dispatcher.thread.join(20)
    zasync.dispatcher.clear()
    for db in databases.values():
        db.close()


def queues_of(db: Any) -> Any:
    with db.transaction() as connection:
        return {
            name: queue._p_jar.db().database_name for name, queue in connection.root()[KEY].items()
        }


def test_one_line_of_zcml_registers_everything() -> None:
    xmlconfig.file("configure.zcml", zasync.integrations.zope)

    assert isinstance(IJob(jobs.nothing), ZopeJob)
    handlers = [each.handler for each in registrations.registeredHandlers()]
    assert startup.database_opened in handlers
    assert startup.process_starting in handlers
    assert registrations.adapters.registered((IPersistent,), IQueue) is getDefaultQueue


def test_the_queues_are_installed(said: Any, databases: dict[str, Any]) -> None:
    said(queues=("", "mail"))

    startup.database_opened(DatabaseOpenedWithRoot(databases["main"]))

    assert queues_of(databases["main"]) == {"": "main", "mail": "main"}
    assert "zope_exec" in plugins.names()


def test_the_queues_may_lie_in_another_database(said: Any, databases: dict[str, Any]) -> None:
    said(database="async")

    startup.database_opened(DatabaseOpenedWithRoot(databases["main"]))

    assert queues_of(databases["main"]) == queues_of(databases["async"]) == {"": "async"}


def test_a_database_that_is_not_there_stops_the_start(said: Any, databases: dict[str, Any]) -> None:
    said(database="jobs")

    with pytest.raises(SettingsError, match=r"database 'jobs', and there are .*'async', 'main'"):
        startup.database_opened(DatabaseOpenedWithRoot(databases["main"]))


def test_a_read_only_database_is_left_alone(
    said: Any,
    databases: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(databases["main"].storage, "isReadOnly", lambda: True)

    startup.database_opened(DatabaseOpenedWithRoot(databases["main"]))

    assert "read-only" in caplog.text
    with databases["main"].transaction() as connection:
        assert KEY not in connection.root()


def test_plugins_of_the_section_are_registered(said: Any, databases: dict[str, Any]) -> None:
    handler = "tests.integrations.zope.jobs:nothing"
    said(plugins=({"name": "from_conf", "handler": handler, "zope_aware": True, "timeout": None},))

    startup.database_opened(DatabaseOpenedWithRoot(databases["main"]))

    try:
        assert isinstance(plugins.job_for("from_conf"), ZopeJob)
    finally:
        plugins.unregister("from_conf")


def test_no_process_performs_jobs_unless_asked_to(
    said: Any, databases: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    startup.process_starting(ProcessStarting())
    assert not registry.every()

    said(dispatcher=True)
    monkeypatch.setitem(sys.modules, "Zope2.utilities.zconsole", object())  # as in a script
    startup.process_starting(ProcessStarting())
    assert not registry.every()

    monkeypatch.delitem(sys.modules, "Zope2.utilities.zconsole")
    with startup.hosted():  # as by `zasync worker`
        startup.process_starting(ProcessStarting())
    assert not registry.every()


def test_a_process_performs_jobs_if_asked_to(
    said: Any, databases: dict[str, Any], tmp_path: Path
) -> None:
    said(dispatcher=True, size=2, poll_interval=0.5, grace=3.0)
    startup.database_opened(DatabaseOpenedWithRoot(databases["main"]))

    startup.process_starting(ProcessStarting())

    [dispatcher] = registry.every()
    assert dispatcher.grace == 3.0
    assert (tmp_path / "zasync" / "1.uuid").read_text().startswith(str(dispatcher.UUID))
    manager = transaction.TransactionManager()
    connection = databases["main"].open(transaction_manager=manager)
    queue = connection.root()[KEY][""]

    def agent_size() -> Any:
        manager.begin()
        record = queue.dispatchers.get(dispatcher.UUID)
        return record and "main" in record and record["main"].size

    assert until(agent_size, "the agent") == 2
    manager.abort()
    connection.close()


def test_two_processes_of_an_instance_have_two_uuids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZASYNC_UUID")
    first = startup.process_uuid(tmp_path / "zasync")
    second = startup.process_uuid(tmp_path / "zasync")
    assert first != second

    startup._locks.pop().close()
    assert startup.process_uuid(tmp_path / "zasync") == second
    while startup._locks:
        startup._locks.pop().close()


def test_the_environment_may_name_the_uuid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ZASYNC_UUID", str(tmp_path / "mine.txt"))

    assert str(startup.process_uuid(tmp_path)) in (tmp_path / "mine.txt").read_text()


def test_where_no_uuid_can_be_kept_there_is_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("ZASYNC_UUID")
    (tmp_path / "file").touch()

    assert isinstance(startup.process_uuid(tmp_path / "file" / "zasync"), uuid.UUID)
    assert "no UUID of this process can be kept" in caplog.text


def test_a_pool_that_is_too_small_is_told(
    said: Any, databases: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    databases["main"].setPoolSize(3)
    caplog.set_level(logging.WARNING, "zasync.zope")

    assert startup.warn_of_small_pool(databases["main"], Settings(web_threads=4))
    assert "pool-size of <zodb_db main> is 3, but the 4 threads" in caplog.text
    assert not startup.warn_of_small_pool(databases["main"], Settings(web_threads=3))


def test_a_dispatcher_stops_before_its_databases_are_closed(
    said: Any, databases: dict[str, Any]
) -> None:
    said(dispatcher=True, grace=1.0)
    startup.database_opened(DatabaseOpenedWithRoot(databases["main"]))
    startup.process_starting(ProcessStarting())
    [dispatcher] = registry.every()
    until(lambda: dispatcher.polls.total, "the first poll")

    databases["async"].close()  # whichever comes first

    assert not dispatcher.activated
    assert dispatcher.handed_back
    dispatcher.thread.join(20)
    assert not dispatcher.thread.is_alive()
