# SPDX-License-Identifier: ZPL-2.1
"""What zasync offers to the tests of applications: virtual time, a reactor on it, waits, logs."""

from __future__ import annotations

import io
import itertools
import logging
import operator
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from zope.interface.verify import verifyObject

import zasync
from zasync import configure, ftesting, subscribers, testing
from zasync.dispatcher import Dispatcher, registry
from zasync.failure import Failure
from zasync.foundation import clock
from zasync.interfaces import (
    ACTIVE,
    COMPLETED,
    KEY,
    PENDING,
    DatabaseOpened,
    IQueue,
    IReactor,
    TimeoutError,
)
from zasync.job import Job
from zasync.queue import DispatcherAgents
from zasync.testing import Reactor, VirtualClock

gate = threading.Event()
reached = threading.Event()


def wait_at_the_gate() -> str:
    reached.set()
    assert gate.wait(20)
    return "through"


def take_a_while() -> str:
    """Real time goes by in which nothing can be seen from outside."""
    threading.Event().wait(0.3)
    return "done"


def await_a_sign() -> Any:
    return zasync.local.getLiveAnnotation("sign", timeout=20, poll=4)


def leave_a_note() -> None:
    zasync.local.setLiveAnnotation("note", "half way")


def fail() -> None:
    raise KeyError("no such thing")


@pytest.fixture(autouse=True)
def gates() -> Iterator[None]:
    """Gates that are shut, and are opened in the end whatever happens."""
    gate.clear()
    reached.clear()
    yield
    gate.set()


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    """A testing reactor that runs."""
    reactor = Reactor()
    reactor.start()
    yield reactor
    reactor.stop()


@pytest.fixture
def dispatcher(connection: Any) -> Iterator[Any]:
    """A dispatcher with a testing reactor and an agent 'main' on the queue ''."""
    yield ftesting.setUp(connection)
    gate.set()
    ftesting.tearDown()


@pytest.fixture
def put(connection: Any) -> Callable[..., Any]:
    """Puts a job in the queue '' and commits; answers the job."""

    def put(callable: Any, *args: Any, **options: Any) -> Any:
        job = IQueue(connection).put(Job(callable, *args), **options)
        connection.transaction_manager.commit()
        return job

    return put


# The virtual clock


def test_a_virtual_clock_stands_still_and_goes_on_from_the_present() -> None:
    before = clock.now()

    virtual = testing.virtual_clock.current()

    first, second = clock.now(), clock.now()
    assert clock.current() is virtual
    assert first == second >= before
    assert first - before < timedelta(minutes=1)


def test_wall_and_monotonic_time_move_together() -> None:
    virtual = VirtualClock(datetime(2030, 1, 1, tzinfo=UTC))
    seconds = virtual.monotonic()

    virtual.advance(90.5)

    assert virtual.now() == datetime(2030, 1, 1, 0, 1, 30, 500000, tzinfo=UTC)
    assert virtual.monotonic() - seconds == pytest.approx(90.5)


def test_set_back_the_wall_clock_goes_alone() -> None:
    virtual = VirtualClock(datetime(2030, 1, 1, tzinfo=UTC))
    seconds = virtual.monotonic()

    virtual.set_now(datetime(2029, 1, 1, tzinfo=UTC))

    assert virtual.now() == datetime(2029, 1, 1, tzinfo=UTC)
    assert virtual.monotonic() == seconds


def test_the_same_seed_gives_the_same_uuids_and_tokens() -> None:
    one, other = VirtualClock(seed=7), VirtualClock(seed=7)

    assert [one.uuid4(), one.token()] == [other.uuid4(), other.token()]


def test_two_clocks_of_one_test_give_different_tokens() -> None:
    assert VirtualClock().token() != VirtualClock().token()


def test_a_thread_that_waits_sleeps_until_time_has_moved() -> None:
    virtual = VirtualClock()
    woken = threading.Event()

    def sleep() -> None:
        virtual.wait(threading.Event(), 10)
        woken.set()

    thread = threading.Thread(target=sleep)
    thread.start()
    until(lambda: virtual.asleep)
    virtual.advance(9.9)
    assert not woken.wait(0.05)
    virtual.advance(0.1)

    assert woken.wait(5)
    thread.join(5)


