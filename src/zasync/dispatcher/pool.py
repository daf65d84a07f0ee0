# SPDX-License-Identifier: ZPL-2.1
"""The worker threads of one agent, and what each of the agent's jobs is doing in this process."""

from __future__ import annotations

import contextvars
import dataclasses
import functools
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import transaction
import zope.component.hooks

from zasync.dispatcher.grouping import SHORT, VERY_SHORT, Grouping
from zasync.dispatcher.history import Key
from zasync.foundation import attempts, clock
from zasync.foundation.ghosts import Copy
from zasync.foundation.reporting import events
from zasync.job.run import Ending, Outcome

LONGEST_PATIENCE = 0.025  # seconds that a free place waits for others, at the most expected
HORIZON = 0.25  # seconds of work, at the present pace, that are claimed ahead of need
WINDOW = 0.01  # seconds over which the pace is measured
MOST_AHEAD = 250  # jobs that are claimed ahead at the most
BATCHES_AHEAD = 3  # or so many groups, if those are more
RECALL_AFTER = 1.0  # seconds after which a job that no thread has begun is given back
ENOUGH = 10  # threads for what takes a moment; those that are occupied come on top

IN_THE_DATABASE = (Ending.COMPLETED, Ending.CALLBACKS, Ending.WAITING, Ending.RESCHEDULED)
"""Endings that show in the job's record.  Of any other only the process knows until it is tidied;
until then it takes its place, since it looks to others like a job that runs."""

Task = Callable[[Any], None]
"""What a worker thread does with its connection."""

Perform = Callable[["Tracked", Any], None]
"""How a worker thread performs a claimed job with its connection."""


@dataclasses.dataclass
class Tracked:
    """A job of the agent that this process knows of."""

    key: Key
    token: int
    place: int  # its key in the agent
    kind: type  # its class
    running: bool = True  # in a thread, or on its way to one; else suspended
    outcome: Outcome | None = None
    last_chance: bool = False  # is parked if the process dies under it
    looked_at: bool = False  # a poll has seen the outcome, and may have left it to the next one
    limit: float | None = None  # its run_limit in seconds
    timeout: float | None = None  # seconds after which it is ended; None: never, or it was
    since: float | None = None  # when a thread took it (monotonic); None: it waits for one
    thread: int | None = None  # which one is at it
    report_after: float = 0.0  # seconds of running after which it is (again) reported as overdue
    counts: bool = False  # it is begun and takes one of the places of the pool
    hand_over: int = 0  # which one brought it to the pool
    in_stock_since: float = 0.0  # when (monotonic) it was handed to the pool
    recalled: bool = False  # was taken back before any thread had begun it
    code: Any = None  # names its callable, if it may be committed together with others
    info: dict[str, Any] = dataclasses.field(default_factory=dict)  # what `JobInfos` says of it
    copy: Copy | None = None  # of its record, which need not be read then
    deadline: int | None = None  # when it must have begun (microseconds since 1970)

    def taken(self) -> None:
        """This thread is at it now."""
        self.thread = threading.get_ident()
        if self.since is None:
            self.since = clock.monotonic()

    def is_too_late(self) -> bool:
        """Whether it had to begin before now."""
        return self.deadline is not None and self.deadline < clock.now_micros()

    @functools.cached_property
    def since_micros(self) -> int:
        """The same by the wall clock, microseconds since 1970."""
        return clock.now_micros() - round(self.seconds() * 1_000_000)

    def seconds(self) -> float:
        """For how long it has run."""
        return 0.0 if self.since is None else clock.monotonic() - self.since


