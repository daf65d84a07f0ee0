# SPDX-License-Identifier: ZPL-2.1
"""Stored: which dispatchers work a queue, whether they live, and how a dead one is cleared away.

`DispatcherAgents` is written when its dispatcher comes or goes, `LastPing` beside it every few
seconds; both only by that dispatcher, or by the sibling that finds it dead.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import zope.component.event  # makes zope.event reach the handlers of zope.component
import zope.event
import zope.interface
from persistent import Persistent

from zasync.foundation import clock
from zasync.foundation.containers import DAYS_KEPT, ReadMapping
from zasync.foundation.errors import why_unreadable
from zasync.foundation.failpoints import reach
from zasync.foundation.reporting import events
from zasync.interfaces import (
    ACTIVE,
    ASSIGNED,
    CALLBACKS,
    COMPLETED,
    DispatcherActivated,
    DispatcherDeactivated,
    DispatcherReactivated,
    DispatcherRegistered,
    DispatcherUnregistered,
    IAgent,
    IDispatcherAgents,
    IDispatchers,
)
from zasync.job import bookkeeping, two_databases
from zasync.job.crashes import OTHERS_NAMED, STOPPED, Cause

BATCH = 100  # jobs of a dead dispatcher that are handed back in one transaction
PING_INTERVAL = timedelta(seconds=15)
PING_DEATH_INTERVAL = timedelta(seconds=60)
PRUNE_AFTER = timedelta(days=DAYS_KEPT + 1)

IsDead = Callable[[Any], bool]


def check_intervals(ping: timedelta, death: timedelta) -> None:
    """TypeError if one is no timedelta; ValueError if not positive, or if they do not fit."""
    for span in (ping, death):
        if not isinstance(span, timedelta):
            raise TypeError(f"an interval of pings is a timedelta, not {span!r}")
        if span <= timedelta():
            raise ValueError(f"an interval of pings must be positive, not {span}")
    if death <= ping:
        raise ValueError(
            f"ping_death_interval ({death}) must be longer than ping_interval ({ping}):"
            " else a dispatcher is dead between two pings"
        )


class LastPing(Persistent):
    """When a dispatcher last said that it lives: a record of its own, since it changes often."""

    value: datetime | None = None
    overdue: tuple[tuple[int, str, str, int], ...] = ()
    """Jobs that run for too long: oid, database, agent, since when (microseconds since 1970)."""

    def touch(self) -> None:
        """Be written, so that whoever else writes this at the same time conflicts."""
        self._p_changed = True


@zope.interface.implementer(IDispatcherAgents)
class DispatcherAgents(ReadMapping):
    """One dispatcher's record in one queue: a mapping of name to agent."""

    parent: Any = None
    name: Any = None
    activated: datetime | None = None
    deactivated: datetime | None = None  # when it was last
    databases: tuple[str, ...] = ()  # that its process has open, if these are several
    _ping_interval: timedelta | None = None  # None: that of the queue
    _ping_death_interval: timedelta | None = None
    _left_by: Cause = None  # why jobs may lie here though it is not activated
    incarnation: int | None = None  # names the start of a process that activated it
    process: Any = None  # state of the ProcessIdentity that activated it

    def __init__(self, uuid: UUID) -> None:
        super().__init__()
        self._uuid = uuid.int
        self.last_ping = LastPing()

    @property
    def UUID(self) -> UUID:
        """The dispatcher's UUID."""
        return UUID(int=self._uuid)

    def __setitem__(self, name: str, agent: Any) -> None:
        if not IAgent.providedBy(agent):
            raise ValueError("value must be IAgent", agent)
        if len(agent) > 0:
            raise ValueError("an agent that holds jobs cannot be added", agent)
        if name in self:
            self._check_empty(name)
        self._add(name, agent)

    def __delitem__(self, name: str) -> None:
        self._check_empty(name)
        self._take(name)

    def _check_empty(self, name: str) -> None:
        if len(self[name]) > 0:
            raise ValueError(
                f"agent {name!r} holds jobs; set its size to 0 and wait until they have ended"
            )

    def pop(self, name: str) -> Any:
        """Take out and answer the agent `name`; ValueError while it holds jobs."""
        agent = self[name]
        del self[name]
        return agent

    # Living

    @property
    def ping_interval(self) -> timedelta:
        """How often the dispatcher pings; its queue says so unless this was set."""
        return self._ping_interval or self._default("ping_interval", PING_INTERVAL)

    @ping_interval.setter
    def ping_interval(self, span: timedelta) -> None:
        check_intervals(span, self.ping_death_interval)
        self._ping_interval = span

    @property
    def ping_death_interval(self) -> timedelta:
        """Without a ping for so long it is dead; its queue says so unless this was set."""
        return self._ping_death_interval or self._default(
            "ping_death_interval", PING_DEATH_INTERVAL
        )

    @ping_death_interval.setter
    def ping_death_interval(self, span: timedelta) -> None:
        check_intervals(self.ping_interval, span)
        self._ping_death_interval = span

    def set_intervals(self, ping: timedelta, death: timedelta) -> None:
        """Set both intervals at once; one after the other might not fit."""
        check_intervals(ping, death)
        self._ping_interval, self._ping_death_interval = ping, death

    def _default(self, name: str, without_queue: timedelta) -> timedelta:
        span: timedelta = without_queue
        if self.parent is not None:
            span = getattr(self.parent.dispatchers, name)
        return span

    @property
    def dead(self) -> bool:
        """Whether it is activated and, by the wall clock, its last ping is too old.

        This is how it looks from outside.  Dispatchers judge their siblings by whether the ping
        changes while they themselves wait, which no wrong clock can spoil.
        """
        if not self.activated:
            return False
        last = self.last_ping.value or self.activated
        return clock.now() - last > self.ping_death_interval

    def ping(self) -> None:
        """Say that the dispatcher lives."""
        self.last_ping.value = clock.now()

    # Coming and going

    def activate(self) -> None:
        """Mark as working.  ValueError if it is already."""
        if self.activated:
            raise ValueError("UUID is already activated in this queue", self.UUID)
        self.hand_back()  # what a sibling that did not have its code had to leave
        self._mark_activated()
        zope.event.notify(DispatcherActivated(self))

    def reactivate(self) -> None:
        """Mark as working again.  ValueError if it is.

        Jobs that were not handed back yet are still run by this dispatcher, and stay with it.
        """
        if self.activated:
            raise ValueError("UUID is already activated in this queue", self.UUID)
        self._mark_activated()
        zope.event.notify(DispatcherReactivated(self))

    def _mark_activated(self) -> None:
        self.activated = clock.now()
        self._left_by = None
        self.ping()

    def deactivate(self, *, crashed: bool = False, limit: int | None = None) -> None:
        """Mark as not working and hand back what its agents hold.  ValueError if it is not.

        `crashed` says that its process died: that counts against the jobs that were running.  Of
        very many jobs at most `limit` are handed back now; `hand_back` goes on with the others.
        """
        if not self.activated:
            raise ValueError("UUID is not activated in this queue", self.UUID)
        self.activated = None
        self.deactivated = clock.now()
        self.incarnation = None
        self._left_by = self._evidence() if crashed else STOPPED
        self.hand_back(limit)
        self.parent.dispatcher_left(self.UUID)
        zope.event.notify(DispatcherDeactivated(self))

    def _evidence(self) -> dict[str, Any]:
        """What is known of a death, in plain values; the jobs themselves are not loaded."""
        process = {} if self.process is None else self.process
        agents = list(self.values())
        held = itertools.chain.from_iterable(agent.newest_first() for agent in agents)
        return {
            "at": clock.now(),
            "host": process.get("host"),
            "pid": process.get("pid"),
            "dispatcher": str(self.UUID),
            "queue": self.parent.name,
            "held": sum(len(agent) for agent in agents),
            # One more, since each job leaves itself out.
            "others": tuple(_integer_oid(job) for job in itertools.islice(held, OTHERS_NAMED + 1)),
        }

    # Handing back

    @property
    def left_behind(self) -> bool:
        """Whether it is not activated and may hold jobs all the same."""
        return self._left_by is not None

    def hand_back(self, limit: int | None = None) -> int:
        """Hand back what the agents hold, at most `limit` jobs (None: all); answers how many.

        Jobs keep their order.  Those that cannot be read in this process are left until one comes
        that can; `left_behind` says whether any are left.
        """
        self.last_ping.touch()  # conflicts with a claim that we do not see, and with other sweepers
        count = 0
        for agent in self.values():
            rest = None if limit is None else limit - count
            count += hand_back(agent, self.parent, self._left_by, rest)
        if self._left_by is not None and not any(len(agent) for agent in self.values()):
            self._left_by = None
        return count