def test_a_signal_cuts_a_wait_short() -> None:
    virtual, signal, answers = VirtualClock(), threading.Event(), []
    thread = threading.Thread(target=lambda: answers.append(virtual.wait(signal, 10)))
    thread.start()

    signal.set()

    thread.join(5)
    assert answers == [True]


def test_whoever_moves_time_moves_it_by_waiting() -> None:
    virtual = VirtualClock()
    seconds = virtual.monotonic()

    assert virtual.wait(threading.Event(), 3600) is False

    assert virtual.monotonic() - seconds == pytest.approx(3600)


def test_a_wait_without_end_is_for_the_signal() -> None:
    signal = threading.Event()
    signal.set()

    assert VirtualClock().wait(signal, None) is True


def test_nobody_waits_for_a_clock_that_is_out_of_force() -> None:
    virtual = testing.virtual_clock.current()
    thread = threading.Thread(target=lambda: virtual.wait(threading.Event(), 10))
    thread.start()
    until(lambda: virtual.asleep)

    testing.tearDownDatetime()

    thread.join(5)
    assert not thread.is_alive()


def test_set_up_datetime_begins_at_the_same_moment_with_the_same_chance_each_time() -> None:
    seen = []
    for _ in range(2):
        testing.setUpDatetime()
        seen.append((clock.now(), clock.current().uuid4()))
        testing.tearDownDatetime()

    assert seen[0] == seen[1]
    assert seen[0][0] == testing.virtual_clock.START


def test_set_up_datetime_twice_and_tear_down_once_lead_back_to_real_time() -> None:
    real = clock.current()

    testing.setUpDatetime(object())
    testing.setUpDatetime(object())
    testing.tearDownDatetime(object())

    assert clock.current() is real


def test_set_now_makes_time_stand_still_at_the_moment() -> None:
    moment = datetime(2031, 5, 6, 7, 8, tzinfo=UTC)

    testing.set_now(moment)

    assert clock.now() == moment


def test_set_now_without_a_moment_is_the_real_present() -> None:
    real = clock.current()
    testing.set_now(datetime(2031, 5, 6, tzinfo=UTC))

    testing.set_now()

    assert abs(clock.now() - real.now()) < timedelta(minutes=1)


def test_set_now_wants_to_know_the_time_zone() -> None:
    with pytest.raises(ValueError, match="timezone-aware"):
        testing.set_now(datetime(2031, 5, 6))


# The reactor


def until(predicate: Callable[[], Any]) -> None:
    for _ in range(1000):
        if predicate():
            return
        threading.Event().wait(0.005)
    raise AssertionError("waited in vain")


def test_the_reactor_is_what_a_dispatcher_asks_for() -> None:
    assert verifyObject(IReactor, Reactor())


def test_calls_are_done_in_the_order_of_their_times_each_at_its_time(reactor: Reactor) -> None:
    start, seen = clock.now(), []

    def note(name: str) -> None:
        seen.append((name, (clock.now() - start).total_seconds()))

    for seconds, name in [(3, "c"), (1, "a"), (3, "d"), (2.5, "b")]:
        reactor.callLater(seconds, note, name)

    assert reactor.time_flies(3) == 4

    assert seen == [("a", 1), ("b", 2.5), ("c", 3), ("d", 3)]
    assert clock.now() - start == timedelta(seconds=3)


def test_what_is_due_later_waits_for_later(reactor: Reactor) -> None:
    seen: list[str] = []
    reactor.callLater(5, seen.append, "late")

    reactor.time_flies(4.999)
    assert seen == []
    reactor.time_flies(0.001)

    assert seen == ["late"]


def test_a_call_that_a_call_asks_for_is_done_within_the_same_flight(reactor: Reactor) -> None:
    seen: list[Any] = []

    def again(left: int) -> None:
        seen.append(left)
        if left:
            reactor.callLater(10, again, left - 1)

    reactor.callLater(10, again, 3)
    reactor.time_flies(35)

    assert seen == [3, 2, 1]


def test_a_cancelled_call_is_not_done(reactor: Reactor) -> None:
    seen: list[str] = []
    call = reactor.callLater(1, seen.append, "cancelled")
    assert call.active()

    call.cancel()

    assert not call.active()
    assert reactor.time_flies(2) == 0
    assert seen == []
    with pytest.raises(ValueError, match="cancelled"):
        call.cancel()


