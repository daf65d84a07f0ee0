# SPDX-License-Identifier: ZPL-2.1
"""The dispatcher: one per process, known by a UUID; starts and stops everything that runs.

How a poll goes is in `polling`, how a job is run in `worker` and `zasync.job.performance`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import zope.component

from zasync.dispatcher import condition, registry
from zasync.dispatcher.coroutines import CoroutineLoop
from zasync.dispatcher.history import (
    JobInfos,
    Key,
    Moment,
    PollInfo,
    Polls,
    moment,
    statistics,
)
from zasync.dispatcher.polling import Poller, Size
from zasync.dispatcher.pool import Pool, Tracked
from zasync.dispatcher.pulse import Pulse
from zasync.dispatcher.stopping import drained, goodbye
from zasync.dispatcher.turns import Turns
from zasync.dispatcher.wakeup import Hints
from zasync.dispatcher.watch import Watch
from zasync.dispatcher.worker import Worker
from zasync.foundation import clock
from zasync.foundation.failpoints import reach
from zasync.foundation.reporting import events
from zasync.interfaces import IUUID
from zasync.storage import mend

AroundJob = Callable[[Any], AbstractContextManager[Any]]
"""Answers what is set up around an attempt at a job, in its transaction, until that has ended."""

STUCK_AFTER = 2  # poll intervals without a poll that was committed
GRACE = 30.0  # seconds that running jobs get to end in when the dispatcher stops
LAST_WORD = 4.0  # seconds for saying goodbye to a storage that is away
POLL_END = 1.0  # seconds for a poll that is under way when the dispatcher stops
FIRST_PAUSE = 0.1  # seconds after a poll that broke off; doubled each time


class Dispatcher:
    """Claims jobs through its agents and runs them in threads.

    `db` is the database in whose root the queues are found; `reactor` provides IReactor (None:
    Twisted's installed one); `poll_interval` is in seconds; `uuid` None means the IUUID utility;
    `jobs_size` and `polls_size` bound what it remembers.  `queues` (None: all) names the queues
    to work; `grace` is how many seconds running jobs get to end in when it is deactivated.
    `hang_report_after` (None: never) is how long a job without a `run_limit` may run before it
    is reported.  `around_job(job)` answers a context manager for the surroundings that the jobs of
    an application need, whose block begins in the job's transaction and ends after that.
    ValueError if this process has a dispatcher of that UUID already.
    """

    def __init__(
        self,
        db: Any,
        reactor: Any = None,
        poll_interval: float = 5,
        uuid: Any = None,
        jobs_size: int = 200,
        polls_size: int = 400,
        *,
        queue_names: Iterable[str] | None = None,
        grace: float = GRACE,
        hang_report_after: timedelta | None = None,
        around_job: AroundJob | None = None,
    ) -> None:
        if uuid is None:
            uuid = zope.component.getUtility(IUUID)
        self.UUID = UUID(int=uuid.int)
        self.db = db
        self._reactor = reactor
        self.poll_interval = poll_interval
        self.grace = grace
        self.queue_names = None if queue_names is None else frozenset(queue_names)
        self.polls = Polls(polls_size)
        self.jobs = JobInfos(jobs_size)
        self.queues: dict[str, dict[str, Pool]] = {}
        self.twins: set[str] = set()  # queues left to another live process that has our UUID
        self.activated: datetime | None = None
        self.thread: threading.Thread | None = None
        self.hints = Hints(db, self.hinted)
        self.pulse = Pulse()
        self.turns = Turns()
        self.coroutines = CoroutineLoop(db, self.may_begin)
        self.hang_report_after = hang_report_after
        self.around_job = around_job
        self.handed_back: bool | None = None
        """Whether the last stop could hand back what was left; if not, that is recovered later."""
        self.outlasted: list[Key] = []
        """The jobs that ran on when the grace time of the last stop was over."""
        self.polling_thread: int | None = None  # which one polled last, or does now
        self._watch = Watch(self)
        self._last_poll = 0.0  # when (monotonic) one was completed, or it was activated
        self._broken_pause = FIRST_PAUSE
        self._poller: Poller | None = None
        self._threaded = False
        self._poll_lock = threading.RLock()  # one poll, or the deactivation, at a time
        self._state_lock = threading.Lock()
        self._regular_due = 0.0  # when the next poll is due that was not hastened by a hint
        self._wake_asked = False
        self._linger_asked = False
        self._polling = False
        self._timer = 0  # number of the timer that counts; older ones do nothing
        self._timer_call: Any = None
        self._pool_growth = 0
        registry.add(self)

    @property
    def reactor(self) -> Any:
        """What drives it."""
        if self._reactor is None:
            from twisted.internet import reactor  # importing it installs it

            self._reactor = reactor
        return self._reactor

    # Starting

    def activate(self, threaded: bool = False) -> None:
        """Begin to work once the reactor runs, until it shuts down or `deactivate` is called.

        Polls run in the reactor's thread, which is fine for a reactor of our own; `threaded`
        leaves them to other threads, for a reactor that serves others too.  ValueError if it is
        activated.
        """
        if self.activated:
            raise ValueError("already activated", self.UUID)
        self.activated = clock.now()
        self.polls.clear()
        self.jobs.clear()
        self._threaded = threaded
        self.pulse = Pulse()
        self.coroutines = CoroutineLoop(self.db, self.may_begin)
        self._poll_lock = threading.RLock()  # a poll that never came back may hold the one before
        self._last_poll = clock.monotonic()
        self._grow_database_pools(2)  # for the polls, and for the coroutines
        self._poller = Poller(self, clock.current().token())
        mend(self.db)  # others may have opened it
        self.hints.start()
        self._watch = Watch(self)
        self._watch.start()
        events.dispatcher_activated(self.UUID, self.reactor)
        self.reactor.callWhenRunning(self._tick, self._next_timer(), False)
        self.reactor.addSystemEventTrigger("before", "shutdown", self._deactivate_if_active)

    def _grow_database_pools(self, change: int) -> None:
        self._pool_growth += change
        for database in self.db.databases.values():
            database.setPoolSize(database.getPoolSize() + change)

    # Polling.  Timers and ticks happen in the reactor's thread.

    def _next_timer(self) -> int:
        self._timer += 1
        return self._timer

    def _tick(self, timer: int, hurried: bool) -> None:
        if timer != self._timer or not self.activated:
            return
        if self._threaded:
            self.reactor.callInThread(self._poll_and_schedule, hurried)
        else:
            self._schedule(self._poll(hurried))

    def _poll_and_schedule(self, hurried: bool) -> None:
        self.reactor.callFromThread(self._schedule, self._poll(hurried))

    def _poll(self, hurried: bool) -> float:
        """Do one poll, come what may; answers the seconds until the next."""
        try:
            seconds = self._poll_once(hurried)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                self.reactor.callFromThread(self._schedule, self._broken_pause)
                raise
            seconds = self._broken_pause
            self._broken_pause = min(2 * seconds, max(self.poll_interval, FIRST_PAUSE))
            events.poll_broke(self.UUID, error, seconds)
            return seconds
        self._broken_pause = FIRST_PAUSE
        return seconds

    def _poll_once(self, hurried: bool) -> float:
        with self._poll_lock:
            self._wake_asked = False  # what is committed from now on asks again
            poller = self._poller
            if not self.activated or poller is None:
                return self.poll_interval
            seconds = self._poll_with(poller, hurried)
            for pool in self.pools():
                if pool.has_ended_jobs:
                    self._job_ended(pool)
            now = clock.monotonic()
            if not hurried:
                self._regular_due = now + self.regular_interval
            return min(seconds, max(0.0, self._regular_due - now))

    def _poll_with(self, poller: Poller, hurried: bool = False) -> float:
        self._polling, self.polling_thread = True, threading.get_ident()
        before = self.polls.total
        try:
            return poller.poll(hurried=hurried)
        finally:
            self._polling = False
            if self.polls.total > before:
                self._last_poll = clock.monotonic()

    @contextmanager
    def _polling_on(self, poller: Poller) -> Iterator[None]:
        """Ping and tidy as before during the block, though the reactor may be kept by it."""
        over = threading.Event()

        def poll_on() -> None:
            while not clock.wait_idly(over, self.regular_interval):
                with self._poll_lock:
                    if not over.is_set():
                        self._poll_with(poller)

        thread = threading.Thread(target=poll_on, name="zasync last polls", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(POLL_END)

    def _schedule(self, seconds: float, hurried: bool = False) -> None:
        if self.activated:
            call = self._timer_call
            if call is not None and hasattr(call, "active") and call.active():
                call.cancel()
            self._timer_call = self.reactor.callLater(
                seconds, self._tick, self._next_timer(), hurried
            )

    def hinted(self) -> None:
        """Work was put somewhere: poll soon, if there is a place for it.  Called in any thread.

        While there is none, a poll would find nothing to do; the end of a job makes one.
        """
        pools = self.pools()
        if not pools or any(pool.has_room() for pool in pools):
            self.wake()

    def wake(self) -> None:
        """Poll soon.  May be called in any thread; many calls make one poll."""
        with self._state_lock:
            if self._wake_asked or not self.activated:
                return
            self._wake_asked = True
        self.reactor.callFromThread(self._woken)

    def _woken(self) -> None:
        if self.activated:
            self._tick(self._next_timer(), True)

    def _job_ended(self, pool: Pool) -> None:
        """A place has become free.  Called in a worker thread, and after each poll.

        During a poll nothing can be said, since it is about to take what has ended so far.
        """
        if self._polling or pool.is_well_stocked:
            return
        patience = pool.patience()
        if not patience:
            self.wake()
            return
        with self._state_lock:
            if self._linger_asked or not self.activated:
                return
            self._linger_asked = True
        self.reactor.callFromThread(self.reactor.callLater, patience, self._stop_lingering)

    def _stop_lingering(self) -> None:
        self._linger_asked = False
        self.wake()

    def poll(self) -> None:
        """Do one poll now, in this thread."""
        self._poll_once(False)

    @property
    def regular_interval(self) -> float:
        """Seconds between two polls at the most: each is an occasion to ping."""
        return min(self.poll_interval, self.pulse.interval)

    @property
    def stuck_after(self) -> float:
        """Seconds without a poll after which it is STUCK."""
        return STUCK_AFTER * max(self.regular_interval, 1.0)

    def may_begin(self) -> bool:
        """Whether jobs may be begun: nobody takes this dispatcher for dead."""
        return self.pulse.is_known()

    def seconds_without_poll(self) -> float:
        """For how long no poll has been completed."""
        return clock.monotonic() - self._last_poll

    # Pools

    def select_queues(self, queues: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
        """Those of `queues` (name, queue) that this dispatcher is to work."""
        names = self.queue_names
        return [(name, queue) for name, queue in queues if names is None or name in names]

    def pool(self, queue_name: str, agent_name: str) -> Pool:
        """The threads of an agent, made if need be."""
        pools = self.queues.setdefault(queue_name, {})
        if agent_name not in pools:
            pool = Pool(self.db, queue_name, agent_name, lambda: self._job_ended(pool))
            pool.perform = self.worker(pool).perform
            pools[agent_name] = pool
        return pools[agent_name]

    def worker(self, pool: Pool) -> Worker:
        return Worker(self, pool)

    def resize_pools(self, sizes: dict[tuple[str, str], Size]) -> None:
        """Follow the sizes of the agents; an agent that is gone lets its threads finish."""
        change = 0
        for pool in self.pools():
            key = (pool.queue_name, pool.agent_name)
            size = sizes.get(key, Size())
            pool.batch_time = size.batch_time
            # A connection for each thread, and one for its job's live annotations.
            change += 2 * pool.resize(size.places, size.batch)
            if key not in sizes and not pool.tracked:
                del self.queues[pool.queue_name][pool.agent_name]
                if not self.queues[pool.queue_name]:
                    del self.queues[pool.queue_name]
        if change:
            self._grow_database_pools(change)

    def pools(self) -> list[Pool]:
        """The threads of all agents."""
        return [pool for pools in list(self.queues.values()) for pool in list(pools.values())]

    # Stopping

    def _deactivate_if_active(self) -> None:
        if self.activated:
            self.deactivate()

    def deactivate(self, grace: float | None = None) -> None:
        """Claim nothing more, let running jobs end for `grace` seconds, hand back the rest, stop.

        ValueError if it is not activated.  No job that is handed back can still commit.  It ends
        a few seconds after the grace time whatever the storage does; `handed_back` says whether
        that could be told what is left.
        """
        with self._state_lock:
            if not self.activated or self._poller is None:
                raise ValueError("not activated", self.UUID)
            poller, self.activated = self._poller, None
        self.hints.stop()
        self._next_timer()
        for pool in self.pools():
            pool.recall()
        reach("stop.draining")
        if self._poll_lock.acquire(timeout=POLL_END):  # what that hands over can end in time, too
            self._poll_lock.release()
        for pool in self.pools():
            pool.recall()
        grace = self.grace if grace is None else grace
        with self._polling_on(poller):  # else others would take us for dead in a long grace time
            self.outlasted = [tracked.key for tracked in drained(self.pools(), grace)]
        for oid, _database in self.outlasted:
            events.still_running(f"job {oid}", grace)
        self.coroutines.stop(timeout=1.0)
        reach("stop.deactivating")
        self.handed_back = goodbye(poller, self._poll_lock, LAST_WORD)
        for pool in self.pools():
            pool.resize(0)
        self.queues.clear()
        self._poller = None
        self._watch.stop()
        self._grow_database_pools(-self._pool_growth)
        events.dispatcher_deactivated(self.UUID)

    # What runs

    def running(self) -> list[Tracked]:
        """The jobs that have been taken and have no outcome yet."""
        return [
            tracked for pool in self.pools() for tracked in pool.busy if tracked.since is not None
        ]

    def limit_of(self, tracked: Tracked) -> float | None:
        """After how many seconds a run is overdue; None: never."""
        if tracked.limit is not None or self.hang_report_after is None:
            return tracked.limit
        return self.hang_report_after.total_seconds()

    def is_overdue(self, tracked: Tracked) -> bool:
        """Whether it runs for too long."""
        limit = self.limit_of(tracked)
        return limit is not None and tracked.outcome is None and tracked.seconds() > limit

    # Introspection

    def getStatusInfo(self) -> dict[str, Any]:
        """Status, times and UUID: what a person asks first.

        'status' is STARTING, RUNNING, STUCK (no poll was committed for two intervals) or STOPPED.
        'capacity' counts the places of the agents, and those that 'running' and 'overdue' jobs
        take; 'overdue' lists keys of jobs; 'time since last ping' is that of the oldest of the
        queues' pings, None before the first; 'begins jobs' is off while no ping can be committed.
        """
        return condition.status_info(self)

    def health(self) -> dict[str, Any]:
        """How this dispatcher does, as one JSON-able document: see `condition.health`.

        It asks neither the storage nor the reactor for anything.  How the queues do, and the
        other dispatchers, is told by `zasync.dispatcher.health.survey`.
        """
        return condition.health(self)

    def getStatistics(
        self,
        at: Moment = None,
        before: Moment = None,
        since: Moment = None,
        queue: str | None = None,
        agent: str | None = None,
    ) -> dict[str, Any]:
        """Counts and extremes of the jobs that ran here after `since` and up to `at`/`before`.

        Keys: 'started', 'successful', 'failed', 'unknown', 'longest ...' and 'shortest ...' of
        'active', 'successful', 'failed' (keys of jobs or None), 'statistics start' and 'end'.
        Only of jobs that are still remembered (`jobs_size`).
        """
        end = _one_of(at, before) or clock.now()
        infos = [(key, info) for key, info in self.jobs.copies() if _is_of(info, queue, agent)]
        return statistics(infos, moment(since), end)

    def getJobInfo(self, oid: int, database_name: str | None = None) -> dict[str, Any]:
        """What is remembered of one job.  KeyError if there is nothing, or not one database.

        'running for' is a timedelta while it runs, and 'overdue' says whether that is too long.
        """
        names = [key[1] for key in self.jobs if key[0] == oid]
        if database_name is None:
            if len(names) != 1:
                raise KeyError("no job of that oid, or one in several databases", oid, names)
            database_name = names[0]
        info = self.jobs[oid, database_name]
        tracked = next((t for t in self.running() if t.key == (oid, database_name)), None)
        info["running for"] = None if tracked is None else timedelta(seconds=tracked.seconds())
        info["overdue"] = tracked is not None and self.is_overdue(tracked)
        return info

    def getActiveJobIds(self, queue: str | None = None, agent: str | None = None) -> list[Key]:
        """The jobs that threads or coroutines of this process are performing now."""
        return [
            tracked.key
            for pool in self.pools()
            if (queue is None or pool.queue_name == queue)
            and (agent is None or pool.agent_name == agent)
            for tracked in pool.running()
        ]

    def getPollInfo(self, at: Moment = None, before: Moment = None) -> PollInfo:
        """The newest poll at `at` or before it; ValueError if there is none."""
        return self.polls.first(_one_of(at, before))

    def iterPolls(
        self, at: Moment = None, before: Moment = None, since: Moment = None
    ) -> Iterable[PollInfo]:
        """The polls, newest first."""
        return self.polls.iter(_one_of(at, before), since)


def _one_of(at: Moment, before: Moment) -> datetime | None:
    if at is not None and before is not None:
        raise ValueError("give `at` or `before`, not both")
    if before is not None:
        found = moment(before)
        return None if found is None else found - timedelta(microseconds=1)
    return moment(at)


def _is_of(info: dict[str, Any], queue: str | None, agent: str | None) -> bool:
    return (queue is None or info["queue"] == queue) and (agent is None or info["agent"] == agent)
