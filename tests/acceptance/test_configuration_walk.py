# SPDX-License-Identifier: ZPL-2.1
"""The configuration by hand that users of the ancestor know, step by step, in one process.

The steps of the class are one walk: each goes on from where the one before it left off.  Parts
of the walk: registrations, databases and queue of a client, reactor, dispatcher and agents of a
server, quotas, and the change to the testing reactor.
"""

from __future__ import annotations

import operator
import os
import threading
import types
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transaction
import zope.component
from persistent.interfaces import IPersistent
from persistent.mapping import PersistentMapping
from transaction.interfaces import ITransactionManager
from twisted.internet.selectreactor import SelectReactor
from ZODB.DB import DB
from ZODB.FileStorage import FileStorage
from ZODB.interfaces import IConnection
from zope.component.globalregistry import base as registrations

import zasync.agent
import zasync.configure
import zasync.dispatcher
import zasync.interfaces
import zasync.job
import zasync.queue
from zasync import instanceuuid, testing
from zasync.interfaces import IUUID, KEY, PENDING, IJob, IQueue


def is_multiplication(job: Any) -> bool:
    """A filter: takes the jobs that multiply."""
    return bool(job.callable == operator.mul)


def next_multiplication(agent: Any) -> Any:
    """The same as a chooser, which gets the agent and claims the job itself."""
    return agent.queue.claim(is_multiplication)


class Ground:
    """What the walk has come by so far."""

    db: Any
    databases: dict[str, Any]
    connection: Any
    root: Any
    queue: Any
    reactor: Any
    dispatcher: Any
    thread: Any
    agent: Any


@pytest.fixture(autouse=True)
def isolated() -> None:
    """In the place of the fixture that clears the process for every test: here that is once."""


