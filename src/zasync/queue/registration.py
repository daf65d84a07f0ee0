# SPDX-License-Identifier: ZPL-2.1
"""Stored: which dispatchers work a queue, whether they live, and how a dead one is cleared away.

`DispatcherAgents` is written when its dispatcher comes or goes, `LastPing` beside it every few
seconds; both only by that dispatcher, or by the sibling that finds it dead.
"""

from __future__ import annotations

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

PING_INTERVAL = timedelta(seconds=15)
PING_DEATH_INTERVAL = timedelta(seconds=60)
PRUNE_AFTER = timedelta(days=DAYS_KEPT + 1)

IsDead = Callable[[Any], bool]


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
    ping_interval = PING_INTERVAL
    ping_death_interval = PING_DEATH_INTERVAL
    databases: tuple[str, ...] = ()  # that its process has open, if these are several
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
        self._mark_activated()
        zope.event.notify(DispatcherActivated(self))

    def reactivate(self) -> None:
        """Mark as working again.  ValueError if it is."""
        if self.activated:
            raise ValueError("UUID is already activated in this queue", self.UUID)
        self._mark_activated()
        zope.event.notify(DispatcherReactivated(self))

    def _mark_activated(self) -> None:
        self.activated = clock.now()
        self.ping()
        self._hand_back_all()  # what a sibling that did not have its code had to leave

    def deactivate(self) -> None:
        """Mark as not working and hand back what its agents hold.  ValueError if it is not."""
        if not self.activated:
            raise ValueError("UUID is not activated in this queue", self.UUID)
        self.activated = None
        self.deactivated = clock.now()
        self.incarnation = None
        self.last_ping.touch()  # a claim that we do not see yet must not be committed with this
        self._hand_back_all()
        self.parent.dispatcher_left(self.UUID)
        zope.event.notify(DispatcherDeactivated(self))

    def _hand_back_all(self) -> None:
        for agent in self.values():
            hand_back(agent, self.parent)


def hand_back(agent: Any, queue: Any) -> None:
    """Take all jobs out of `agent`, so that they keep their order, and see to each of them."""
    for job in reversed(list(agent)):
        hand_back_one(job, agent, queue)
        reach("recovery.handed_back")


def hand_back_one(job: Any, agent: Any, queue: Any) -> None:
    """Take `job` out of `agent`, and do with it what its status asks for.

    One that cannot be read in this process is left until one comes that can.
    """
    error = why_unreadable(job)
    if error is not None:
        events.job_unreadable(f"agent {agent.name!r} of queue {queue.name!r}", error)
        return
    if job.status == COMPLETED:
        agent.jobCompleted(job)
        return
    databases = getattr(agent.parent, "databases", ())
    agent.let_go(job)
    job.parent = queue
    if job.status == ASSIGNED:
        queue.putBack(job)
    elif job.status == ACTIVE and job._again is not None:
        bookkeeping.put_again(job, queue)
    elif job.status == ACTIVE:
        two_databases.note_interruption(job, databases)
        job._token = None  # whatever still runs it commits nothing more
        bookkeeping.put_resumption(queue, job.handleInterrupt)
    elif job.status == CALLBACKS:
        two_databases.note_interruption(job, databases)
        bookkeeping.put_resumption(queue, job.resumeCallbacks)


@zope.interface.implementer(IDispatchers)
class Dispatchers(ReadMapping):
    """The dispatchers of one queue by UUID."""

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

        A running dispatcher gives `is_dead(record)`, with which it judges all its siblings; by
        default it is the record's own `dead`.
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
                sibling.deactivate()

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


def _looks_dead(record: DispatcherAgents) -> bool:
    return record.dead