def test_time_passes_does_what_is_due_without_moving_time(reactor: Reactor) -> None:
    seen: list[str] = []
    reactor.callFromThread(seen.append, "now")
    reactor.callLater(0.1, seen.append, "later")
    before = clock.now()

    assert reactor.time_passes() is True
    assert reactor.time_passes() is False

    assert seen == ["now"]
    assert clock.now() == before


def test_what_another_thread_asks_for_is_done_in_the_thread_that_moves_time(
    reactor: Reactor,
) -> None:
    threads: list[Any] = []
    other = threading.Thread(
        target=reactor.callFromThread, args=[lambda: threads.append(threading.get_ident())]
    )
    other.start()
    other.join(5)
    assert threads == []

    reactor.time_passes()

    assert threads == [threading.get_ident()]


def test_a_call_in_a_thread_has_ended_before_time_moves(reactor: Reactor) -> None:
    seen: list[Any] = []

    def work() -> None:
        threading.Event().wait(0.02)
        seen.append(clock.now())

    before = clock.now()
    reactor.callLater(1, reactor.callInThread, work)
    reactor.time_flies(60)

    assert seen == [before + timedelta(seconds=1)]


def test_a_thread_that_waits_for_time_goes_on_at_its_time(reactor: Reactor) -> None:
    start, seen = clock.now(), []

    def work() -> None:
        clock.wait(None, 7)
        seen.append(clock.now() - start)

    reactor.callInThread(work)
    reactor.time_flies(60)

    assert seen == [timedelta(seconds=7)]


def test_what_waits_for_the_start_is_done_then_and_later_at_once() -> None:
    reactor, seen = Reactor(), []
    reactor.callWhenRunning(seen.append, "before")
    assert seen == []

    reactor.start()
    reactor.callWhenRunning(seen.append, "after")

    assert seen == ["before", "after"]
    reactor.stop()


def test_the_end_does_what_was_asked_for_it_once_and_forgets_timers() -> None:
    real, reactor, seen = clock.current(), Reactor(), []
    reactor.addSystemEventTrigger("before", "shutdown", seen.append, "end")
    reactor.start()
    reactor.callLater(1, seen.append, "timer")

    reactor.stop()
    reactor.stop()
    reactor.start()
    reactor.time_flies(2)
    reactor.stop()

    assert seen == ["end"]
    assert clock.current() is real


def test_an_end_that_fails_is_an_end_all_the_same() -> None:
    real, reactor = clock.current(), Reactor()
    reactor.addSystemEventTrigger("before", "shutdown", fail)
    reactor.start()

    with pytest.raises(KeyError):
        reactor.stop()

    assert not reactor.running
    assert clock.current() is real


def test_the_reactor_leaves_a_virtual_clock_in_force_that_was_there_before() -> None:
    testing.setUpDatetime()
    virtual, reactor = clock.current(), Reactor()

    reactor.start()
    reactor.time_flies(60)
    reactor.stop()

    assert clock.current() is virtual
    assert clock.now() == testing.virtual_clock.START + timedelta(minutes=1)


def test_only_the_one_trigger_is_known(reactor: Reactor) -> None:
    with pytest.raises(ValueError, match="'after'"):
        reactor.addSystemEventTrigger("after", "startup", print)


def test_time_does_not_fly_before_the_start() -> None:
    with pytest.raises(RuntimeError, match=r"start\(\)"):
        Reactor().time_flies(1)


def test_a_start_is_needed_only_once(reactor: Reactor) -> None:
    with pytest.raises(RuntimeError, match="already"):
        reactor.start()


def test_an_error_in_a_call_reaches_the_test(reactor: Reactor) -> None:
    reactor.callLater(1, fail)

    with pytest.raises(KeyError):
        reactor.time_flies(1)


def test_calls_without_end_at_one_moment_are_an_error(reactor: Reactor) -> None:
    def again() -> None:
        reactor.callLater(0, again)

    again()

    with pytest.raises(RuntimeError, match="without delay"):
        reactor.time_passes()


# A dispatcher on the testing reactor


