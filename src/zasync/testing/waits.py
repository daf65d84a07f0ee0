# SPDX-License-Identifier: ZPL-2.1
"""Bounded waits for what dispatchers do, with real reactors or the testing one.

Where a testing reactor runs, they move its time; else they look again and again for at most
`seconds` of real time.  Whoever waits in vain gets a TimeoutError that says how things stand.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from zasync import local
from zasync.dispatcher import registry
from zasync.foundation import clock
from zasync.foundation.clock import Clock
from zasync.interfaces import (
    ACTIVE,
    CALLBACKS,
    COMPLETED,
    IDispatcherAgents,
    TimeoutError,
)
from zasync.subscribers import restore_signal_handlers, stop_reactor
from zasync.testing.reactor import Reactor, begin_for, running_reactors
from zasync.testing.state import describe_dispatcher, describe_dispatchers, describe_job
from zasync.testing.virtual_clock import VirtualClock

STEP = 0.1  # seconds by which virtual time is moved between two looks
LOOK = 0.01  # real seconds between two looks
GRACE = 3.0  # seconds that running jobs get to end in when a dispatcher is torn down
ENDING = 15.0  # real seconds for a thread to end in then

_real = Clock()
_never = threading.Event()
_missing = object()


def get_poll(dispatcher: Any, count: int | None = None, seconds: float = 6) -> Any:
    """Wait until the dispatcher has done more than `count` polls; answers the newest PollInfo.

    `count` None means as many as it has done now (`dispatcher.polls.total`), so one more.
    """
    least = dispatcher.polls.total if count is None else count
    reactor = dispatcher._reactor
    _wait_until(
        lambda: dispatcher.polls.total > least and len(dispatcher.polls) > 0,
        lambda: f"more than {least} polls: {describe_dispatcher(dispatcher)}",
        seconds,
        [reactor] if isinstance(reactor, Reactor) and reactor.running else [],
    )
    return dispatcher.polls.first()


def wait_for_result(job: Any, seconds: float = 6) -> Any:
    """Wait until `job` is COMPLETED; answers its result.  Begins transactions."""
    _wait_for_job(job, lambda: job.status == COMPLETED, "complete", seconds)
    return job.result


def wait_for_start(job: Any, seconds: float = 6) -> None:
    """Wait until `job` is ACTIVE, or was and is further already.  Begins transactions."""
    _wait_for_job(job, lambda: job.status in (ACTIVE, CALLBACKS, COMPLETED), "start", seconds)


def wait_for_annotation(job: Any, name: str, seconds: float = 6) -> Any:
    """Wait until `job.annotations` has `name`; answers what it has.  Begins transactions."""

    def annotated() -> bool:
        return local.getLiveAnnotation(name, _missing, job=job) is not _missing

    _wait_for_job(job, annotated, f"get the annotation {name!r}", seconds)
    begin_for(job)
    return job.annotations[name]


def wait_for_deactivation(dispatcher: Any, seconds: float = 6) -> None:
    """Wait until a dispatcher has stopped, or a DispatcherAgents record is marked so."""
    if IDispatcherAgents.providedBy(dispatcher):
        _wait_for_record(dispatcher, lambda: not dispatcher.activated, "deactivated", seconds)
        return
    _wait_until(
        lambda: not dispatcher.activated and dispatcher._poller is None,
        lambda: f"the deactivation: {describe_dispatcher(dispatcher)}",
        seconds,
    )


def wait_for_death(dispatcher_agents: Any, seconds: float | None = None) -> None:
    """Wait until a DispatcherAgents record is dead by its ping, or has been deactivated as such.

    `seconds` None means its own ping_death_interval, and a little more.
    """
    record = dispatcher_agents
    if seconds is None:
        seconds = record.ping_death_interval.total_seconds() + 2
    _wait_for_record(
        record, lambda: record.dead or not record.activated, "dead", seconds, moves_clock=True
    )


def tear_down_dispatcher(dispatcher: Any) -> None:
    """End `dispatcher`, its reactor and its threads, and forget it.

    Running jobs get a few seconds to end in.  An installed Twisted reactor, which may serve
    others, is left running.  TimeoutError if a thread does not end.
    """
    threads = [
        thread
        for pools in dispatcher.queues.values()
        for pool in pools.values()
        for thread in pool.threads
    ]
    dispatcher.grace = min(dispatcher.grace, GRACE)
    restore_signal_handlers(dispatcher)
    _stop(dispatcher)
    if dispatcher.activated:
        dispatcher.deactivate()
    if dispatcher in registry.every():
        registry.pop(dispatcher.UUID)
    for thread in threads:
        thread.join(GRACE)
    left = [thread.name for thread in threads if thread.is_alive()]
    if left:
        raise TimeoutError(f"threads {left} have not ended: {describe_dispatcher(dispatcher)}")


def _stop(dispatcher: Any) -> None:
    """Stop the reactor, which deactivates the dispatcher."""
    reactor, thread = dispatcher._reactor, dispatcher.thread
    if isinstance(reactor, Reactor):
        reactor.stop()
    elif thread is not None and thread.is_alive():
        reactor.callFromThread(stop_reactor, reactor)
        thread.join(ENDING)
        if thread.is_alive():
            raise TimeoutError(f"the reactor's thread goes on: {describe_dispatcher(dispatcher)}")
    elif getattr(reactor, "running", False) and not _is_installed(reactor):
        reactor.callFromThread(stop_reactor, reactor)
        wait_for_deactivation(dispatcher, ENDING)


def _is_installed(reactor: Any) -> bool:
    return sys.modules.get("twisted.internet.reactor") is reactor


def _wait_for_job(job: Any, question: Callable[[], Any], verb: str, seconds: float) -> None:
    def answer() -> Any:
        begin_for(job)
        return question()

    _wait_until(
        answer,
        lambda: f"the job to {verb}: {describe_job(job)}\n{describe_dispatchers()}",
        seconds,
    )


def _wait_for_record(
    record: Any,
    question: Callable[[], Any],
    state: str,
    seconds: float,
    *,
    moves_clock: bool = False,
) -> None:
    def answer() -> Any:
        if record._p_jar is not None:
            record._p_jar.transaction_manager.begin()
        return question()

    def state_now() -> str:
        return (
            f"dispatcher {record.UUID} to be {state}: it was activated at {record.activated},"
            f" and its last ping was at {record.last_ping.value}\n{describe_dispatchers()}"
        )

    _wait_until(answer, state_now, seconds, moves_clock=moves_clock)


def _wait_until(
    question: Callable[[], Any],
    state: Callable[[], str],
    seconds: float,
    reactors: Iterable[Reactor] | None = None,
    *,
    moves_clock: bool = False,
) -> None:
    """Wait until `question()` is true, moving virtual time by at most `seconds`.

    After that, or where there is nothing to move, look on for at most as much of real time.
    """
    reactors = running_reactors() if reactors is None else list(reactors)
    clock_moves = bool(reactors) or (moves_clock and isinstance(clock.current(), VirtualClock))
    for reactor in reactors:
        reactor.time_passes()
    moved = 0.0
    deadline = _real.monotonic() + seconds
    while not question():
        if clock_moves and moved < seconds:
            _move(reactors)
            moved += STEP
        elif _real.monotonic() < deadline:
            _never.wait(LOOK)
        else:
            raise TimeoutError(f"waited {seconds:g} s in vain for {state()}")


def _move(reactors: list[Reactor]) -> None:
    for reactor in reactors:
        reactor.time_flies(STEP)
    virtual = clock.current()
    if not reactors and isinstance(virtual, VirtualClock):
        virtual.advance(STEP)
