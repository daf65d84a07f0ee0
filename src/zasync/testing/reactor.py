# SPDX-License-Identifier: ZPL-2.1
"""The testing reactor: timers on virtual time, run when the test says so, in the test's thread.

Between two moments it gives threads (those of jobs, above all) a short while to come to rest, so
that a job that does its work and ends has ended when `time_flies` returns.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import weakref
from collections.abc import Callable
from typing import Any

import zope.interface
from ZODB.utils import z64

from zasync.dispatcher import registry
from zasync.foundation import clock
from zasync.foundation.clock import Clock
from zasync.interfaces import COMPLETED, IReactor, TimeoutError
from zasync.testing import virtual_clock
from zasync.testing.state import describe_job
from zasync.testing.virtual_clock import VirtualClock, micros

PATIENCE = 0.1  # real seconds that threads get to come to rest before time moves on
LONGER_PATIENCE = 0.5  # real seconds that the jobs that are waited for get in each attempt
TICK = 0.005  # real seconds between two looks
NEWS = 0.02  # real seconds for a job that has ended to say so
ENDLESS = 10_000  # calls at one moment, after which there will be no end
POLL_INTERVAL = 5.0  # seconds, where no dispatcher says otherwise

_real = Clock()
_running: weakref.WeakSet[Reactor] = weakref.WeakSet()


class Call:
    """Something to do at a moment.  What `callLater` answers."""

    def __init__(
        self, due: int, number: int, function: Callable[..., Any], args: Any, kw: Any
    ) -> None:
        self.due = due
        self._number = number
        self._function: Callable[..., Any] | None = function
        self._args = args
        self._kw = kw

    def __lt__(self, other: Call) -> bool:
        return (self.due, self._number) < (other.due, other._number)

    def active(self) -> bool:
        """Whether it is still to be done."""
        return self._function is not None

    def cancel(self) -> None:
        """Do not do it.  ValueError if it is done, or cancelled, already."""
        if self._function is None:
            raise ValueError("this call is done or cancelled already")
        self._function = None

    def do(self) -> None:
        function, self._function = self._function, None
        if function is not None:
            function(*self._args, **self._kw)


@zope.interface.implementer(IReactor)
class Reactor:
    """An IReactor on virtual time.

    `start` puts a `VirtualClock` in force, unless there is one; `stop` takes it out again.  All
    calls are done in order of their times, in the thread that calls `start`, `time_flies` and
    the like; an error of theirs reaches that thread.
    """

    def __init__(self) -> None:
        self.running = False
        self._calls: list[Call] = []
        self._numbers = itertools.count()
        self._when_running: list[Call] = []
        self._at_shutdown: list[Call] = []
        self._threads: list[threading.Thread] = []
        self._outlasted: set[Any] = set()  # what was waited for long enough
        self._owns_clock = False
        self._news = threading.Condition()
        self._turn = threading.RLock()  # one thread moves time

    # What a dispatcher asks for

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **kw: Any) -> None:
        """Have `callable` called when time is next moved, if only by nothing."""
        self._add(0, callable, args, kw)

    def callLater(
        self, seconds: float, callable: Callable[..., Any], *args: Any, **kw: Any
    ) -> Call:
        """Have `callable` called once time has moved by `seconds`."""
        return self._add(micros(seconds), callable, args, kw)

    def callInThread(self, callable: Callable[..., Any], *args: Any, **kw: Any) -> None:
        """Have `callable` called in a thread of its own, at once."""
        thread = threading.Thread(
            target=callable, args=args, kwargs=kw, name="zasync testing", daemon=True
        )
        self._threads = [*(each for each in self._threads if each.is_alive()), thread]
        thread.start()

    def callWhenRunning(self, callable: Callable[..., Any], *args: Any, **kw: Any) -> None:
        """Have `callable` called by `start`; at once if that has been called."""
        if self.running:
            callable(*args, **kw)
        else:
            self._when_running.append(Call(0, 0, callable, args, kw))

    def addSystemEventTrigger(
        self, phase: str, event: str, callable: Callable[..., Any], *args: Any, **kw: Any
    ) -> None:
        """Have `callable` called by `stop`."""
        if (phase, event) != ("before", "shutdown"):
            raise ValueError(f"only 'before', 'shutdown' is known here, not {phase!r}, {event!r}")
        self._at_shutdown.append(Call(0, 0, callable, args, kw))

    def _add(self, delay: int, function: Callable[..., Any], args: Any, kw: Any) -> Call:
        with self._news:
            # A virtual clock goes on from where the real one was, so this holds before `start`.
            due = micros(clock.monotonic()) + delay
            call = Call(due, next(self._numbers), function, args, kw)
            heapq.heappush(self._calls, call)
            self._news.notify_all()
        return call

    # Life

    def start(self) -> None:
        """Begin: do what waits for that, and what is due.  RuntimeError if it runs."""
        if self.running:
            raise RuntimeError("the reactor is running already")
        self._owns_clock = not isinstance(clock.current(), VirtualClock)
        virtual_clock.current()
        self.running = True
        _running.add(self)
        waiting, self._when_running = self._when_running, []
        with self._turn:
            for call in waiting:
                call.do()
            self._do_due()

    def stop(self) -> None:
        """End: do what is to be done before that, and forget the rest.  May be called twice."""
        if not self.running:
            return
        with self._turn:
            triggers, self._at_shutdown = self._at_shutdown, []
            try:
                for call in triggers:
                    call.do()
            finally:
                self._end()

    def _end(self) -> None:
        self.running = False
        _running.discard(self)
        self._calls.clear()
        for thread in self._threads:
            thread.join(3)
        if self._owns_clock:
            virtual_clock.end()

    # Time

    def time_flies(self, seconds: float) -> int:
        """Let `seconds` go by, doing what comes due at its time; answers how many calls that was.

        RuntimeError if the reactor does not run.
        """
        with self._turn:
            virtual = self._clock()
            end = virtual.elapsed + micros(seconds)
            done = self._do_due()
            while (moment := self._next_moment(virtual)) is not None and moment <= end:
                virtual.advance_to(moment)
                done += self._do_due()
            virtual.advance_to(end)
            return done + self._do_due()

    def time_passes(self) -> bool:
        """Do what is due by now, without moving time; answers whether there was anything."""
        with self._turn:
            self._clock()
            return bool(self._do_due())

    def wait_for(self, *jobs: Any, attempts: int = 10) -> None:
        """Let time fly until all `jobs` are COMPLETED, by a poll interval at a time.

        Begins transactions in the connections of the jobs, so commit before.  TimeoutError,
        with the state of the jobs that are not completed, after so many `attempts`.
        """
        self.time_passes()
        for _ in range(attempts):
            if not self._unfinished(jobs):
                return
            self.time_flies(self._interval())
            self._give_time_to(jobs)
        if left := self._unfinished(jobs):
            states = "\n".join(describe_job(job) for job in left)
            raise TimeoutError(
                f"{len(left)} of {len(jobs)} jobs not completed in {attempts} attempts:\n{states}"
            )

    def _clock(self) -> VirtualClock:
        if not self.running:
            raise RuntimeError("the reactor does not run: start() it first")
        return virtual_clock.current()

    def _next_moment(self, virtual: VirtualClock) -> int | None:
        """When the next call is due, or a thread that waits for time wants to go on."""
        with self._news:
            while self._calls and not self._calls[0].active():
                heapq.heappop(self._calls)
            moments = [self._calls[0].due] if self._calls else []
        waking = virtual.next_waking()
        return min([*moments, *([] if waking is None else [waking])], default=None)

    def _do_due(self) -> int:
        """Do all that is due, and what comes of it at once."""
        for done in range(ENDLESS):
            self._let_threads_work()
            call = self._next_due()
            if call is None:
                return done
            call.do()
        raise RuntimeError(f"{ENDLESS} calls at one moment: something calls itself without delay")

    def _next_due(self) -> Call | None:
        now = micros(clock.monotonic())
        with self._news:
            while self._calls and self._calls[0].due <= now:
                call = heapq.heappop(self._calls)
                if call.active():
                    return call
        return None

    # Threads

    def _dispatchers(self) -> list[Any]:
        return [each for each in registry.every() if each._reactor is self]

    def _interval(self) -> float:
        intervals = [each.poll_interval for each in self._dispatchers()]
        return max(intervals, default=POLL_INTERVAL)

    def _at_work(self) -> set[Any]:
        """The jobs that threads perform, or will, and the threads of ours that have not ended."""
        pools = [pool for each in self._dispatchers() for pool in each.pools()]
        jobs = [tracked.key for pool in pools for tracked in pool.busy]
        return {*jobs, *(thread for thread in self._threads if thread.is_alive())}

    def _let_threads_work(self) -> None:
        """Wait until no thread is at work any more, other than those that we know to take long."""
        before = at_work = self._at_work()
        self._outlasted &= at_work
        deadline = _real.monotonic() + PATIENCE
        while len(at_work - self._outlasted) > virtual_clock.current().asleep:
            if _real.monotonic() > deadline:
                self._outlasted |= at_work
                return
            self._wait_for_news(TICK)
            at_work = self._at_work()
        if before - at_work and self._next_moment(virtual_clock.current()) is not None:
            self._wait_for_hint()

    def _wait_for_hint(self) -> None:
        """A job that has ended tells its dispatcher so, a moment after it can be seen."""
        with self._news:
            now = micros(clock.monotonic())
            if not any(call.due <= now for call in self._calls):
                self._news.wait(NEWS)

    def _wait_for_news(self, seconds: float) -> None:
        with self._news:
            self._news.wait(seconds)

    def _unfinished(self, jobs: Any) -> list[Any]:
        begin_for(*jobs)
        return [job for job in jobs if job.status != COMPLETED]

    def _give_time_to(self, jobs: Any) -> None:
        """Let jobs that are at work go on for a while of real time."""
        deadline = _real.monotonic() + LONGER_PATIENCE
        while self._at_work() and self._unfinished(jobs) and _real.monotonic() < deadline:
            self._wait_for_news(TICK)
            self.time_passes()


def begin_for(*jobs: Any) -> None:
    """Begin transactions in which the present state of `jobs` is seen.

    ValueError for a job that was never committed, which that would throw away.
    """
    managers = []
    for job in jobs:
        # A ghost (_p_changed is None) was loaded, so it is committed whatever its serial is.
        if job._p_jar is None or (job._p_changed is not None and job._p_serial == z64):
            raise ValueError(f"{job!r} is not committed; commit before you wait for it")
        if job._p_jar.transaction_manager not in managers:
            managers.append(job._p_jar.transaction_manager)
    for manager in managers:
        manager.begin()


def running_reactors() -> list[Reactor]:
    """The testing reactors that run now."""
    return list(_running)