def test_nothing_happens_until_time_moves(dispatcher: Any, put: Any) -> None:
    job = put(operator.add, 1, 2)
    assert job.status == PENDING

    dispatcher.reactor.time_passes()

    job._p_jar.transaction_manager.begin()
    assert (job.status, job.result) == (COMPLETED, 3)


def test_jobs_with_their_callbacks_are_waited_for(dispatcher: Any, put: Any) -> None:
    job = put(operator.add, 1, 2)
    callback = job.addCallback(operator.neg)
    job._p_jar.transaction_manager.commit()
    others = [put(operator.mul, number, 2) for number in range(5)]

    dispatcher.reactor.wait_for(job, *others)

    assert callback.result == -3
    assert [other.result for other in others] == [0, 2, 4, 6, 8]


def test_a_job_for_later_waits_for_its_time(dispatcher: Any, put: Any) -> None:
    begin_after = clock.now() + timedelta(hours=2)
    job = put(operator.add, 1, 2, begin_after=begin_after)

    dispatcher.reactor.time_flies(7199)
    job._p_jar.transaction_manager.begin()
    assert job.status == PENDING
    dispatcher.reactor.time_flies(1)

    job._p_jar.transaction_manager.begin()
    assert job.active_start == begin_after


def test_a_job_that_takes_real_time_is_waited_for(dispatcher: Any, put: Any) -> None:
    job = put(take_a_while)

    dispatcher.reactor.wait_for(job)

    assert job.result == "done"


def test_a_job_that_does_not_end_does_not_hold_up_time(dispatcher: Any, put: Any) -> None:
    endless = put(wait_at_the_gate)
    testing.wait_for_start(endless)
    real = clock.current().replaced
    began = real.monotonic()

    dispatcher.reactor.time_flies(600)
    job = put(operator.add, 1, 2)
    dispatcher.reactor.wait_for(job)

    assert real.monotonic() - began < 10
    assert endless.status == ACTIVE
    gate.set()
    dispatcher.reactor.wait_for(endless)


def test_a_job_that_waits_in_virtual_time_goes_on_at_its_time(dispatcher: Any, put: Any) -> None:
    start = clock.now()
    job = put(await_a_sign)

    dispatcher.reactor.time_flies(60)

    job._p_jar.transaction_manager.begin()
    assert job.status == COMPLETED
    assert job.active_end - start == timedelta(seconds=20)


def test_a_wait_in_vain_tells_how_the_jobs_stand(dispatcher: Any, put: Any) -> None:
    job = put(operator.add, 1, 2, begin_after=clock.now() + timedelta(days=1))

    with pytest.raises(TimeoutError) as caught:
        dispatcher.reactor.wait_for(job, attempts=2)

    assert "1 of 1 jobs not completed in 2 attempts" in str(caught.value)
    assert "add(1, 2)" in str(caught.value)
    assert "'pending-status'" in str(caught.value)


def test_a_job_that_is_not_committed_is_not_waited_for(dispatcher: Any, connection: Any) -> None:
    job = IQueue(connection).put(operator.add)

    with pytest.raises(ValueError, match="commit"):
        dispatcher.reactor.wait_for(job)
    with pytest.raises(ValueError, match="commit"):
        testing.wait_for_result(job)


def test_the_reactor_drives_a_dispatcher_that_polls_in_threads(
    connection: Any, database: Any, put: Any
) -> None:
    configure.base()
    configure.provide_default_queue()
    subscribers.QueueInstaller()(DatabaseOpened(database))
    reactor = Reactor()
    dispatcher = Dispatcher(database, reactor)
    dispatcher.activate(threaded=True)
    reactor.start()
    testing.get_poll(dispatcher, 0)
    connection.transaction_manager.begin()
    record = connection.root()[KEY][""].dispatchers[dispatcher.UUID]
    record["main"] = zasync.agent.Agent()
    connection.transaction_manager.commit()

    job = put(operator.add, 1, 2)
    reactor.wait_for(job)

    assert job.result == 3
    testing.tear_down_dispatcher(dispatcher)


# Waits

DRIVERS = ["testing reactor", "real reactor"]


