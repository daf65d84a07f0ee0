# SPDX-License-Identifier: ZPL-2.1
"""The configuration by hand that users of the ancestor know, step by step, in one process.

One walk, in which each step goes on from where the one before it left off: registrations,
databases, queue and quotas of a client; reactor, dispatcher and agents of a server; and in the
end the change to the testing reactor.
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


@pytest.fixture
def walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Walk]:
    """A walk in a working directory of its own, and with a name for the uuid file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZASYNC_UUID", str(tmp_path / "var-uuid.txt"))
    walk = Walk()
    yield walk
    transaction.abort()
    for dispatcher in zasync.dispatcher.registry.every():
        testing.tear_down_dispatcher(dispatcher)
    if hasattr(walk, "connection"):
        walk.connection.close()
    for db in walk.databases.values():
        db.close()


def test_everything_is_configured_by_hand(walk: Walk) -> None:
    walk.the_adapters_to_connection_and_transaction_manager()
    walk.the_adapters_from_callables_to_jobs()
    walk.the_uuid_of_the_instance()
    walk.all_that_was_what_base_does()
    walk.two_file_storages_as_a_multi_database()
    walk.the_queues_lie_in_async_and_are_mounted_in_main()
    walk.a_queue()
    walk.more_queues_of_other_kinds()
    walk.anything_persistent_leads_to_the_queue()
    walk.a_job_cannot_be_put_with_an_unknown_quota()
    walk.a_waiting_job_cannot_be_given_an_unknown_quota()
    walk.quotas_are_created_and_removed()
    walk.a_quota_may_go_while_jobs_name_it()
    walk.a_quota_has_the_size_one_unless_told_otherwise()
    walk.a_lowered_quota_leaves_alone_who_holds_it()
    walk.a_quota_forgets_who_has_ended_when_it_is_cleaned()
    walk.a_handler_gives_the_dispatcher_an_agent()
    walk.a_reactor_and_a_dispatcher()
    walk.both_start_in_a_thread()
    walk.the_handler_has_made_the_agent_main()
    walk.a_second_agent_for_some_of_the_jobs()
    walk.agents_perform_what_is_theirs_as_far_as_their_size_goes()
    walk.an_agent_remembers_what_has_ended_newest_first()
    walk.the_connections_of_the_pool_follow_the_agents()
    walk.with_its_reactor_the_dispatcher_stops()
    walk.the_dispatcher_goes_on_with_a_testing_reactor()


