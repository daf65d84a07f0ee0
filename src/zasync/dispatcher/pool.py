# SPDX-License-Identifier: ZPL-2.1
"""The worker threads of one agent, and what each of the agent's jobs is doing in this process."""

from __future__ import annotations

import contextvars
import dataclasses
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

import transaction
import zope.component.hooks

from zasync.dispatcher.history import Key
from zasync.foundation import attempts, clock
from zasync.foundation.reporting import events
from zasync.job.run import Outcome

LONGEST_PATIENCE = 0.025  # seconds that a free place waits for others, at the most expected

Task = Callable[[Any], None]
"""What a worker thread does with its connection."""


@dataclasses.dataclass
class Tracked:
    """A job of the agent that this process knows of."""

    key: Key
    token: int
    place: int  # its key in the agent
    running: bool = True  # in a thread, or on its way to one; else suspended
    outcome: Outcome | None = None
    last_chance: bool = False  # is parked if the process dies under it
    looked_at: bool = False  # a poll has seen the outcome, and may have left it to the next one
    limit: float | None = None  # its run_limit in seconds
    since: float | None = None  # when a thread took it (monotonic); None: it waits for one
    since_micros: int = 0  # the same by the wall clock, microseconds since 1970
    thread: int | None = None  # which one is at it
    report_after: float = 0.0  # seconds of running after which it is (again) reported as overdue

    def taken(self) -> None:
        """This thread is at it now."""
        self.thread = threading.get_ident()
        if self.since is None:
            self.since_micros, self.since = clock.now_micros(), clock.monotonic()

    def seconds(self) -> float:
        """For how long it has run."""
        return 0.0 if self.since is None else clock.monotonic() - self.since


class Pool:
    """The threads of one agent.  `resize` is called by the polling thread only."""

    def __init__(
        self, db: Any, queue_name: str, agent_name: str, ended: Callable[[], None]
    ) -> None:
        self.db = db
        self.queue_name = queue_name
        self.agent_name = agent_name
        self.size = 0
        self.stop_signal = threading.Event()
        self.threads: set[threading.Thread] = set()
        self.tracked: dict[Key, Tracked] = {}
        self.ended_signal = threading.Event()  # set when a job ends
        self._ended = ended
        self._inbox: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._last_end = clock.monotonic()
        self._pace = 1.0  # seconds from one end of a job to the next, smoothed
        self._free = 0  # threads that wait for a task, less the tasks that wait for a thread
        self._leaving = 0  # threads that are told to end, once they have done what they do

    # Threads

    def resize(self, size: int) -> int:
        """Have at most `size` threads from now on; answers by how many that is more.

        A thread, with its connection, is made when a task finds none free; so jobs that wait for
        a Deferred or a coroutine cost none.
        """
        with self._lock:
            change, self.size = size - self.size, size
            surplus = len(self.threads) - self._leaving - size
            for _ in range(surplus):
                self._leaving += 1
                self._free -= 1
                self._inbox.put(None)
        if change:
            events.pool_resized(self.queue_name, self.agent_name, size)
        return change

    def submit(self, task: Task) -> None:
        """Have a thread do `task(connection)`.  Called in any thread."""
        with self._lock:
            if self._free <= 0 and len(self.threads) - self._leaving < max(self.size, 1):
                self._start_thread()
            self._free -= 1
            self._inbox.put(task)

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
        attempts.stop_signal.set(self.stop_signal)
        connection = None
        try:
            while (task := self._inbox.get()) is not None:
                connection = connection or self._open()
                contextvars.copy_context().run(self._do, task, connection)
                with self._lock:
                    self._free += 1
            with self._lock:
                self._leaving -= 1
        except attempts.Stopped:
            pass  # the storage is away, and so will this process soon be
        finally:
            with self._lock:
                self.threads.discard(threading.current_thread())
            if connection is not None:
                clean_thread()
                connection.close()

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

    def track(self, tracked: Tracked) -> None:
        self.tracked[tracked.key] = tracked

    def settled(self, tracked: Tracked, outcome: Outcome) -> None:
        """A run has ended.  Called in a worker thread."""
        tracked.outcome = outcome
        tracked.running = False
        now = clock.monotonic()
        self._pace += (min(now - self._last_end, 1.0) - self._pace) / 8
        self._last_end = now
        self.ended_signal.set()
        self._ended()

    @property
    def busy(self) -> list[Tracked]:
        """The jobs that have no outcome yet."""
        return [tracked for tracked in list(self.tracked.values()) if tracked.outcome is None]

    @property
    def has_ended_jobs(self) -> bool:
        """Whether jobs have ended that no poll has looked at yet."""
        return any(
            tracked.outcome is not None and not tracked.looked_at
            for tracked in list(self.tracked.values())
        )

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


def clean_thread() -> None:
    """Leave nothing that a job of Zope's kind could have left for the next one in the thread.

    What is kept in context variables is gone already; another `threading.local`, and what is the
    whole process's, such as its locale, is the job's own affair.
    """
    if getattr(transaction.manager.manager, "_txn", True) is not None:
        _do_cleanly(transaction.abort)  # only then, since it asks some storages for news
    zope.component.hooks.setSite(None)
    for module, function in _KEPT_BY_THREAD:
        if module in sys.modules:  # else nobody can have left anything there
            _do_cleanly(getattr(sys.modules[module], function))


_KEPT_BY_THREAD = [
    ("zope.security.management", "endInteraction"),
    ("zope.globalrequest", "clearRequest"),
]
"""Modules that keep something for each thread, and what in them forgets it."""


def _do_cleanly(function: Callable[[], Any]) -> None:
    try:
        function()
    except Exception as error:  # such as what somebody joined to a transaction and cannot abort
        events.leftover_kept(getattr(function, "__name__", "clean-up"), error)
