# SPDX-License-Identifier: ZPL-2.1
"""The dispatcher: one per process, known by a UUID; starts and stops everything that runs.

How a poll goes is in `polling`, how a job is run in `worker` and `zasync.job.performance`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import zope.component

from zasync.dispatcher import registry
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
from zasync.dispatcher.polling import Poller
from zasync.dispatcher.pool import Pool
from zasync.dispatcher.wakeup import Hints
from zasync.dispatcher.worker import Worker
from zasync.foundation import attempts, clock
from zasync.foundation.failpoints import reach
from zasync.foundation.reporting import events
from zasync.interfaces import IUUID

STUCK_AFTER = 2  # poll intervals without a poll that was committed
GRACE = 30.0  # seconds that running jobs get to end in when the dispatcher stops
LAST_WORD = 10.0  # seconds for saying goodbye to a storage that is away


class Dispatcher:
    """Claims jobs through its agents and runs them in threads.

    `db` is the database in whose root the queues are found; `reactor` provides IReactor (None:
    Twisted's installed one); `poll_interval` is in seconds; `uuid` None means the IUUID utility;
    `jobs_size` and `polls_size` bound what it remembers.  `queues` (None: all) names the queues
    to work; `grace` is how many seconds running jobs get to end in when it is deactivated.
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
        self.hints = Hints(db, self.wake)
        self.coroutines = CoroutineLoop(db)
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
        self.coroutines = CoroutineLoop(self.db)
        self._grow_database_pools(2)  # for the polls, and for the coroutines
        self._poller = Poller(self, clock.current().token())
        self.hints.start()
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
        with self._poll_lock:
            self._wake_asked = False  # what is committed from now on asks again
            if not self.activated or self._poller is None:
                return self.poll_interval
            self._polling = True
            seconds = self._poller.poll(hurried=hurried)
            self._polling = False
            for pool in self._all_pools():
                if pool.has_ended_jobs:
                    self._job_ended(pool)
            now = clock.monotonic()
            if not hurried:
                self._regular_due = now + self.poll_interval
            return min(seconds, max(0.0, self._regular_due - now))

    def _schedule(self, seconds: float, hurried: bool = False) -> None:
        if self.activated:
            call = self._timer_call
            if call is not None and hasattr(call, "active") and call.active():
                call.cancel()
            self._timer_call = self.reactor.callLater(
                seconds, self._tick, self._next_timer(), hurried
            )

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
        if self._polling:
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
        self._poll(False)

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
            pools[agent_name] = pool
        return pools[agent_name]

    def worker(self, pool: Pool) -> Worker:
        return Worker(self, pool, self.jobs)

    def resize_pools(self, sizes: dict[tuple[str, str], int]) -> None:
        """Follow the sizes of the agents; an agent that is gone lets its threads finish."""
        change = 0
        for pool in self._all_pools():
            key = (pool.queue_name, pool.agent_name)
            # A connection for each thread, and one for its job's live annotations.
            change += 2 * pool.resize(sizes.get(key, 0))
            if key not in sizes and not pool.tracked:
                del self.queues[pool.queue_name][pool.agent_name]
                if not self.queues[pool.queue_name]:
                    del self.queues[pool.queue_name]
        if change:
            self._grow_database_pools(change)

    def _all_pools(self) -> list[Pool]:
        return [pool for pools in list(self.queues.values()) for pool in list(pools.values())]

    # Stopping

    def _deactivate_if_active(self) -> None:
        if self.activated:
            self.deactivate()

    def deactivate(self, grace: float | None = None) -> None:
        """Claim nothing more, let running jobs end for `grace` seconds, hand back the rest, stop.

        ValueError if it is not activated.  No job that is handed back can still commit.
        """
        with self._poll_lock:
            if not self.activated or self._poller is None:
                raise ValueError("not activated", self.UUID)
            self.activated = None
            self.hints.stop()
            self._next_timer()
        reach("stop.draining")
        self._drain(self.grace if grace is None else grace)
        reach("stop.deactivating")
        with self._poll_lock:
            self._say_goodbye()
            for pool in self._all_pools():
                pool.resize(0)
            self.queues.clear()
            self._poller.close()
            self._poller = None
        self._grow_database_pools(-self._pool_growth)
        events.dispatcher_deactivated(self.UUID)

    def _drain(self, grace: float) -> None:
        """Wait until no job runs, or the grace time is over; then stop what can be stopped."""
        deadline = clock.monotonic() + grace
        pools = self._all_pools()
        while any(pool.busy for pool in pools):
            remaining = deadline - clock.monotonic()
            if remaining <= 0:
                break
            pool = next(pool for pool in pools if pool.busy)
            pool.ended_signal.clear()
            if pool.busy:
                clock.wait(pool.ended_signal, remaining)
        for pool in pools:
            pool.stop_signal.set()
            for tracked in pool.busy:
                events.still_running(f"job {tracked.key[0]}", grace)
        self.coroutines.stop(timeout=1.0)

    def _say_goodbye(self) -> None:
        """Hand back and mark our records, unless the storage is away for too long."""
        assert self._poller is not None
        too_long = Alarm(LAST_WORD)
        token = attempts.stop_signal.set(too_long)
        try:
            attempts.committed(self._poller.deactivate, transaction_manager=self._poller.manager)
        except Exception as error:
            events.deactivation_failed(self.UUID, error)
        finally:
            attempts.stop_signal.reset(token)

    # Introspection

    def getStatusInfo(self) -> dict[str, Any]:
        """Status, times and UUID: what a person asks first.

        'status' is STARTING, RUNNING, STUCK (no poll was committed for two intervals) or STOPPED.
        """
        now = clock.now()
        last = next(iter(self.polls), None)
        since = None if last is None else now - last.utc_timestamp
        return {
            "status": self._status(now, since),
            "uuid": self.UUID,
            "uptime": None if not self.activated else now - self.activated,
            "poll interval": timedelta(seconds=self.poll_interval),
            "time since last poll": since,
        }

    def _status(self, now: datetime, since_last_poll: timedelta | None) -> str:
        if not self.activated:
            return "STOPPED"
        waited = now - self.activated if since_last_poll is None else since_last_poll
        if waited > timedelta(seconds=max(self.poll_interval, 1.0) * STUCK_AFTER):
            return "STUCK"
        return "STARTING" if since_last_poll is None else "RUNNING"

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
        """What is remembered of one job.  KeyError if there is nothing, or not one database."""
        names = [key[1] for key in self.jobs if key[0] == oid]
        if database_name is None:
            if len(names) != 1:
                raise KeyError("no job of that oid, or one in several databases", oid, names)
            database_name = names[0]
        return self.jobs[oid, database_name]

    def getActiveJobIds(self, queue: str | None = None, agent: str | None = None) -> list[Key]:
        """The jobs that threads or coroutines of this process are performing now."""
        return [
            tracked.key
            for pool in self._all_pools()
            if (queue is None or pool.queue_name == queue)
            and (agent is None or pool.agent_name == agent)
            for tracked in pool.busy
        ]

    def getPollInfo(self, at: Moment = None, before: Moment = None) -> PollInfo:
        """The newest poll at `at` or before it; ValueError if there is none."""
        return self.polls.first(_one_of(at, before))

    def iterPolls(
        self, at: Moment = None, before: Moment = None, since: Moment = None
    ) -> Iterable[PollInfo]:
        """The polls, newest first."""
        return self.polls.iter(_one_of(at, before), since)


class Alarm:
    """A signal that sets itself after some seconds."""

    def __init__(self, seconds: float) -> None:
        self._deadline = clock.monotonic() + seconds
        self._never = threading.Event()

    def is_set(self) -> bool:
        return clock.monotonic() >= self._deadline

    def wait(self, timeout: float | None = None) -> bool:
        remaining = max(0.0, self._deadline - clock.monotonic())
        clock.wait(self._never, remaining if timeout is None else min(timeout, remaining))
        return self.is_set()


def _one_of(at: Moment, before: Moment) -> datetime | None:
    if at is not None and before is not None:
        raise ValueError("give `at` or `before`, not both")
    if before is not None:
        found = moment(before)
        return None if found is None else found - timedelta(microseconds=1)
    return moment(at)


def _is_of(info: dict[str, Any], queue: str | None, agent: str | None) -> bool:
    return (queue is None or info["queue"] == queue) and (agent is None or info["agent"] == agent)