@pytest.fixture(params=DRIVERS)
def driven(request: Any, connection: Any, database: Any) -> Iterator[Any]:
    """A dispatcher that polls once in five seconds: on virtual time, or really."""
    if request.param == "testing reactor":
        yield ftesting.setUp(connection)
        gate.set()
        ftesting.tearDown()
        return
    configure.start(database)
    connection.transaction_manager.begin()
    dispatcher = zasync.dispatcher.get()
    yield dispatcher
    gate.set()
    testing.tear_down_dispatcher(dispatcher)


def test_the_first_poll_can_be_waited_for(driven: Any) -> None:
    assert list(testing.get_poll(driven, 0)) == [""]


def test_one_more_poll_can_be_waited_for(driven: Any) -> None:
    testing.get_poll(driven, 0)
    done = driven.polls.total
    driven.poll_interval = 0.05
    driven.wake()

    poll = testing.get_poll(driven)

    assert poll.key > done


def test_a_poll_that_does_not_come_is_described(connection: Any, database: Any) -> None:
    configure.base()
    dispatcher = Dispatcher(database, Reactor())

    with pytest.raises(TimeoutError) as caught:
        testing.get_poll(dispatcher, 0, seconds=0.05)

    assert "more than 0 polls" in str(caught.value)
    assert "STOPPED" in str(caught.value)


def test_a_result_can_be_waited_for(driven: Any, put: Any) -> None:
    assert testing.wait_for_result(put(operator.mul, 6, 7)) == 42


def test_the_failure_of_a_job_is_its_result(driven: Any, put: Any) -> None:
    result = testing.wait_for_result(put(fail))

    assert isinstance(result, Failure)
    assert result.type is KeyError


def test_a_start_can_be_waited_for(driven: Any, put: Any) -> None:
    job = put(wait_at_the_gate)

    testing.wait_for_start(job)

    assert job.status == ACTIVE
    gate.set()
    assert testing.wait_for_result(job) == "through"
    testing.wait_for_start(job)  # it has been, and that counts


def test_an_annotation_can_be_waited_for(driven: Any, put: Any) -> None:
    # Long before the next poll, in which the dispatcher tidies what the job has left.
    assert testing.wait_for_annotation(put(leave_a_note), "note", seconds=2) == "half way"


def test_an_annotation_that_is_not_made_is_described(driven: Any, put: Any) -> None:
    job = put(operator.add, 1, 2)

    with pytest.raises(TimeoutError, match="annotation 'note'"):
        testing.wait_for_annotation(job, "note", seconds=0.2)


def test_a_job_that_does_not_end_is_described_with_what_the_dispatcher_does(
    driven: Any, put: Any
) -> None:
    job = put(wait_at_the_gate)
    testing.wait_for_start(job)

    with pytest.raises(TimeoutError) as caught:
        testing.wait_for_result(job, seconds=0.2)

    words = str(caught.value)
    assert "wait_at_the_gate" in words
    assert "'active-status', held by Agent 'main'" in words
    assert f"{driven.UUID} is RUNNING" in words
    assert f"runs [({job.oid}, " in words


def test_without_a_dispatcher_that_is_said(connection: Any, database: Any, put: Any) -> None:
    subscribers.QueueInstaller()(DatabaseOpened(database))
    connection.transaction_manager.begin()
    configure.provide_default_queue()
    job = put(operator.add, 1, 2)

    with pytest.raises(TimeoutError, match="this process has no dispatcher"):
        testing.wait_for_result(job, seconds=0.05)


def test_a_failed_job_is_described_with_its_error(driven: Any, put: Any) -> None:
    job = put(fail)
    testing.wait_for_result(job)

    assert "failed with" in testing.state.describe_job(job)
    assert "no such thing" in testing.state.describe_job(job)


def test_the_end_of_a_dispatcher_can_be_waited_for(driven: Any, connection: Any) -> None:
    testing.get_poll(driven, 0)
    connection.transaction_manager.begin()
    record = connection.root()[KEY][""].dispatchers[driven.UUID]
    ending = threading.Thread(target=driven.deactivate)
    ending.start()

    testing.wait_for_deactivation(driven)
    testing.wait_for_deactivation(record)

    ending.join(5)
    assert not driven.activated
    assert record.activated is None