@pytest.fixture(scope="class")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory, with a name for the uuid file, in a process in which nothing is."""
    directory = tmp_path_factory.mktemp("instance")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.setenv("ZASYNC_UUID", str(directory / "var-uuid.txt"))
        instanceuuid.reset()
        registrations.__init__("base")  # type: ignore[misc]
        yield directory
        registrations.__init__("base")  # type: ignore[misc]
        instanceuuid.reset()


@pytest.fixture(scope="class")
def ground(directory: Path) -> Iterator[Ground]:
    """The ground that the steps share; cleared when the walk is over."""
    ground = Ground()
    yield ground
    transaction.abort()
    for dispatcher in zasync.dispatcher.registry.every():
        testing.tear_down_dispatcher(dispatcher)
    testing.tearDownDatetime()
    if hasattr(ground, "connection"):
        ground.connection.close()
    for db in getattr(ground, "databases", {}).values():
        db.close()


class TestWalk:
    """The steps, in their order."""

    # The client: registrations

    def test_the_adapters_to_connection_and_transaction_manager(self, ground: Ground) -> None:
        provide = zope.component.provideAdapter
        by_hand = zasync.configure
        provide(by_hand.transaction_manager_of, (IPersistent,), ITransactionManager)
        provide(by_hand.connection_of, (IPersistent,), IConnection)
        provide(by_hand.transaction_manager_of, (IConnection,), ITransactionManager)

        assert ITransactionManager(PersistentMapping(), None) is None  # it has no connection yet

    def test_the_adapters_from_callables_to_jobs(self, ground: Ground) -> None:
        for kind in (types.FunctionType, types.MethodType, types.MethodWrapperType):
            zope.component.provideAdapter(zasync.job.Job, adapts=(kind,), provides=IJob)

        assert IJob(is_multiplication).callable == is_multiplication

    def test_the_uuid_of_the_instance(self, ground: Ground, directory: Path) -> None:
        from zasync.instanceuuid import UUID

        zope.component.provideUtility(UUID, IUUID, "")

        with open(os.environ["ZASYNC_UUID"]) as file:
            written = uuid.UUID(file.readline().strip())
            explanation = file.read()
        assert written == UUID
        assert "zasync" in explanation
        assert [each.name for each in directory.iterdir()] == ["var-uuid.txt"]

    def test_all_that_was_what_base_does(self, ground: Ground) -> None:
        before = set(map(repr, registrations.registeredAdapters()))
        utility = zope.component.getUtility(IUUID)

        zasync.configure.base()  # adds builtin functions, and else nothing

        after = set(map(repr, registrations.registeredAdapters()))
        assert before <= after
        assert len(after - before) == 1
        assert zope.component.getUtility(IUUID) is utility

    # The client: databases

    def test_two_file_storages_as_a_multi_database(self, ground: Ground, directory: Path) -> None:
        ground.databases = databases = {}
        # The names are said at once: a ZODB of today has connections in its pools as soon as it
        # is made, and they would not learn of names that are assigned later.
        storage = FileStorage("main.fs", create=True)
        ground.db = DB(storage, databases=databases, database_name="")
        async_storage = FileStorage("async.fs", create=True)
        DB(async_storage, databases=databases, database_name="async")
        ground.connection = ground.db.open()
        ground.root = ground.connection.root()

        assert (directory / "main.fs").exists()
        assert (directory / "async.fs").exists()

    def test_the_queues_lie_in_async_and_are_mounted_in_main(self, ground: Ground) -> None:
        second = ground.connection.get_connection("async")
        queues = second.root()["mounted_queues"] = zasync.queue.Queues()
        second.add(queues)
        ground.root[KEY] = queues
        transaction.commit()

        assert ground.root[KEY] is queues
        assert queues._p_jar is second

    def test_a_queue(self, ground: Ground) -> None:
        queues = ground.root[KEY]
        ground.queue = queues[""] = zasync.queue.Queue()
        transaction.commit()

        assert ground.queue._p_jar is queues._p_jar
        assert (ground.queue.name, ground.queue.parent) == ("", queues)

    def test_more_queues_of_other_kinds(self, ground: Ground) -> None:
        queues = ground.root[KEY]
        queues["video"] = zasync.queue.Queue()
        queues["everybody"] = zasync.queue.BroadcastQueue()
        transaction.commit()
        assert list(queues) == ["", "everybody", "video"]

        del queues["video"], queues["everybody"]
        transaction.commit()
        assert list(queues) == [""]

    def test_anything_persistent_leads_to_the_queue(self, ground: Ground) -> None:
        zope.component.provideAdapter(zasync.queue.getDefaultQueue)

        assert zasync.interfaces.IQueue(ground.root) is ground.queue

    # Quotas, of which a client needs to know

    def test_a_job_cannot_be_put_with_an_unknown_quota(self, ground: Ground) -> None:
        job = zasync.job.Job(operator.mul, 5, 2)
        job.quota_names = ["content catalog"]
        assert job.quota_names == ("content catalog",)

        with pytest.raises(ValueError, match="unknown quota name") as caught:
            ground.queue.put(job)

        assert caught.value.args == ("unknown quota name", "content catalog")
        assert len(ground.queue) == 0

    def test_a_waiting_job_cannot_be_given_an_unknown_quota(self, ground: Ground) -> None:
        job = zasync.job.Job(operator.mul, 5, 2)
        assert job is ground.queue.put(job)

        with pytest.raises(ValueError, match="unknown quota name") as caught:
            job.quota_names = ("content catalog",)

        assert caught.value.args == ("unknown quota name", "content catalog")
        assert job.quota_names == ()

    def test_quotas_are_created_and_removed(self, ground: Ground) -> None:
        quotas = ground.queue.quotas
        assert list(quotas) == []
        quotas.create("testing")
        assert list(quotas) == ["testing"]
        quotas.remove("testing")
        assert list(quotas) == []

    def test_a_quota_may_go_while_jobs_name_it(self, ground: Ground) -> None:
        queue = ground.queue
        job = queue[0]
        queue.quotas.create("content catalog")
        job.quota_names = ("content catalog",)
        queue.quotas.remove("content catalog")

        assert job.quota_names == ("content catalog",)
        assert job is queue.claim()
        assert len(queue) == 0

    def test_a_quota_has_the_size_one_unless_told_otherwise(self, ground: Ground) -> None:
        quotas = ground.queue.quotas
        quotas.create("content catalog")
        assert quotas["content catalog"].size == 1
        quotas["content catalog"].size = 2
        assert quotas["content catalog"].size == 2
        quotas.create("frobnitz account", size=3)
        assert quotas["frobnitz account"].size == 3

    def test_a_lowered_quota_leaves_alone_who_holds_it(self, ground: Ground) -> None:
        queue = ground.queue
        jobs = [zasync.job.Job(operator.mul, 5, 2) for _ in range(3)]
        for job in jobs:
            job.quota_names = ("content catalog",)
            assert job is queue.put(job)
        assert [queue.claim(), queue.claim(), queue.claim()] == [jobs[0], jobs[1], None]
        quota = queue.quotas["content catalog"]
        assert len(quota) == 2
        assert list(quota) == jobs[:2]
        assert quota.filled

        quota.size = 1

        assert quota.filled
        assert queue.claim() is None
        assert jobs[0]() == 10
        assert queue.claim() is None
        assert len(quota) == 1
        assert list(quota) == [jobs[1]]
        assert jobs[1]() == 10
        assert queue.claim() is jobs[2]
        assert len(quota) == 1
        assert list(quota) == [jobs[2]]
        assert jobs[2]() == 10
        assert queue.claim() is None
        assert len(queue) == 0

    def test_a_quota_forgets_who_has_ended_when_it_is_cleaned(self, ground: Ground) -> None:
        quota = ground.queue.quotas["content catalog"]

        quota.clean()

        assert len(quota) == 0
        assert not quota.filled
        transaction.commit()

    # The server

    def test_a_handler_gives_the_dispatcher_an_agent(self, ground: Ground) -> None:
        zope.component.provideHandler(zasync.agent.addMainAgentActivationHandler)

    def test_a_reactor_and_a_dispatcher(self, ground: Ground) -> None:
        ground.reactor = SelectReactor()
        # Twisted up to 22 let one have a reactor's signal handlers without running it in the main
        # thread.  They were always optional: zasync.subscribers has handlers for a dispatcher in
        # a thread, and one that was killed is recovered by its next start.
        if hasattr(ground.reactor, "_handleSignals"):
            ground.reactor._handleSignals()
        ground.dispatcher = zasync.dispatcher.Dispatcher(ground.db, ground.reactor)

        assert ground.dispatcher.UUID == instanceuuid.UUID
        assert not ground.dispatcher.activated

    def test_both_start_in_a_thread(self, ground: Ground) -> None:
        def start() -> None:
            ground.dispatcher.activate()
            ground.reactor.run(installSignalHandlers=0)

        ground.thread = threading.Thread(target=start)
        ground.thread.daemon = True
        ground.thread.start()

        poll = testing.get_poll(ground.dispatcher, 0)

        assert list(poll) == [""]
        assert ground.dispatcher.activated

    def test_the_handler_has_made_the_agent_main(self, ground: Ground) -> None:
        transaction.begin()

        dispatcher_agents = ground.queue.dispatchers[instanceuuid.UUID]

        assert list(dispatcher_agents.keys()) == ["main"]
        ground.agent = dispatcher_agents["main"]
        assert ground.agent.filter is None
        assert ground.agent.size == 3

    def test_a_second_agent_for_some_of_the_jobs(self, ground: Ground) -> None:
        dispatcher_agents = ground.queue.dispatchers[instanceuuid.UUID]
        agent2 = dispatcher_agents["mul"] = zasync.agent.Agent(next_multiplication)
        assert agent2.chooser == next_multiplication
        del dispatcher_agents["mul"]

        agent2 = dispatcher_agents["mul"] = zasync.agent.Agent(filter=is_multiplication)

        assert agent2.size == 3
        agent2.size = 2
        assert zasync.agent.Agent(next_multiplication, size=5).size == 5
        assert list(dispatcher_agents) == ["main", "mul"]
        transaction.commit()

    def test_agents_perform_what_is_theirs_as_far_as_their_size_goes(self, ground: Ground) -> None:
        ground.agent.size = 0
        transaction.commit()
        multiplication = ground.queue.put(zasync.job.Job(operator.mul, 6, 7))
        addition = ground.queue.put(zasync.job.Job(operator.add, 6, 7))
        transaction.commit()

        assert testing.wait_for_result(multiplication) == 42
        assert multiplication.agent.name == "mul"
        assert addition.status == PENDING

        ground.agent.size = 3
        transaction.commit()
        ground.dispatcher.wake()
        assert testing.wait_for_result(addition) == 13
        assert addition.agent is ground.agent

    def test_an_agent_remembers_what_has_ended_newest_first(self, ground: Ground) -> None:
        job = ground.queue.put(zasync.job.Job(operator.add, 2, 2))
        transaction.commit()
        assert testing.wait_for_result(job) == 4
        ground.dispatcher.poll()
        transaction.begin()

        assert len(ground.agent) == 0
        assert [each.result for each in ground.agent.completed] == [4, 13]

    def test_the_connections_of_the_pool_follow_the_agents(self, ground: Ground) -> None:
        usual = DB(None).pool.size

        assert ground.db.getPoolSize() == usual + 1 + 3 + 2  # of the polls and the two agents

    # The change to the testing reactor

    def test_with_its_reactor_the_dispatcher_stops(self, ground: Ground) -> None:
        ground.reactor.callFromThread(ground.reactor.stop)
        ground.thread.join(3)

        assert not ground.dispatcher.activated, "the dispatcher did not deactivate"
        transaction.begin()
        assert ground.queue.dispatchers[instanceuuid.UUID].activated is None
        assert ground.db.getPoolSize() == DB(None).pool.size

    def test_the_dispatcher_goes_on_with_a_testing_reactor(self, ground: Ground) -> None:
        ground.reactor = testing.Reactor()
        ground.dispatcher._reactor = ground.reactor
        ground.dispatcher.activate()
        ground.reactor.start()

        transaction.begin()
        job = IQueue(ground.root).put(zasync.job.Job(operator.mul, 6, 7))
        transaction.commit()
        assert job.status == PENDING
        ground.reactor.wait_for(job)

        assert job.result == 42
        assert testing.get_poll(ground.dispatcher, 0).utc_timestamp == job.active_end
        ground.reactor.stop()
        assert not ground.dispatcher.activated
