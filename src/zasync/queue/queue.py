# SPDX-License-Identifier: ZPL-2.1
"""Stored: the queue, its jobs that nobody has claimed yet, and the mapping of queues.

How the jobs lie and are read in order is in `zasync.queue.waiting`; nothing here commits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import zope.component
import zope.interface
from persistent import Persistent
from persistent.interfaces import IPersistent
from ZODB.interfaces import IConnection
from ZODB.POSException import POSError

from zasync.foundation import clock
from zasync.foundation.containers import ReadMapping
from zasync.foundation.errors import Trouble, classify, why_unreadable
from zasync.foundation.failpoints import reach
from zasync.foundation.wakeup import ring_after_commit
from zasync.interfaces import (
    IUUID,
    KEY,
    NEW,
    PENDING,
    IQueue,
    IQueues,
    TimeoutError,
    UnresolvableError,
)
from zasync.job import Job, crashes, relations
from zasync.job.adapting import as_job
from zasync.job.record import Place
from zasync.job.states import Move
from zasync.queue.memory import ClaimMemory, Refusals
from zasync.queue.parked import Parked
from zasync.queue.quota import Quotas
from zasync.queue.registration import Dispatchers
from zasync.queue.waiting import LATER, LEFT_TO_OTHERS, Entry, Own, Waiting

Filter = Callable[[Any], Any]

claimer: ContextVar[UUID | None] = ContextVar("claimer", default=None)
"""The dispatcher for which a chooser that is being called claims; its agent sets it."""


@zope.interface.implementer(IQueue)
class Queue(Persistent):
    """A persistent, ordered collection of jobs that nobody has claimed yet."""

    parent: Any = None
    name: Any = None
    _crash_limit = crashes.CRASH_LIMIT
    _parked: Parked | None = None  # old queues have none until the first job is parked

    def __init__(self) -> None:
        self._waiting = Waiting()
        self.quotas = Quotas(self)
        self.dispatchers = Dispatchers(self)
        self._parked = Parked(self)

    @property
    def parked(self) -> Parked:
        """The jobs that ended with a ParkedError, such as those under which processes died."""
        if self._parked is None:
            self._parked = Parked(self)
        return self._parked

    @property
    def crash_limit(self) -> int:
        """After how many deaths of its process a job is parked, if it does not say itself (3)."""
        return self._crash_limit

    @crash_limit.setter
    def crash_limit(self, limit: int) -> None:
        self._crash_limit = crashes.checked_limit(limit)

    # Putting in

    def put(
        self,
        item: Any,
        begin_after: datetime | None = None,
        begin_by: timedelta | None = None,
        failure_log_level: int | None = None,
        retry_policy_factory: Any = None,
    ) -> Any:
        """Have `item` (adapted to IJob) performed; answers the job.  The caller commits.

        Only a NEW job (ValueError), with an aware `begin_after` and a `begin_by` that is not
        negative (ValueError), known quotas (ValueError('unknown quota name', name)), and a
        callable and arguments that the database can hold (NotStorableError).
        """
        job = as_job(item)
        uuid = zope.component.queryUtility(IUUID)
        self._prepare(job, uuid, begin_after, begin_by, failure_log_level, retry_policy_factory)
        self._put(job)
        return job

    def _put(self, job: Any) -> None:
        place = self._line_up(job, job._begin_after)
        job.set_deadline()
        self._admit(job, Move.PUT, place)
        reach("put.added")

    def put_many(
        self,
        items: Iterable[Any],
        begin_after: datetime | None = None,
        begin_by: timedelta | None = None,
        failure_log_level: int | None = None,
        retry_policy_factory: Any = None,
    ) -> list[Any]:
        """Have all `items` performed, as if `put` was called for each; answers the jobs.

        If one of them is refused, with an error as of `put`, none is put.  The caller commits.
        """
        jobs = [as_job(item) for item in items]
        if len({id(job) for job in jobs}) < len(jobs):
            raise ValueError("one of these jobs is there twice, and a job can be put only once")
        uuid = zope.component.queryUtility(IUUID)
        for job in jobs:
            self._prepare(job, uuid, begin_after, begin_by, failure_log_level, retry_policy_factory)
        for job in jobs:
            self._put(job)
        return jobs

    def _prepare(
        self,
        job: Any,
        uuid: Any,
        begin_after: datetime | None,
        begin_by: timedelta | None,
        failure_log_level: int | None,
        retry_policy_factory: Any,
    ) -> None:
        """Check and set all that `put` was given."""
        _check_new(job)
        _set_options(job, begin_after, begin_by, failure_log_level, retry_policy_factory)
        self.quotas.check_known(job.quota_names)
        job.check_storable(self._p_jar)
        if uuid is not None:
            job.assignerUUID = uuid

    def putBack(self, job: Any) -> None:
        """Put a job that was claimed first in line; it keeps its places in quotas.

        If an agent holds the job still, it is taken out of it.
        """
        Move.PUT_BACK.check(job)
        agent = job.agent
        if agent is not None and job in agent:
            agent.let_go(job)
        self._admit(job, Move.PUT_BACK, self._waiting.add_first(job, job.quota_names))

    def reschedule(self, job: Any, due: int) -> None:
        """Put a job that was run back, to be run at `due` (microseconds since 1970)."""
        Move.RESCHEDULE.check(job)
        job._quota_hold = None
        self._admit(job, Move.RESCHEDULE, self._line_up(job, due))

    def _line_up(self, job: Any, due: int | None) -> Place:
        """A place at the moment `due`; at the end of the line if that is past, or None."""
        now = clock.now_micros()
        is_later = due is not None and due > now
        job._begin_after = due if is_later else now
        return self._waiting.add(job, job.quota_names, due if is_later else None)

    def requeue(self, job: Any, quota_names: tuple[str, ...]) -> None:
        """Move a waiting job to where jobs with these quotas lie."""
        self.quotas.check_known(quota_names)
        job._place = self._waiting.move(job, job._place, quota_names)

    def _admit(self, job: Any, move: Move, place: Place) -> None:
        job.move(move)
        job._place = place
        job._token = job._again = None
        job.parent = self
        if self._p_jar is not None:
            if job._p_jar is None:
                self._p_jar.add(job)  # at home at once, so that it can be claimed and called
            ring_after_commit(self._p_jar)

    # Taking out

    def pull(self, index: int = 0) -> Any:
        """Take out and answer the job at `index`; it is NEW again.  IndexError."""
        job = self[index]
        self.remove(job)
        return job

    def remove(self, item: Any) -> None:
        """Take out a job; it is NEW again.  LookupError('item not in queue', item)."""
        if not (relations.is_job(item) and item.status == PENDING and item.parent is self):
            raise LookupError("item not in queue", item)
        self._take_out(item)
        item._quota_hold = None

    def _take_out(self, job: Any) -> None:
        self._waiting.discard(job._place)
        job.move(Move.TAKE_OUT)
        job._place = None
        job.parent = None

    def claim(self, filter: Filter | None = None, default: Any = None) -> Any:
        """Take out and answer the first due job that the filter and its quotas allow.

        An expired one is replaced by a job that fails it.  A job whose callable is not to be
        found in this process is left for others.  `default` if there is none.
        """
        return next(self.claims(filter), default)

    def claims(
        self,
        filter: Filter | None = None,
        *,
        uuid: UUID | None = None,
        memory: ClaimMemory | None = None,
        refusals: Refusals | None = None,
        at_once: int | None = None,
    ) -> Iterator[Any]:
        """Claim one job after the other, for the dispatcher `uuid`, as long as there are any.

        `refusals` are those of `filter`.  Where dispatchers leave jobs to each other, and
        there is none in its own lanes, it ends when `at_once` are claimed.
        """
        uuid = uuid or claimer.get()
        memory = memory or ClaimMemory()
        refusals = refusals or Refusals()
        refusals.begin()
        now = clock.now_micros()
        full = memory.full(self)
        found: set[Any] = set()  # code that is here
        share = None if uuid is None else self.dispatchers.share_of(uuid)
        own, found_own, count = Own(), False, 0
        patience = LEFT_TO_OTHERS if memory.leaves_to_others else 0
        for entry in self._waiting.entries(
            due=now,
            skip=full,
            share=share,
            patience=patience,
            own=own,
            refusals=refusals,
            # What a filter refuses is remembered of a tree from its first job on.
            parts=filter is None and memory.leaves_to_others,
        ):
            if memory.leaves_to_others and entry.is_of_others and not own.left:
                if at_once is not None and count >= at_once:
                    return  # they cannot be begun here yet, but perhaps there
                if found_own:
                    memory.left_to_others = True
                    return
            job = entry.job
            if not self._may_be_taken(entry, uuid, memory) or not _is_due(entry, now):
                refusals.left(entry.place)
                continue
            last_chance = crashes.is_last_chance(job)
            if last_chance and memory.last_chance_held:
                refusals.left(entry.place)
                continue  # two of them in one process, and the innocent would be parked too
            expired = job._deadline is not None and job._deadline < now
            has_code = self._has_code(entry, memory, found)
            if has_code and filter and not self._passes(filter, entry, memory):
                refusals.refused(entry.place)
                continue
            if expired:  # whether its code is here or not: nobody will call it
                found_own, count = found_own or not entry.is_of_others, count + 1
                self._take_out(job)
                yield self._failing(job)
                continue
            if not has_code or job._place != entry.place:  # taken out while we were reading
                refusals.left(entry.place)
                continue
            names = entry.place.quota_names
            without_place = names and self.quotas.without_place(names, job)
            if without_place:
                refusals.left(entry.place)
                full.update(without_place)
                for name in without_place:
                    memory.is_full(self, name)
                continue
            self._take_out(job)
            if names:
                self.quotas.take_places(job)
            memory.last_chance_held |= last_chance
            found_own, count = found_own or not entry.is_of_others, count + 1
            yield job

    def _may_be_taken(self, entry: Entry, uuid: UUID | None, memory: ClaimMemory) -> bool:
        """Whether the job can be read here, and is not meant for another dispatcher."""
        job = entry.job
        unreadable = why_unreadable(job)
        if unreadable is not None:
            memory.report_once(entry.place, job, unreadable)
            return False
        return job._only_for is None or (uuid is not None and job._only_for == uuid.int)

    def _has_code(self, entry: Entry, memory: ClaimMemory, found: set[Any]) -> bool:
        """Whether the job's callable is to be found in this process; `found` is what is."""
        job = entry.job
        code = (type(job), job.code) if job.is_named_only else None
        if code in found:
            return True
        try:
            if not memory.may_look_for(job.code):
                return False
            job.check_resolvable()
        except UnresolvableError as error:
            memory.not_found(job.code)
            memory.report_once(entry.place, job, error)
            return False
        except Exception as error:
            if classify(error, from_storage=True) is not Trouble.OTHER:
                raise
            memory.report_once(entry.place, job, error)
            return False
        if code is not None:
            found.add(code)
        return True

    def _passes(self, filter: Filter, entry: Entry, memory: ClaimMemory) -> bool:
        """Whether the filter takes the job; one whose parts it cannot read is left."""
        try:
            return bool(filter(entry.job))
        except (UnresolvableError, POSError) as error:
            if classify(error, from_storage=True) is not Trouble.OTHER:
                raise
            memory.report_once(entry.place, entry.job, error)
            return False

    def _failing(self, expired: Any) -> Any:
        job = Job(expired.fail, TimeoutError("the job was not begun by its begin_by"))
        job._begin_after = clock.now_micros()
        expired.parent = self
        return job

    # Looking

    def __len__(self) -> int:
        return len(self._waiting)

    def __bool__(self) -> bool:
        return len(self) > 0

    def __iter__(self) -> Iterator[Any]:
        return (entry.job for entry in self._waiting.entries())

    def __getitem__(self, index: int) -> Any:
        position = index if index >= 0 else index + len(self)
        if position < 0:
            raise IndexError(index)
        for job in itertools.islice(self, position, None):
            return job
        raise IndexError(index)

    def due(self) -> Iterator[Any]:
        """The jobs that could be claimed now, in that order, apart from quotas; loads none."""
        now = clock.now_micros()
        return (entry.job for entry in self._waiting.entries(due=now))

    def next_due(self) -> datetime | None:
        """When the first job that is scheduled for later is due, or None."""
        due = self._waiting.next_due()
        return None if due is None else clock.from_micros(due)

    def next_of_others(self, uuid: UUID) -> datetime | None:
        """When `uuid` may take a waiting job that is left to another dispatcher still, or None."""
        share = self.dispatchers.share_of(uuid)
        if share is None:
            return None
        moment = self._waiting.next_of_others(clock.now_micros(), share)
        return None if moment is None else clock.from_micros(moment)

    def fair_share(self, uuid: UUID) -> int:
        """How many of the waiting jobs would be those of `uuid` if all dispatchers were equal."""
        share = self.dispatchers.share_of(uuid)
        return len(self) if share is None else -(-len(self) // share[1])

    def counters(self) -> list[Any]:
        """The persistent counters that change whenever something is put in."""
        return [counter for _names, line in self._waiting.lines() for counter in line.counters()]

    def explains(self, record: Any, jobs: list[Any]) -> bool:
        """Whether `record`, which was changed, changes because of `jobs`, which were put here."""
        names = {job.quota_names for job in jobs if job.parent is self}
        return self._waiting.is_part(record, names)

    # Hooks for subclasses

    def dispatcher_left(self, uuid: UUID) -> None:
        """Called when the dispatcher `uuid` has been deactivated in this queue."""


def _is_due(entry: Entry, now: int) -> bool:
    """Whether the job may start: the keys of those due at one moment differ a little."""
    return entry.place.kind != LATER or entry.job._begin_after <= now


def _check_new(job: Any) -> None:
    if not job._names:  # ZODB empties objects that were new when the storage was lost in a commit
        raise ValueError(
            "this job lost its content when the transaction that it was put in failed;"
            " make a new one to put it again"
        )
    if job.status != NEW:
        raise ValueError(
            f"only a new job can be put, and the status of this one is {job.status}", job
        )
    if relations.parent_job(job) is not None:
        raise ValueError("this job is a callback of another job and cannot be put", job)
    if job.parent is not None:
        raise ValueError("this job belongs to another object already and cannot be put", job)


def _set_options(
    job: Any,
    begin_after: datetime | None,
    begin_by: timedelta | None,
    failure_log_level: int | None,
    retry_policy_factory: Any,
) -> None:
    if begin_after is not None:
        job.begin_after = begin_after
    if begin_by is not None:
        job.begin_by = begin_by
    if failure_log_level is not None:
        job.failure_log_level = failure_log_level
    if retry_policy_factory is not None:
        job.retry_policy_factory = retry_policy_factory


@zope.interface.implementer(IQueues)
class Queues(ReadMapping):
    """The mapping of queues that lies in the database root under `zasync.interfaces.KEY`."""

    parent: Any = None
    schema = 1  # the version of the stored model; see zasync.storage.check_schema

    def __setitem__(self, name: str, queue: Any) -> None:
        if not IQueue.providedBy(queue):
            raise ValueError("value must be IQueue")
        self._add(name, queue)

    def __delitem__(self, name: str) -> None:
        self._take(name)

    def pop(self, name: str) -> Any:
        """Take out and answer the queue `name`."""
        return self._take(name)


@zope.component.adapter(IPersistent)  # type: ignore[untyped-decorator]
@zope.interface.implementer(IQueue)
def getDefaultQueue(obj: Any) -> Any:
    """Adapter from a persistent object, or a connection, to the queue named ''.

    None (could not adapt) if the object is not stored or the database has no such queue.
    """
    connection = IConnection(obj, None)
    if connection is None:
        connection = getattr(obj, "_p_jar", None)
    if connection is None:
        return None
    queues = connection.root().get(KEY)
    return None if queues is None else queues.get("")