def hand_back(agent: Any, queue: Any, cause: Cause = None, limit: int | None = None) -> int:
    """Take up to `limit` jobs out of `agent` and see to each of them; answers how many.

    The newest come first: since each goes first in line, all keep their order.  `cause` is why.
    """
    if isinstance(cause, dict):
        cause = {**cause, "agent": agent.name}
        if agent.batch > 1:
            cause["grouped"] = True
    may_have_begun = agent.may_have_begun()
    count = 0
    for job in agent.newest_first():
        if count == limit:
            break
        if hand_back_one(job, agent, queue, cause, may_have_begun):
            count += 1
            reach("recovery.handed_back")
    return count


def hand_back_one(
    job: Any,
    agent: Any,
    queue: Any,
    cause: Cause = None,
    may_have_begun: Callable[[Any], bool] = lambda job: True,
) -> bool:
    """Take `job` out of `agent`, and do with it what its status asks for; `cause` is why.

    One that cannot be read in this process is left until one comes that can: then False.
    """
    error = why_unreadable(job)
    if error is not None:
        events.job_unreadable(f"agent {agent.name!r} of queue {queue.name!r}", error)
        return False
    if job.status == COMPLETED:
        agent.jobCompleted(job)
        return True
    databases = getattr(agent.parent, "databases", ())
    begun = may_have_begun(job)
    agent.let_go(job)
    job.parent = queue
    if job.status == ASSIGNED:
        queue.putBack(job)
    elif job.status == ACTIVE and job._again is not None:
        bookkeeping.put_again(job, queue)
    elif job.status == ACTIVE and not begun:
        queue.putBack(job)  # as if nobody had claimed it
    elif job.status == ACTIVE:
        two_databases.note_interruption(job, databases)
        job._interruption = cause
        job._token = None  # whatever still runs it commits nothing more
        bookkeeping.put_resumption(queue, job.handleInterrupt)
    elif job.status == CALLBACKS:
        two_databases.note_interruption(job, databases)
        job._interruption = cause
        bookkeeping.put_resumption(queue, job.resumeCallbacks)
    return True