class Pool:
    """The threads of one agent.  `resize` is called by the polling thread only.

    Jobs that are claimed wait in the *stock* for a thread.  They are begun in the order in which
    they were claimed, and at most `size` are begun and not ended: what is known of a death hangs
    on both (`Agent.may_have_begun`).
    """

    def __init__(
        self, db: Any, queue_name: str, agent_name: str, ended: Callable[[], None]
    ) -> None:
        self.db = db
        self.queue_name = queue_name
        self.agent_name = agent_name
        self.size = 0
        self.batch = 1  # so many jobs may be begun by one thread before any of them has ended
        self.batch_time = 0.05  # seconds
        self._largest_batch = 1  # of the groups that may be under way
        self.grouping = Grouping()
        self.perform: Perform | None = None
        self.stop_signal = threading.Event()
        self.threads: set[threading.Thread] = set()
        self.tracked: dict[Key, Tracked] = {}
        self.ended_signal = threading.Event()  # set when a job ends
        self.queue_is_empty = False  # the last claim found less than it had room for
        self._ended = ended
        self._calls: queue.SimpleQueue[bool] = queue.SimpleQueue()  # True: look for work; else end
        self._tasks: deque[Task] = deque()
        self._stock: deque[Tracked] = deque()
        self._begun = 0  # jobs of the stock that were begun and have no outcome
        self._wanted = 0  # jobs that the last poll wanted to have in stock
        self._lock = threading.Lock()
        self._last_end = clock.monotonic()
        self._pace = 1.0  # seconds from one end of a job to the next, smoothed
        self._rate = 0.0  # ends of jobs in a second, in about the last hundredth of one
        self._ends, self._counted_since = 0, self._last_end
        self._free = 0  # threads that wait for a call, less the calls that wait for a thread
        self._leaving = 0  # threads that are told to end, once they have done what they do
        self._occupied: set[int] = set()  # threads that are at what may take long
        self._held_back = False  # work may wait for which no thread was started
        self.hand_overs = 0  # so many claims have been handed over
        self._last_taken = self._last_end  # when (monotonic) a thread took a job from the stock

    # Threads

    def resize(self, size: int, batch: int = 1) -> int:
        """Have at most `size` threads from now on; answers by how many that is more.

        Each may begin up to `batch` jobs before any of them has ended.

        A thread, with its connection, is made when a task finds none free, unless `ENOUGH` are
        there that will soon be; so jobs that wait for a Deferred or a coroutine cost none.
        """
        with self._lock:
            if self.size <= ENOUGH < size:  # what is busy now may have been silent about it
                self._occupied.update(thread.ident or 0 for thread in self.threads)
            change, self.size = size - self.size, size
            self.batch = batch
            self._largest_batch = max(batch, self._largest_batch) if self._begun else batch
            surplus = len(self.threads) - self._leaving - size
            for _ in range(surplus):
                self._leaving += 1
                self._free -= 1
                self._calls.put(False)
            self._call_threads(self._callable_threads())
        if change:
            events.pool_resized(self.queue_name, self.agent_name, size)
        return change

    def submit(self, task: Task) -> None:
        """Have a thread do `task(connection)`, before any job is begun.  Called in any thread."""
        with self._lock:
            self._tasks.append(task)
            try:
                self._call_threads(1)
            except RuntimeError:
                self._tasks.pop()
                raise

    def _call_threads(self, number: int) -> None:
        """Have up to `number` threads look for work; those that are busy look when they are done.

        A call too many costs a look, one too few costs a job its start.
        """
        for _ in range(number):
            if self._free <= 0 and self._may_start():
                self._start_thread()
            if self._free <= 0 and self.threads:
                return
            self._free -= 1
            self._calls.put(True)

    def _may_start(self) -> bool:
        there = len(self.threads) - self._leaving
        if there >= max(self.size, 1):
            return False
        if there - len(self._occupied) >= ENOUGH:
            self._held_back = True
            return False
        return True

    def occupied(self) -> None:
        """This thread goes on to what may take long: if work waits, it needs another thread.

        Called in a worker thread, for code of a job's and for pauses.  Not for an `async def`, of
        which a few threads begin a thousand.
        """
        if self.size <= ENOUGH:
            return  # each place may have a thread anyway
        with self._lock:
            self._occupied.add(threading.get_ident())
            if self._held_back and (self._tasks or self._callable_threads()):
                self._call_threads(1)

    def _start_thread(self) -> None:
        name = f"zasync {self.queue_name}/{self.agent_name}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has no more threads for us
            if not self.threads:
                raise
            return  # another does the task when it is free
        self.threads.add(thread)
        self._free += 1

    def _work(self) -> None:
        attempts.stop_signal.set(Stop(self))
        connection = None
        try:
            while self._calls.get():
                while (task := self._next_task()) is not None:
                    connection = connection or self._open()
                    contextvars.copy_context().run(self._do, task, connection)
            with self._lock:
                self._leaving -= 1
        except attempts.Stopped:
            pass  # the storage is away, and so will this process soon be
        finally:
            with self._lock:
                self.threads.discard(threading.current_thread())
                self._occupied.discard(threading.get_ident())
            if connection is not None:
                clean_thread()
                connection.close()

    def _next_task(self) -> Task | None:
        """What this thread is to do next; None: nothing, so it is free."""
        with self._lock:
            self._occupied.discard(threading.get_ident())
            if self._tasks:
                return self._tasks.popleft()
            if self._stock and self._begun < self.size and self.perform is not None:
                tracked, perform = self._stock.popleft(), self.perform
                tracked.counts = True
                self._begun += 1
                self._last_taken = clock.monotonic()
                return lambda connection: perform(tracked, connection)
            self._held_back = False
            self._free += 1
            return None

    def _open(self) -> Any:
        """Open a connection, for as long as it takes the storage to come back."""
        for seconds in attempts.pauses(first=0.5):
            try:
                return self.db.open()
            except Exception as error:  # whatever it is, the job that waits must not be forgotten
                events.storage_trouble("open a connection", error, seconds)
                attempts.pause(seconds)
        raise AssertionError("pauses() does not end")

    def _do(self, task: Task, connection: Any) -> None:
        """Do one task and leave the thread as clean as it was before."""
        try:
            task(connection)
        except attempts.Stopped:
            pass  # what it was at is handed back
        except BaseException as error:  # a task sees to its own errors; this one is ours
            events.worker_failed(self.queue_name, self.agent_name, error)
        finally:
            clean_thread()
            connection.cacheGC()

    # Jobs

    def hand_over(self, claimed: Sequence[Tracked]) -> None:
        """Have threads begin these jobs, which were claimed in this order.

        RuntimeError if there is no thread, and none is to be had; then none of them is taken.
        """
        now = clock.monotonic()
        with self._lock:
            self.hand_overs += 1
            for tracked in claimed:
                tracked.hand_over, tracked.in_stock_since = self.hand_overs, now
                self.tracked[tracked.key] = tracked
            self._stock.extend(claimed)
            try:
                self._call_threads(self._callable_threads())
            except RuntimeError:
                for tracked in claimed:
                    self._stock.pop()
                    del self.tracked[tracked.key]
                raise

    def next_member(self, members: int, seconds: float, hand_over: int) -> Tracked | None:
        """The next job of the stock if a group of so many, `seconds` old, should take it too.

        Not one that came after the hand-over of this number, with which the group began: its
        transaction may not see what was committed together with the put of that job.  A member
        does not count against the places: its group does.
        """
        if members >= self.grouping.most(self.batch):
            return None
        with self._lock:
            if self._tasks or not self._stock or self._stock[0].hand_over > hand_over:
                return None
            span = self._span(self._stock[0])
            if span is None or seconds + span > self.batch_time:
                return None
            if span > SHORT and self._free > 0:
                return None  # for another thread
            return self._stock.popleft()

    def _span(self, tracked: Tracked) -> float | None:
        """How long it may take if it can be a member of a group, else None."""
        return None if tracked.code is None else self.grouping.span(tracked.code)

    def is_groupable(self, tracked: Tracked) -> bool:
        """Whether a thread may begin a group with it."""
        span = self._span(tracked) if self.grouping.most(self.batch) > 1 else None
        return span is not None and span < self.batch_time

    def is_soon_over(self, tracked: Tracked) -> bool:
        """Whether it is so short that it can hardly wait for anything."""
        span = self._span(tracked)
        return span is not None and span <= VERY_SHORT

    def _callable_threads(self) -> int:
        """How many threads should look at the stock."""
        stock = len(self._stock)
        if stock > 1 and self.batch > 1:
            span = self._span(self._stock[0])
            if span is not None and span <= SHORT:
                stock = -(-stock // self.batch)
        return min(stock, self.size - self._begun)

    def in_stock(self) -> int:
        """How many claimed jobs wait for a thread."""
        return len(self._stock)

    def recall(self, patience: float = 0.0) -> None:
        """Take back the jobs that no thread has begun, if the first has waited for `patience`.

        They are marked, and are to be given back to the queue.  One for which there is a place is
        not taken back while the threads get on: it is begun soon.
        """
        with self._lock:
            if not self._stock:
                return
            since = self._stock[0].in_stock_since
            if self._begun < self.size:
                since = max(since, self._last_taken)
            if clock.monotonic() - since >= patience:
                for tracked in self._stock:
                    tracked.recalled = True
                    tracked.running = False
                self._stock.clear()

    def settled(self, *settled: tuple[Tracked, Outcome]) -> None:
        """Runs have ended.  Called in a worker thread."""
        now = clock.monotonic()
        with self._lock:
            for tracked, outcome in settled:
                tracked.outcome = outcome
                tracked.running = False
                if tracked.counts and outcome.ending in IN_THE_DATABASE:
                    self._free_place(tracked)
                self._pace += (min(now - self._last_end, 1.0) - self._pace) / 8
                self._last_end = now
            self._ends += len(settled)
        self.ended_signal.set()
        self._ended()

    def _free_place(self, tracked: Tracked) -> None:
        tracked.counts = False
        self._begun -= 1

    def forget(self, tracked: Tracked) -> None:
        """The database knows all about this job.  Called by the polling thread."""
        if self.tracked.get(tracked.key) is tracked:
            del self.tracked[tracked.key]
        with self._lock:
            if tracked.counts:
                self._free_place(tracked)
                self._call_threads(min(len(self._stock), 1))

    @property
    def busy(self) -> list[Tracked]:
        """The jobs that have no outcome yet, apart from those that were taken back."""
        return [
            tracked
            for tracked in list(self.tracked.values())
            if tracked.outcome is None and not tracked.recalled
        ]

    def running(self) -> list[Tracked]:
        """Those of them that have been begun."""
        with self._lock:
            waiting = {id(tracked) for tracked in self._stock}
        return [tracked for tracked in self.busy if id(tracked) not in waiting]

    @property
    def has_ended_jobs(self) -> bool:
        """Whether jobs have ended that no poll has looked at yet."""
        return any(
            tracked.outcome is not None and not tracked.looked_at
            for tracked in list(self.tracked.values())
        )

    # When to claim, and how much

    def ahead(self) -> int:
        """How many jobs should be claimed beyond those that can be begun at once.

        As many as are likely to be begun soon.  While no job ends, that is none: a job must not
        wait here for a thread while other dispatchers have free ones.
        """
        now = clock.monotonic()
        with self._lock:
            elapsed = now - self._counted_since
            if elapsed >= WINDOW:
                self._rate = (self._rate + self._ends / elapsed) / 2
                self._ends, self._counted_since = 0, now
            rate = min(self._rate, 1 / max(now - self._last_end, 1e-6))
        self._wanted = min(int(HORIZON * rate), max(MOST_AHEAD, BATCHES_AHEAD * self.batch))
        return self._wanted

    def width(self, size: int, batch: int) -> int:
        """How many jobs may be begun and not ended if the agent's sizes become these."""
        with self._lock:  # what is surplus now still runs what it has begun
            return max(size, len(self.threads), 1) * max(batch, self._largest_batch)

    @property
    def is_well_stocked(self) -> bool:
        """Whether the next claim can wait, since the threads have enough to go on with."""
        waiting = len(self._stock)
        return waiting > 0 and (self.queue_is_empty or 2 * waiting > self._wanted)

    def has_room(self) -> bool:
        """Whether a claim could take anything; if not, it may when some of the stock is gone."""
        with self._lock:
            has_room = self._begun + len(self._stock) < self.size + self._wanted // 2
        if not has_room:
            self.queue_is_empty = False
        return has_room

    def patience(self) -> float:
        """How many seconds the next claim may wait, so that it takes more jobs at once.

        A claim costs a commit.  It waits for most of the jobs to end if, at the present pace,
        that is a matter of milliseconds; a free place for long jobs is filled at once.
        """
        tracked = list(self.tracked.values())
        ended = sum(1 for each in tracked if each.outcome is not None)
        missing = min(self.size * 3 // 4, len(tracked)) - ended
        expected = missing * self._pace
        return 2 * expected if 0 < expected < LONGEST_PATIENCE else 0.0


class Stop:
    """The stop signal as a pool's threads wait for it: one that pauses for long is occupied."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def is_set(self) -> bool:
        return self._pool.stop_signal.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is None or timeout > attempts.CONFLICT_PAUSE:
            self._pool.occupied()
        return self._pool.stop_signal.wait(timeout)


def clean_thread() -> None:
    """Leave nothing that a job of Zope's kind could have left for the next one in the thread.

    What is kept in context variables is gone already; another `threading.local`, and what is the
    whole process's, such as its locale, is the job's own affair.
    """
    if getattr(transaction.manager.manager, "_txn", True) is not None:
        _do_cleanly(transaction.abort)  # only then, since it asks some storages for news
    forget_surroundings()


def forget_surroundings() -> None:
    """The same for a job that is followed by another one in the same transaction."""
    zope.component.hooks.setSite(None)
    for module, function in _KEPT_BY_THREAD:
        if module in sys.modules:  # else nobody can have left anything there
            _do_cleanly(getattr(sys.modules[module], function))


_KEPT_BY_THREAD = [
    ("AccessControl.SecurityManagement", "noSecurityManager"),
    ("zope.security.management", "endInteraction"),
    ("zope.globalrequest", "clearRequest"),
]
"""Modules that keep something for each thread, and what in them forgets it."""


def _do_cleanly(function: Callable[[], Any]) -> None:
    try:
        function()
    except Exception as error:  # such as what somebody joined to a transaction and cannot abort
        events.leftover_kept(getattr(function, "__name__", "clean-up"), error)