class Walk:
    """The steps, in their order, and what they have come by so far."""

    db: Any
    connection: Any
    root: Any
    queue: Any
    reactor: Any
    dispatcher: Any
    thread: Any
    agent: Any

    def __init__(self) -> None:
        self.databases: dict[str, Any] = {}

    # The client: registrations

    def the_adapters_to_connection_and_transaction_manager(self) -> None:
        provide = zope.component.provideAdapter
        by_hand = zasync.configure
        provide(by_hand.transaction_manager_of, (IPersistent,), ITransactionManager)
        provide(by_hand.connection_of, (IPersistent,), IConnection)
        provide(by_hand.transaction_manager_of, (IConnection,), ITransactionManager)

        assert ITransactionManager(PersistentMapping(), None) is None  # it has no connection yet

    def the_adapters_from_callables_to_jobs(self) -> None:
        for kind in (types.FunctionType, types.MethodType, types.MethodWrapperType):
            zope.component.provideAdapter(zasync.job.Job, adapts=(kind,), provides=IJob)

        assert IJob(is_multiplication).callable == is_multiplication

    def the_uuid_of_the_instance(self) -> None:
        from zasync.instanceuuid import UUID

        zope.component.provideUtility(UUID, IUUID, "")

        with open(os.environ["ZASYNC_UUID"]) as file:
            written = uuid.UUID(file.readline().strip())
            explanation = file.read()
        assert written == UUID
        assert "zasync" in explanation
        assert [each.name for each in Path().iterdir()] == ["var-uuid.txt"]

    def all_that_was_what_base_does(self) -> None:
        before = set(map(repr, registrations.registeredAdapters()))
        utility = zope.component.getUtility(IUUID)

        zasync.configure.base()  # adds builtin functions, and else nothing

        after = set(map(repr, registrations.registeredAdapters()))
        assert before <= after
        assert len(after - before) == 1
        assert zope.component.getUtility(IUUID) is utility

    # The client: databases

    def two_file_storages_as_a_multi_database(self) -> None:
        # The names are said at once: a ZODB of today has connections in its pools as soon as it
        # is made, and they would not learn of names that are assigned later.
        storage = FileStorage("main.fs", create=True)
        self.db = DB(storage, databases=self.databases, database_name="")
        async_storage = FileStorage("async.fs", create=True)
        DB(async_storage, databases=self.databases, database_name="async")
        self.connection = self.db.open()
        self.root = self.connection.root()

        assert (Path() / "main.fs").exists()
        assert (Path() / "async.fs").exists()

    def the_queues_lie_in_async_and_are_mounted_in_main(self) -> None:
        second = self.connection.get_connection("async")
        queues = second.root()["mounted_queues"] = zasync.queue.Queues()
        second.add(queues)
        self.root[KEY] = queues
        transaction.commit()

        assert self.root[KEY] is queues
        assert queues._p_jar is second

    def a_queue(self) -> None:
        queues = self.root[KEY]
        self.queue = queues[""] = zasync.queue.Queue()
        transaction.commit()

        assert self.queue._p_jar is queues._p_jar
        assert (self.queue.name, self.queue.parent) == ("", queues)

    def more_queues_of_other_kinds(self) -> None:
        queues = self.root[KEY]
        queues["video"] = zasync.queue.Queue()
        queues["everybody"] = zasync.queue.BroadcastQueue()
        transaction.commit()
        assert list(queues) == ["", "everybody", "video"]

        del queues["video"], queues["everybody"]
        transaction.commit()
        assert list(queues) == [""]

    def anything_persistent_leads_to_the_queue(self) -> None:
        zope.component.provideAdapter(zasync.queue.getDefaultQueue)

        assert zasync.interfaces.IQueue(self.root) is self.queue

    # Quotas, of which a client needs to know

    def a_job_cannot_be_put_with_an_unknown_quota(self) -> None:
        job = zasync.job.Job(operator.mul, 5, 2)
        job.quota_names = ["content catalog"]
        assert job.quota_names == ("content catalog",)

        with pytest.raises(ValueError, match="unknown quota name") as caught:
            self.queue.put(job)

        assert caught.value.args == ("unknown quota name", "content catalog")
        assert len(self.queue) == 0

    def a_waiting_job_cannot_be_given_an_unknown_quota(self) -> None:
        job = zasync.job.Job(operator.mul, 5, 2)
        assert job is self.queue.put(job)

        with pytest.raises(ValueError, match="unknown quota name") as caught:
            job.quota_names = ("content catalog",)

        assert caught.value.args == ("unknown quota name", "content catalog")
        assert job.quota_names == ()

    def quotas_are_created_and_removed(self) -> None:
        quotas = self.queue.quotas
        assert list(quotas) == []
        quotas.create("testing")
        assert list(quotas) == ["testing"]
        quotas.remove("testing")
        assert list(quotas) == []

    def a_quota_may_go_while_jobs_name_it(self) -> None:
        queue = self.queue
        job = queue[0]
        queue.quotas.create("content catalog")
        job.quota_names = ("content catalog",)
        queue.quotas.remove("content catalog")

        assert job.quota_names == ("content catalog",)
        assert job is queue.claim()
        assert len(queue) == 0

    def a_quota_has_the_size_one_unless_told_otherwise(self) -> None:
        quotas = self.queue.quotas
        quotas.create("content catalog")
        assert quotas["content catalog"].size == 1
        quotas["content catalog"].size = 2
        assert quotas["content catalog"].size == 2
        quotas.create("frobnitz account", size=3)
        assert quotas["frobnitz account"].size == 3

    def a_lowered_quota_leaves_alone_who_holds_it(self) -> None:
        queue = self.queue
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

    def a_quota_forgets_who_has_ended_when_it_is_cleaned(self) -> None:
        quota = self.queue.quotas["content catalog"]

        quota.clean()

        assert len(quota) == 0
        assert not quota.filled
        transaction.commit()

    # The server

    def a_handler_gives_the_dispatcher_an_agent(self) -> None:
        zope.component.provideHandler(zasync.agent.addMainAgentActivationHandler)

    def a_reactor_and_a_dispatcher(self) -> None:
        self.reactor = SelectReactor()
        # Twisted up to 22 let one have a reactor's signal handlers without running it in the main
        # thread.  They were always optional: zasync.subscribers has handlers for a dispatcher in
        # a thread, and one that was killed is recovered by its next start.
        if hasattr(self.reactor, "_handleSignals"):
            self.reactor._handleSignals()
        self.dispatcher = zasync.dispatcher.Dispatcher(self.db, self.reactor)

        assert self.dispatcher.UUID == instanceuuid.UUID
        assert not self.dispatcher.activated

    def both_start_in_a_thread(self) -> None:
        def start() -> None:
            self.dispatcher.activate()
            self.reactor.run(installSignalHandlers=0)

        self.thread = threading.Thread(target=start)
        self.thread.daemon = True
        self.thread.start()

        poll = testing.get_poll(self.dispatcher, 0)

        assert list(poll) == [""]
        assert self.dispatcher.activated

    def the_handler_has_made_the_agent_main(self) -> None:
        transaction.begin()

        dispatcher_agents = self.queue.dispatchers[instanceuuid.UUID]

        assert list(dispatcher_agents.keys()) == ["main"]
        self.agent = dispatcher_agents["main"]
        assert self.agent.filter is None
        assert self.agent.size == 3

    def a_second_agent_for_some_of_the_jobs(self) -> None:
        dispatcher_agents = self.queue.dispatchers[instanceuuid.UUID]
        agent2 = dispatcher_agents["mul"] = zasync.agent.Agent(next_multiplication)
        assert agent2.chooser == next_multiplication
        del dispatcher_agents["mul"]

        agent2 = dispatcher_agents["mul"] = zasync.agent.Agent(filter=is_multiplication)

        assert agent2.size == 3
        agent2.size = 2
        assert zasync.agent.Agent(next_multiplication, size=5).size == 5
        assert list(dispatcher_agents) == ["main", "mul"]
        transaction.commit()

    def agents_perform_what_is_theirs_as_far_as_their_size_goes(self) -> None:
        self.agent.size = 0
        transaction.commit()
        multiplication = self.queue.put(zasync.job.Job(operator.mul, 6, 7))
        addition = self.queue.put(zasync.job.Job(operator.add, 6, 7))
        transaction.commit()

        assert testing.wait_for_result(multiplication) == 42
        assert multiplication.agent.name == "mul"
        assert addition.status == PENDING

        self.agent.size = 3
        transaction.commit()
        self.dispatcher.wake()
        assert testing.wait_for_result(addition) == 13
        assert addition.agent is self.agent

    def an_agent_remembers_what_has_ended_newest_first(self) -> None:
        job = self.queue.put(zasync.job.Job(operator.add, 2, 2))
        transaction.commit()
        assert testing.wait_for_result(job) == 4
        for _ in range(1000):  # the worker tells the dispatcher a moment after the result is there
            transaction.begin()
            if len(self.agent) == 0:
                break
            self.dispatcher.poll()
            threading.Event().wait(0.005)

        assert len(self.agent) == 0
        assert [each.result for each in self.agent.completed] == [4, 13]

    def the_connections_of_the_pool_follow_the_agents(self) -> None:
        sizes = self.agent.size + self.queue.dispatchers[instanceuuid.UUID]["mul"].size

        assert sizes == 5
        assert self.db.getPoolSize() >= DB(None).getPoolSize() + sizes

    # The change to the testing reactor

    def with_its_reactor_the_dispatcher_stops(self) -> None:
        self.reactor.callFromThread(self.reactor.stop)
        self.thread.join(3)

        assert not self.dispatcher.activated, "the dispatcher did not deactivate"
        transaction.begin()
        assert self.queue.dispatchers[instanceuuid.UUID].activated is None
        assert self.db.getPoolSize() == DB(None).getPoolSize()

    def the_dispatcher_goes_on_with_a_testing_reactor(self) -> None:
        self.reactor = testing.Reactor()
        self.dispatcher._reactor = self.reactor
        self.dispatcher.activate()
        self.reactor.start()

        transaction.begin()
        job = IQueue(self.root).put(zasync.job.Job(operator.mul, 6, 7))
        transaction.commit()
        assert job.status == PENDING
        self.reactor.wait_for(job)

        assert job.result == 42
        assert testing.get_poll(self.dispatcher, 0).utc_timestamp == job.active_end
        self.reactor.stop()
        assert not self.dispatcher.activated