@zope.interface.implementer(IDispatchers)
class Dispatchers(ReadMapping):
    """The dispatchers of one queue by UUID."""

    _ping_interval = PING_INTERVAL
    _ping_death_interval = PING_DEATH_INTERVAL

    @property
    def ping_interval(self) -> timedelta:
        """How often dispatchers ping whose record does not say."""
        return self._ping_interval

    @ping_interval.setter
    def ping_interval(self, span: timedelta) -> None:
        check_intervals(span, self._ping_death_interval)
        self._ping_interval = span

    @property
    def ping_death_interval(self) -> timedelta:
        """After which time without a ping dispatchers are dead whose record does not say."""
        return self._ping_death_interval

    @ping_death_interval.setter
    def ping_death_interval(self, span: timedelta) -> None:
        check_intervals(self._ping_interval, span)
        self._ping_death_interval = span

    def __init__(self, parent: Any) -> None:
        super().__init__()
        self.parent = parent

    def register(self, uuid: UUID) -> DispatcherAgents:
        """Make a record for `uuid`; ValueError if there is one."""
        uuid = UUID(int=uuid.int)
        if uuid in self:
            raise ValueError("UUID is already registered in this queue", uuid)
        record = DispatcherAgents(uuid)
        record.parent = self.parent
        record.name = uuid
        self._data[uuid] = record
        zope.event.notify(DispatcherRegistered(record))
        return record

    def unregister(self, uuid: UUID) -> DispatcherAgents:
        """Take the record of `uuid` out; ValueError while it is activated."""
        record: DispatcherAgents = self[uuid]
        if record.activated:
            raise ValueError("UUID is activated; deactivate it first", uuid)
        del self._data[uuid]
        record.parent = None
        zope.event.notify(DispatcherUnregistered(record, self.parent))
        return record

    def prune(self, age: timedelta = PRUNE_AFTER) -> list[UUID]:
        """Unregister those that were deactivated longer than `age` ago and hold no job.

        Answers their UUIDs.  By default that is after the jobs that they completed have rotated
        out.
        """
        oldest = clock.now() - age
        gone = [
            uuid
            for uuid, record in self.items()
            if not record.activated
            and record.deactivated is not None
            and record.deactivated < oldest
            and not any(len(agent) for agent in record.values())
        ]
        for uuid in gone:
            self.unregister(uuid)
        return gone

    def ping(self, uuid: UUID, is_dead: IsDead | None = None) -> None:
        """Say that `uuid` lives, if it is time to, and deactivate its next sibling if dead.

        A running dispatcher gives `is_dead(record)`, with which it judges all its siblings, and
        hands back in batches what they held; by default it is the record's own `dead`, and all is
        handed back at once.
        """
        record: DispatcherAgents = self[uuid]
        now = clock.now()
        if not record.activated:
            events.was_deactivated(record.UUID, self.parent.name)
            record.reactivate()
        last = record.last_ping.value
        if last is None or not timedelta() <= now - last < record.ping_interval:
            record.ping()
        siblings = self._active_after(record.UUID)
        for sibling in siblings[:1] if is_dead is None else siblings:
            if (is_dead or _looks_dead)(sibling):
                events.sibling_is_dead(sibling.UUID, self.parent.name)
                reach("recovery.found_dead")
                sibling.deactivate(crashed=True, limit=None if is_dead is None else 0)

    def left_behind(self) -> list[DispatcherAgents]:
        """The records that are not activated and may hold jobs all the same."""
        return [record for record in self.values() if record.left_behind]

    def _active_after(self, uuid: UUID) -> list[DispatcherAgents]:
        """The other activated dispatchers, in the order of the ring, from the next one on."""
        active = [(key, record) for key, record in self.items() if record.activated]
        later = [record for key, record in active if key > uuid]
        return later + [record for key, record in active if key < uuid]

    def share_of(self, uuid: UUID) -> tuple[int, int] | None:
        """Which of how many activated dispatchers `uuid` is; None if it is the only one."""
        active = [key for key, record in self.items() if record.activated]
        if len(active) < 2 or uuid not in active:
            return None
        return active.index(uuid), len(active)


def _integer_oid(job: Any) -> int:
    return int.from_bytes(job._p_oid or b"", "big")


def _looks_dead(record: DispatcherAgents) -> bool:
    return record.dead