def test_an_end_that_does_not_come_is_described(driven: Any, connection: Any) -> None:
    testing.get_poll(driven, 0)
    connection.transaction_manager.begin()
    record = connection.root()[KEY][""].dispatchers[driven.UUID]

    with pytest.raises(TimeoutError, match="RUNNING"):
        testing.wait_for_deactivation(driven, seconds=0.1)
    with pytest.raises(TimeoutError, match="to be deactivated: it was activated at 20"):
        testing.wait_for_deactivation(record, seconds=0.1)


def test_a_death_is_waited_for_in_virtual_time(connection: Any) -> None:
    testing.setUpDatetime()
    record = DispatcherAgents(uuid.UUID(int=1))
    record.activate()

    testing.wait_for_death(record)

    assert record.dead
    assert clock.now() - testing.virtual_clock.START < timedelta(seconds=65)


def test_a_sibling_that_dies_is_seen_while_a_testing_reactor_runs(
    dispatcher: Any, connection: Any
) -> None:
    queue = IQueue(connection)
    sibling = queue.dispatchers.register(uuid.uuid4())
    sibling.activate()
    connection.transaction_manager.commit()

    testing.wait_for_death(sibling)
    dispatcher.reactor.time_flies(60)

    connection.transaction_manager.begin()
    assert sibling.activated is None


def test_a_death_that_does_not_come_is_described(driven: Any, connection: Any) -> None:
    testing.get_poll(driven, 0)
    connection.transaction_manager.begin()
    record = connection.root()[KEY][""].dispatchers[driven.UUID]

    with pytest.raises(TimeoutError, match="its last ping was at 20"):
        testing.wait_for_death(record, seconds=0.1)


# The end


def test_a_dispatcher_is_torn_down_with_its_threads(driven: Any, put: Any) -> None:
    before = {each for each in threading.enumerate() if "zasync" not in each.name}
    testing.wait_for_result(put(operator.add, 1, 2))

    testing.tear_down_dispatcher(driven)

    assert not driven.activated
    assert driven not in registry.every()
    until(lambda: set(threading.enumerate()) <= before)


def test_a_dispatcher_can_be_torn_down_twice(driven: Any) -> None:
    testing.tear_down_dispatcher(driven)
    testing.tear_down_dispatcher(driven)


def test_a_reactor_that_somebody_runs_in_a_thread_is_stopped(database: Any) -> None:
    from twisted.internet.selectreactor import SelectReactor

    configure.base()
    reactor = SelectReactor()
    dispatcher = Dispatcher(database, reactor)
    dispatcher.activate()
    thread = threading.Thread(target=reactor.run, args=[False], daemon=True)
    thread.start()
    testing.get_poll(dispatcher, 0)

    testing.tear_down_dispatcher(dispatcher)

    thread.join(5)
    assert not thread.is_alive()
    assert not dispatcher.activated


def test_a_job_that_does_not_end_is_given_up_with_a_word(dispatcher: Any, put: Any) -> None:
    testing.wait_for_start(put(wait_at_the_gate))
    assert reached.wait(5)

    with pytest.raises(TimeoutError, match="have not ended"):
        testing.tear_down_dispatcher(dispatcher)

    assert not dispatcher.activated
    gate.set()
    until(lambda: not any("zasync" in each.name for each in threading.enumerate()))


# Logs


@pytest.fixture
def logger() -> Iterator[Any]:
    """The logger of zasync, put back as it was."""
    logger = logging.getLogger("zasync")
    handlers, level = list(logger.handlers), logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_logs_of_a_level_are_printed(logger: Any) -> None:
    output = io.StringIO()

    testing.print_logs(output, logging.INFO)
    logging.getLogger("zasync.events").info("seen")
    logging.getLogger("zasync.trace").debug("unseen")

    lines = output.getvalue().splitlines()  # threads of other tests may log here too
    assert "seen" in lines
    assert "unseen" not in lines


def test_logs_go_to_standard_output_until_the_handler_is_taken_away(
    logger: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = testing.print_logs()
    events = logging.getLogger("zasync.events")
    events.critical("seen")
    events.error("not critical")
    logger.removeHandler(handler)
    events.critical("too late")

    assert capsys.readouterr().out == "seen\n"


def test_every_name_of_the_module_is_there() -> None:
    names = itertools.chain(testing.__all__, ["virtual_clock", "state"])

    assert all(hasattr(testing, name) for name in names)
