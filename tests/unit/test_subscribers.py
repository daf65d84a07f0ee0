# SPDX-License-Identifier: ZPL-2.1
"""The installers of queues, dispatchers and agents, and what signals do to a dispatcher."""

from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zope.component
import zope.event
from twisted.internet.selectreactor import SelectReactor
from ZODB.DB import DB
from ZODB.DemoStorage import DemoStorage
from ZODB.FileStorage import FileStorage

from zasync import configure, dispatcher, subscribers
from zasync.foundation import platform
from zasync.interfaces import (
    KEY,
    DatabaseOpened,
    DispatcherActivated,
    IDatabaseOpenedEvent,
    IDispatcherActivated,
    IFilterAgent,
)
from zasync.job import Job
from zasync.queue import BroadcastQueue, Queue, Queues
from zasync.subscribers import (
    AgentInstaller,
    QueueInstaller,
    ThreadedDispatcherInstaller,
    restore_signal_handlers,
    signal_handlers,
)
from zasync.testing import get_poll, tear_down_dispatcher, wait_for_result

SECONDS = 30
SIGNALS = [signal.SIGINT, signal.SIGTERM]


def takes_all(job: Any) -> bool:
    """A filter."""
    return True


def first_of_queue(agent: Any) -> Any:
    """A chooser."""
    return agent.queue.claim()


def installed_queues(db: Any) -> dict[str, Any]:
    """Name and class of the queues of `db`, as a new connection sees them."""
    with db.transaction() as connection:
        return {name: type(queue) for name, queue in connection.root()[KEY].items()}


# Queues


def test_a_newly_opened_database_gets_a_queue(database: Any) -> None:
    subscribers.queue_installer(DatabaseOpened(database))

    assert installed_queues(database) == {"": Queue}


def test_queues_get_the_names_that_were_asked_for(database: Any) -> None:
    QueueInstaller(queues=("", "video", "audio"))(DatabaseOpened(database))

    assert installed_queues(database) == {"": Queue, "audio": Queue, "video": Queue}


def test_a_factory_gets_the_connection_and_the_name(database: Any) -> None:
    made: list[tuple[Any, str]] = []

    def factory(connection: Any, name: str) -> Any:
        made.append((connection.db(), name))
        return BroadcastQueue()

    QueueInstaller(queues=("all",), factory=factory)(DatabaseOpened(database))

    assert made == [(database, "all")]
    assert installed_queues(database) == {"all": BroadcastQueue}


def test_queues_that_are_there_stay(database: Any, connection: Any) -> None:
    queues = connection.root()[KEY] = Queues()
    queues["own"] = BroadcastQueue()
    connection.transaction_manager.commit()

    for _ in range(2):
        QueueInstaller(queues=("", "own"))(DatabaseOpened(database))

    assert installed_queues(database) == {"": Queue, "own": BroadcastQueue}


def test_of_two_that_install_at_once_both_succeed(database: Any) -> None:
    meeting, visits = threading.Barrier(2), []

    def factory(connection: Any, name: str) -> Any:
        visits.append(name)
        if len(visits) <= 2:
            meeting.wait(10)
        return Queue()

    threads = [
        threading.Thread(
            target=QueueInstaller(factory=factory), args=[DatabaseOpened(database)], daemon=True
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert not any(thread.is_alive() for thread in threads)
    assert installed_queues(database) == {"": Queue}


@pytest.fixture
def databases() -> Iterator[dict[str, Any]]:
    """A multi-database of '' and 'async'."""
    databases: dict[str, Any] = {}
    DB(DemoStorage(), databases=databases, database_name="")
    DB(DemoStorage(), databases=databases, database_name="async")
    yield databases
    for db in databases.values():
        db.close()


def test_queues_can_lie_in_another_database(databases: Any) -> None:
    for _ in range(2):
        subscribers.multidb_queue_installer(DatabaseOpened(databases[""]))

    with databases[""].transaction() as connection:
        queues = connection.root()[KEY]
        assert queues._p_jar.db() is queues[""]._p_jar.db() is databases["async"]
        assert connection.get_connection("async").root()[KEY] is queues


def test_queues_that_the_other_database_has_are_mounted(databases: Any) -> None:
    with databases["async"].transaction() as connection:
        queues = connection.root()[KEY] = Queues()
        queues["old"] = Queue()

    subscribers.multidb_queue_installer(DatabaseOpened(databases[""]))

    assert set(installed_queues(databases[""])) == {"", "old"}


def test_a_database_that_is_not_there_is_named(database: Any) -> None:
    with pytest.raises(ValueError, match=r"no database 'async' .* has \['unnamed'\]"):
        subscribers.multidb_queue_installer(DatabaseOpened(database))


# Handlers


@pytest.mark.parametrize(
    ("handler", "event"),
    [
        (subscribers.queue_installer, IDatabaseOpenedEvent),
        (subscribers.multidb_queue_installer, IDatabaseOpenedEvent),
        (subscribers.threaded_dispatcher_installer, IDatabaseOpenedEvent),
        (subscribers.twisted_dispatcher_installer, IDatabaseOpenedEvent),
        (subscribers.agent_installer, IDispatcherActivated),
    ],
)
def test_installers_say_what_they_handle(handler: Any, event: Any) -> None:
    assert list(zope.component.adaptedBy(handler)) == [event]


@pytest.fixture
def ended(database: Any) -> Iterator[None]:
    """Dispatchers of a test are ended before its database is closed."""
    yield
    for each in dispatcher.registry.every():
        tear_down_dispatcher(each)


@pytest.mark.usefixtures("ended")
def test_registered_as_handlers_they_start_everything_when_a_database_is_opened(
    database: Any, connection: Any
) -> None:
    configure.base()
    zope.component.provideHandler(subscribers.queue_installer)
    zope.component.provideHandler(subscribers.threaded_dispatcher_installer)
    zope.component.provideHandler(subscribers.agent_installer)

    zope.event.notify(DatabaseOpened(database))
    zope.event.notify(DatabaseOpened(database))

    connection.transaction_manager.begin()
    job = connection.root()[KEY][""].put(Job(operator.mul, 6, 7))
    connection.transaction_manager.commit()
    assert wait_for_result(job) == 42


# Dispatchers


@pytest.fixture
def started(database: Any, ended: None) -> Any:
    """A dispatcher in a thread of its own."""
    configure.base()
    subscribers.threaded_dispatcher_installer(DatabaseOpened(database))
    return dispatcher.get()


def test_the_thread_is_a_daemon_and_runs_the_reactor(started: Any) -> None:
    get_poll(started, 0)

    assert started.thread.daemon
    assert started.thread.is_alive()
    assert isinstance(started.reactor, SelectReactor)
    assert started.poll_interval == 5


def test_a_database_that_has_a_dispatcher_is_left_alone(started: Any, database: Any) -> None:
    ThreadedDispatcherInstaller(poll_interval=1)(DatabaseOpened(database))

    assert dispatcher.get() is started
    assert started.poll_interval == 5


def test_another_database_needs_another_uuid(started: Any) -> None:
    other = DB(DemoStorage())
    with pytest.raises(ValueError, match="UUID"):
        subscribers.threaded_dispatcher_installer(DatabaseOpened(other))
    own = uuid.uuid4()

    ThreadedDispatcherInstaller(uuid=own)(DatabaseOpened(other))

    second = dispatcher.get(own)
    get_poll(second, 0)
    assert second is not started
    tear_down_dispatcher(second)
    other.close()


def test_a_stopped_dispatcher_makes_room_for_a_new_one(started: Any, database: Any) -> None:
    get_poll(started, 0)
    started.reactor.callFromThread(started.reactor.stop)
    started.thread.join(10)
    assert not started.activated

    ThreadedDispatcherInstaller(poll_interval=1)(DatabaseOpened(database))

    assert dispatcher.get() is not started
    assert dispatcher.get().poll_interval == 1
    assert get_poll(dispatcher.get(), 0) == {}


@pytest.mark.usefixtures("ended")
def test_the_reactor_is_the_factorys(database: Any) -> None:
    made = []

    def factory() -> Any:
        made.append(SelectReactor())
        return made[0]

    configure.base()
    ThreadedDispatcherInstaller(reactor_factory=factory)(DatabaseOpened(database))

    assert [dispatcher.get().reactor] == made


# Agents


@pytest.fixture
def record() -> Any:
    """The record of a dispatcher in the queue 'video'."""
    queues = Queues()
    queue = queues["video"] = Queue()
    return queue.dispatchers.register(uuid.uuid4())


def test_an_activated_dispatcher_gets_an_agent_that_takes_any_job(record: Any) -> None:
    subscribers.agent_installer(DispatcherActivated(record))

    agent = record["main"]
    assert (agent.size, agent.filter, agent.chooser) == (3, None, None)


def test_an_agent_that_is_there_stays(record: Any) -> None:
    AgentInstaller("main", size=1)(DispatcherActivated(record))
    agent = record["main"]

    AgentInstaller("main", size=2)(DispatcherActivated(record))

    assert record["main"] is agent
    assert agent.size == 1


def test_an_agent_has_what_was_asked_for(record: Any) -> None:
    AgentInstaller("filtering", filter=takes_all, size=4)(DispatcherActivated(record))
    AgentInstaller("choosing", first_of_queue)(DispatcherActivated(record))

    assert IFilterAgent.providedBy(record["filtering"])
    assert (record["filtering"].filter, record["filtering"].size) == (takes_all, 4)
    assert record["choosing"].chooser == first_of_queue


def test_a_chooser_and_a_filter_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="not both"):
        AgentInstaller("main", chooser=first_of_queue, filter=takes_all)


def test_only_the_queues_that_were_named_get_the_agent(record: Any) -> None:
    AgentInstaller("no", queue_names=["audio", ""])(DispatcherActivated(record))
    AgentInstaller("yes", queue_names=["video"])(DispatcherActivated(record))

    assert list(record) == ["yes"]


# Signals, in this process


@pytest.fixture
def handlers() -> Iterator[None]:
    """The handlers of this process, put back afterwards."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_signals_are_seen_to_until_the_dispatcher_is_torn_down(database: Any, ended: None) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    configure.base()

    subscribers.threaded_dispatcher_installer(DatabaseOpened(database))
    started = dispatcher.get()

    ours, previous = zip(*signal_handlers[id(started)].values(), strict=True)
    assert [signal.getsignal(number) for number in SIGNALS] == list(ours)
    assert list(previous) == before
    tear_down_dispatcher(started)
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert signal_handlers == {}


@pytest.mark.usefixtures("handlers", "ended")
def test_outside_of_the_main_thread_signals_are_left_alone(database: Any) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    configure.base()

    thread = threading.Thread(
        target=subscribers.threaded_dispatcher_installer, args=[DatabaseOpened(database)]
    )
    thread.start()
    thread.join(10)

    assert dispatcher.get().activated
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert signal_handlers == {}


@pytest.mark.usefixtures("handlers")
def test_an_ignored_signal_stays_ignored(database: Any, ended: None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure.base()

    subscribers.threaded_dispatcher_installer(DatabaseOpened(database))

    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    assert set(signal_handlers[id(dispatcher.get())]) == {signal.SIGTERM}


@pytest.mark.usefixtures("handlers")
def test_a_handler_that_another_took_the_place_of_stays_his(started: Any) -> None:
    def theirs(number: int, frame: Any) -> None:
        pass

    signal.signal(signal.SIGTERM, theirs)

    restore_signal_handlers(started)

    assert signal.getsignal(signal.SIGTERM) is theirs
    assert id(started) not in signal_handlers


@pytest.mark.usefixtures("handlers")
def test_handlers_are_put_back_in_the_main_thread_only(started: Any) -> None:
    ours = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=restore_signal_handlers, args=[started])
    thread.start()
    thread.join(10)

    assert signal.getsignal(signal.SIGTERM) is ours
    restore_signal_handlers(started)
    assert signal.getsignal(signal.SIGTERM) is not ours


@pytest.mark.usefixtures("handlers")
def test_once_the_dispatcher_has_ended_a_signal_does_at_once_what_it_did_before(
    database: Any, ended: None
) -> None:
    calls: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: calls.append(number))
    previous = signal.getsignal(signal.SIGTERM)
    configure.base()
    subscribers.threaded_dispatcher_installer(DatabaseOpened(database))
    started = dispatcher.get()
    get_poll(started, 0)
    started.reactor.callFromThread(started.reactor.stop)
    started.thread.join(10)

    signal.raise_signal(signal.SIGTERM)

    assert calls == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is previous


@pytest.mark.usefixtures("handlers")
def test_a_signal_that_arrives_is_sent_on_once_the_dispatcher_has_ended(
    database: Any, ended: None
) -> None:
    states: list[Any] = []
    arrived = threading.Event()

    def previous(number: int, frame: Any) -> None:
        states.append((number, started.activated, started.thread.is_alive()))
        arrived.set()

    signal.signal(signal.SIGTERM, previous)
    configure.base()
    subscribers.threaded_dispatcher_installer(DatabaseOpened(database))
    started = dispatcher.get()

    platform.signal_main_thread(signal.SIGTERM)

    assert arrived.wait(20)
    assert states == [(signal.SIGTERM, None, False)]


# Signals, in processes of their own

PROGRAM = """
import signal, sys, threading
import zasync, zasync.configure, zasync.dispatcher, zasync.testing
from ZODB.DB import DB
from ZODB.FileStorage import FileStorage
from zasync.interfaces import IQueue
from zasync.job import Job

gate, running = threading.Event(), threading.Event()

def say(text):
    print(text, flush=True)

def wait_at_the_gate(seconds):
    running.set()
    gate.wait(seconds)
    return "ended by itself"

def put(*args):
    with db.transaction() as connection:
        IQueue(connection).put(Job(*args))

{before}
db = DB(FileStorage(sys.argv[1]))
zasync.configure.start(db)
dispatcher = zasync.dispatcher.get()
zasync.testing.get_poll(dispatcher, 0)
{after}
say("ready")
try:
    {rest}
except KeyboardInterrupt:
    say("interrupted")
    say(f"activated: {{dispatcher.activated}}")
    db.close()
"""


class Program:
    """A process that runs PROGRAM on a database in a file."""

    def __init__(self, path: Path, before: str, after: str, rest: str) -> None:
        self.path = path
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                PROGRAM.format(before=before, after=after, rest=rest),
                str(path),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def wait_until_ready(self) -> None:
        while (line := self.line()) != "ready":
            assert line, self.process.communicate(timeout=SECONDS)

    def end(self) -> tuple[int, list[str]]:
        """The status with which the process ends by itself, and what it has still printed."""
        output, errors = self.process.communicate(timeout=SECONDS)
        self.errors = errors
        return self.process.returncode, output.splitlines()

    def records(self) -> list[tuple[Any, list[str]]]:
        """Of each dispatcher: whether it is marked as working, and its agents' jobs."""
        db = DB(FileStorage(str(self.path)))
        try:
            with db.transaction() as connection:
                return [
                    (record.activated, [repr(job) for agent in record.values() for job in agent])
                    for record in connection.root()[KEY][""].dispatchers.values()
                ]
        finally:
            db.close()


@contextmanager
def program(
    path: Path, *, before: str = "", after: str = "", rest: str = "threading.Event().wait(60)"
) -> Iterator[Program]:
    """The process, ready; killed at the end if it is still there."""
    running = Program(path, before, after, rest)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.process.kill()
        running.process.communicate(timeout=SECONDS)


@pytest.mark.process
def test_sigterm_deactivates_and_then_ends_the_process_as_ever(tmp_path: Path) -> None:
    with program(tmp_path / "Data.fs") as running:
        running.process.send_signal(signal.SIGTERM)

        status, _ = running.end()

    assert status == -signal.SIGTERM
    assert running.records() == [(None, [])]


@pytest.mark.process
def test_sigint_deactivates_and_then_interrupts_the_main_thread(tmp_path: Path) -> None:
    with program(tmp_path / "Data.fs") as running:
        running.process.send_signal(signal.SIGINT)

        status, lines = running.end()

    assert (status, lines) == (0, ["interrupted", "activated: None"])
    assert running.records() == [(None, [])]


@pytest.mark.process
def test_a_running_job_may_end_before_the_process_does(tmp_path: Path) -> None:
    after = "put(wait_at_the_gate, 1); running.wait(20)"
    with program(tmp_path / "Data.fs", after=after) as running:
        running.process.send_signal(signal.SIGTERM)

        status, _ = running.end()

    assert status == -signal.SIGTERM
    assert running.records() == [(None, [])]
    db = DB(FileStorage(str(running.path)))
    with db.transaction() as connection:
        queue = connection.root()[KEY][""]
        [agent] = [agent for each in queue.dispatchers.values() for agent in each.values()]
        assert len(queue) == 0
        assert agent.completed.first().result == "ended by itself"
    db.close()


@pytest.mark.process
def test_a_second_signal_does_not_wait_for_running_jobs(tmp_path: Path) -> None:
    after = "put(wait_at_the_gate, 60); running.wait(20)"
    rest = """
    while dispatcher.activated:
        threading.Event().wait(0.01)
    say("ending")
    threading.Event().wait(60)
"""
    with program(tmp_path / "Data.fs", after=after, rest=rest.strip()) as running:
        running.process.send_signal(signal.SIGINT)
        assert running.line() == "ending"
        running.process.send_signal(signal.SIGTERM)

        status, _ = running.end()

    assert status == -signal.SIGTERM


@pytest.mark.process
def test_the_handler_of_the_application_comes_after_the_deactivation(tmp_path: Path) -> None:
    before = """
def theirs(number, frame):
    say(f"theirs: {number}, activated: {dispatcher.activated}")
    sys.exit(7)
signal.signal(signal.SIGTERM, theirs)
"""
    with program(tmp_path / "Data.fs", before=before) as running:
        running.process.send_signal(signal.SIGTERM)

        status, lines = running.end()

    assert (status, lines) == (7, [f"theirs: {int(signal.SIGTERM)}, activated: None"])
    assert running.records() == [(None, [])]


@pytest.mark.process
def test_an_application_may_chain_our_handler_behind_its_own(tmp_path: Path) -> None:
    after = """
ours = signal.getsignal(signal.SIGTERM)
def theirs(number, frame):
    say("theirs")
    ours(number, frame)
signal.signal(signal.SIGTERM, theirs)
"""
    with program(tmp_path / "Data.fs", after=after) as running:
        running.process.send_signal(signal.SIGTERM)

        status, lines = running.end()

    assert status == -signal.SIGTERM
    assert set(lines) == {"theirs"}
    assert running.records() == [(None, [])]


@pytest.mark.process
def test_two_dispatchers_end_one_after_the_other(tmp_path: Path) -> None:
    after = f"""
import uuid
second = DB(FileStorage({str(tmp_path / "second.fs")!r}))
own = uuid.uuid4()
opened = zasync.interfaces.DatabaseOpened(second)
zasync.subscribers.queue_installer(opened)
zasync.subscribers.ThreadedDispatcherInstaller(uuid=own)(opened)
zasync.testing.get_poll(zasync.dispatcher.get(own), 0)
"""
    with program(tmp_path / "first.fs", after=after) as running:
        running.process.send_signal(signal.SIGTERM)

        status, _ = running.end()

    assert status == -signal.SIGTERM
    assert running.records() == [(None, [])]
    running.path = tmp_path / "second.fs"
    assert running.records() == [(None, [])]


@pytest.mark.process
@pytest.mark.parametrize("after", ["", "put(wait_at_the_gate, 60); running.wait(20)"])
def test_the_main_thread_may_end_and_so_does_the_process(tmp_path: Path, after: str) -> None:
    with program(tmp_path / "Data.fs", after=after, rest="pass") as running:
        status, lines = running.end()

    assert (status, lines) == (0, [])
    assert "Traceback" not in running.errors


@pytest.mark.process
def test_a_manager_of_transactions_is_not_in_the_way_of_a_signal(tmp_path: Path) -> None:
    """The main thread commits on and on, holding the storage's lock, while it is told to end."""
    rest = """
    while True:
        with db.transaction() as connection:
            connection.root()["count"] = connection.root().get("count", 0) + 1
"""
    with program(tmp_path / "Data.fs", rest=rest.strip()) as running:
        running.process.send_signal(signal.SIGTERM)

        status, _ = running.end()

    assert status == -signal.SIGTERM
    assert running.records() == [(None, [])]
