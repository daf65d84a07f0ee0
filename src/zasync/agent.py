# SPDX-License-Identifier: ZPL-2.1
"""Stored: the agent, one dispatcher's hand in one queue.

It claims jobs, holds the running ones and remembers those that have ended.  It and its lists are
written by its dispatcher only, apart from the mailbox and the lines of progress, in which others
leave what belongs to a job that is running.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import zope.component
import zope.interface
from BTrees.LOBTree import LOBTree
from persistent import Persistent

from zasync.foundation.containers import CompletedCollection
from zasync.foundation.errors import why_unreadable
from zasync.interfaces import (
    ACTIVE,
    COMPLETED,
    BadStatusError,
    IAgent,
    IDispatcherActivated,
    IDispatcherAgents,
    IFilterAgent,
    IQueue,
)
from zasync.job import bookkeeping, callables, values
from zasync.job.states import Move
from zasync.queue import ClaimMemory
from zasync.queue.queue import claimer

Chooser = Callable[[Any], Any]
_SENTINEL = -1  # a tree that is never empty merges more
_NO_PROGRESS: dict[int, Any] = {}


def _stored_callable(attribute: str, text: str) -> Any:
    """A property for a callable that is kept as a name, since its code may go away."""

    def getter(self: Any) -> Any:
        stored = getattr(self, attribute)
        if stored is None:
            return None
        names, target = stored
        return callables.resolve(names, values.unboxed(target), self)

    def setter(self: Any, callable: Any) -> None:
        stored = None
        if callable is not None:
            names, target = callables.describe(callable, self)
            callables.check_nameable(names, target)
            stored = names, values.boxed(target)
        self._choose_by(attribute, stored)

    return property(getter, setter, doc=text)


@zope.interface.implementer(IAgent)
class Agent(Persistent):
    """Has at most `size` jobs run at once, chosen by `filter(job)` or by `chooser(agent)`.

    A chooser answers a job that it has claimed from `agent.queue`, or None.  Subclasses may
    override `_choose` instead.  With `batch`, a thread performs up to so many short jobs one
    after the other and commits them together, about every `batch_time`.
    """

    parent: Any = None
    name: Any = None
    _filter: Any = None
    _chooser: Any = None
    _progress: Any = None  # oid of a held job -> line; made when the first is noted
    _batch = 1
    _batch_time = 50_000  # microseconds
    _width: int | None = None  # how many held jobs may have been begun; None: any number

    def __init__(
        self,
        chooser: Chooser | None = None,
        filter: Chooser | None = None,
        size: int = 3,
        *,
        batch: int = 1,
        batch_time: timedelta | None = None,
    ) -> None:
        # number of the claim -> job; the sentinel has the last number, since none is used twice
        self._running = LOBTree({_SENTINEL: 0})
        self._awaiting = LOBTree({_SENTINEL: None})  # the same, of jobs that wait for others
        self.mailbox = LOBTree({_SENTINEL: None})  # oid of a held job -> extras made meanwhile
        self.completed = CompletedCollection()
        self.size = size
        self.batch = batch
        if batch_time is not None:
            self.batch_time = batch_time
        if chooser is not None and filter is not None:
            raise ValueError("an agent has a chooser or a filter, not both")
        if chooser is not None:
            self.chooser = chooser
        if filter is not None:
            self.filter = filter

    filter = _stored_callable("_filter", "filter(job): whether the agent takes it; or None.")
    chooser = _stored_callable("_chooser", "chooser(agent): claims a job, or None; or None.")

    def _choose_by(self, attribute: str, stored: Any) -> None:
        other = self._filter if attribute == "_chooser" else self._chooser
        if stored is not None and other is not None:
            raise ValueError("an agent has a chooser or a filter, not both")
        setattr(self, attribute, stored)
        if self._filter is None and IFilterAgent.providedBy(self):
            zope.interface.noLongerProvides(self, IFilterAgent)
        elif self._filter is not None and not IFilterAgent.providedBy(self):
            zope.interface.alsoProvides(self, IFilterAgent)

    @property
    def size(self) -> int:
        """How many jobs may run at once."""
        return self._size

    @size.setter
    def size(self, size: int) -> None:
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise ValueError(f"the size of an agent is a number of jobs, not {size!r}")
        self._size = size

    @property
    def batch(self) -> int:
        """How many short jobs a thread may commit together at the most; 1: none."""
        return self._batch

    @batch.setter
    def batch(self, batch: int) -> None:
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
            raise ValueError(f"the batch of an agent is a number of jobs from 1 on, not {batch!r}")
        self._batch = batch

    @property
    def batch_time(self) -> timedelta:
        """For how long jobs that ended may wait for others to be committed with; 50 ms."""
        return timedelta(microseconds=self._batch_time)

    @batch_time.setter
    def batch_time(self, span: timedelta) -> None:
        if not isinstance(span, timedelta):
            raise TypeError(f"the batch_time of an agent is a timedelta, not {span!r}")
        if span <= timedelta():
            raise ValueError(f"the batch_time of an agent must be more than nothing, not {span}")
        self._batch_time = span // timedelta(microseconds=1)

    @property
    def queue(self) -> Any:
        """The queue, found through the parents, or None."""
        parent = self.parent
        while parent is not None and not IQueue.providedBy(parent):
            parent = getattr(parent, "parent", None)
        return parent

    # Claiming

    def claimJob(self) -> Any:
        """Claim and hold the next job.

        None if there is none, if `size` jobs are running, or if the dispatcher is not activated
        or is dead.
        """
        return next(self.claim_jobs(1), None)

    def claim_jobs(
        self, limit: int, memory: ClaimMemory | None = None, *, ahead: int = 0
    ) -> Iterator[Any]:
        """Claim up to `limit` jobs, one after the other, while there is room for them.

        `ahead` is the room for jobs that cannot be begun at once: see `may_have_begun`.
        """
        record = self.parent
        if record is None or not record.activated or record.dead:
            return
        if record._p_jar is not None and record._p_oid is not None:
            # Else a sibling that finds us dead at this moment would not be in our way.
            record._p_jar.readCurrent(record)
        room = min(limit, self._size + ahead - self.running)
        if room <= 0:
            return
        for job in self._choices(memory, max(0, self._size - self.running)):
            self._hold(job)
            # The other way round: a deactivation that does not see this claim conflicts with it.
            record.last_ping.touch()
            yield job
            room -= 1
            if room <= 0:
                return

    def _choices(self, memory: ClaimMemory | None, at_once: int) -> Iterator[Any]:
        if self._chooser is None and type(self)._choose is Agent._choose:
            refusals = None if memory is None else memory.refusals(self)
            yield from self.queue.claims(
                self.filter,
                uuid=self.parent.UUID,
                memory=memory,
                refusals=refusals,
                at_once=at_once,
            )
            return
        while (job := self._call_choose()) is not None:
            yield job

    def _call_choose(self) -> Any:
        """Call `_choose`, so that what it claims from the queue is claimed for our dispatcher."""
        token = claimer.set(self.parent.UUID)
        try:
            return self._choose()
        finally:
            claimer.reset(token)

    def _choose(self) -> Any:
        """Claim a job from the queue, or answer None.  The hook for subclasses."""
        chooser = self.chooser
        return self.queue.claim(self.filter) if chooser is None else chooser(self)

    def _hold(self, job: Any) -> None:
        job.move(Move.ASSIGN)
        job.parent = self
        job._place = self._running[_SENTINEL] = self._running[_SENTINEL] + 1
        self._running[job._place] = job

    # Holding

    @property
    def running(self) -> int:
        """How many jobs it holds that count against `size`: all but those that wait for others."""
        return len(self._running) - 1

    def is_too_narrow(self, width: int) -> bool:
        """Whether more held jobs may be begun, and not ended, than is written here."""
        return self._width is not None and width > self._width

    def widen(self, width: int) -> bool:
        """Note that up to `width` held jobs may be begun and not ended; answers if that is news.

        To be committed before any thread acts on it.
        """
        if width == self._width:
            return False
        self._width = width
        return True

    def may_have_begun(self) -> Callable[[Any], bool]:
        """Answer a function that tells of a held ACTIVE job whether it may have been begun.

        A dispatcher claims more than it has threads for, and begins its jobs in the order in
        which it has claimed them.  At most `_width` are begun and not ended at a time.  So of those
        without an end only the first so many can have been begun, apart from those that wait for
        a Deferred or a coroutine, which say so themselves.
        """
        last = self._running.maxKey()
        if self._width is not None and self.running > self._width:
            without_end = (place for place, job in self.held() if _has_no_end(job))
            last = next(itertools.islice(without_end, self._width - 1, None), last)

        def begun(job: Any) -> bool:
            in_order = isinstance(job._place, int) and self._running.get(job._place) is job
            return not in_order or job._place <= last or not _has_no_end(job)

        return begun

    def await_others(self, place: int) -> None:
        """Go on holding a job that waits for another, but no longer count it."""
        self._await(self._running.pop(place))

    def adopt(self, job: Any) -> None:
        """Hold a job whose own agent is gone, without counting it."""
        if job.parent is not self:
            job.parent = self
        self._await(job)

    def _await(self, job: Any) -> None:
        self._awaiting[self._awaiting.maxKey() + 1] = job

    def awaiting(self) -> list[Any]:
        """The jobs that it holds and that wait for others."""
        return list(self._awaiting.values(min=0))

    def let_go(self, job: Any) -> None:
        """Take `job` out as it is, with what others left here for it.  LookupError."""
        tree, key = self._find(job)
        del tree[key]
        self._hand_over(job)

    def _hand_over(self, job: Any) -> bool:
        """Give a job that was taken out what others left for it; answers whether that is extras.

        Loads the job only if there is anything.
        """
        oid = int.from_bytes(job._p_oid or b"", "big")
        if oid in self.progress:
            job._progress = self._progress.pop(oid)
        if oid not in self.mailbox:
            return False
        job.collect_extras(self.mailbox)
        return True

    def _find(self, job: Any) -> tuple[Any, int]:
        """The tree and the key of `job`."""
        if isinstance(job._place, int) and self._running.get(job._place) is job:
            return self._running, job._place
        for tree in (self._running, self._awaiting):
            for key, held in tree.items(min=0):
                if held is job:
                    return tree, key
        raise LookupError("item not in agent", job)

    def jobCompleted(self, job: Any) -> None:
        """Move `job` to `completed`.

        LookupError if it is not held, BadStatusError if it is not COMPLETED.
        """
        if job.status != COMPLETED:
            raise BadStatusError(f"{job!r} has not completed: its status is {job.status}")
        self.let_go(job)
        self.completed.add(job, failed=job.failed)
        self._see_to_late_callbacks(job)

    def tidy(self, place: int, failed: bool) -> None:
        """Like jobCompleted, for the job claimed under the number `place`, without loading it."""
        job = self._running.pop(place)
        self.completed.add(job, failed)
        if self._hand_over(job):
            self._see_to_late_callbacks(job)

    def _see_to_late_callbacks(self, job: Any) -> None:
        """Have callbacks run that were added while nobody could know that the job had ended."""
        if any(callback.status != COMPLETED for callback in job.callbacks):
            bookkeeping.put_resumption(self.queue, job.continue_callbacks)

    def newest_first(self) -> Iterator[Any]:
        """The jobs that it holds, the newest first; they may be taken out meanwhile.  Loads none.

        It reads no more of the lists than is asked for.
        """
        for tree in (self._awaiting, self._running):
            place = tree.maxKey()
            while place != _SENTINEL:
                yield tree[place]
                place = tree.maxKey(place - 1)

    def held(self) -> list[tuple[int, Any]]:
        """Number of the claim and job, of those that count against `size`; loads none."""
        return list(self._running.items(min=0))

    def hold_anew(self, place: int) -> int:
        """Have the job claimed under the number `place` come after all others; its new number."""
        job = self._running.pop(place)
        job._place = self._running[_SENTINEL] = self._running[_SENTINEL] + 1
        self._running[job._place] = job
        return job._place  # type: ignore[no-any-return]

    def held_at(self, place: int) -> Any:
        """The job claimed under the number `place`."""
        return self._running[place]

    def take(self, place: int) -> Any:
        """Take out and answer the job claimed under the number `place`, as it is."""
        job = self._running.pop(place)
        self._hand_over(job)
        return job

    @property
    def progress(self) -> Any:
        """Oid of a held job -> its last line of progress; see `zasync.job.progress`."""
        return _NO_PROGRESS if self._progress is None else self._progress

    def need_progress(self) -> Any:
        """The same, made if need be, to be written to."""
        if self._progress is None:
            self._progress = LOBTree({_SENTINEL: None})
        return self._progress

    def pull(self, index: int = 0) -> Any:
        """Take out and answer the job at `index`; it is NEW again.  IndexError."""
        job = self[index]
        self.remove(job)
        return job

    def remove(self, item: Any) -> None:
        """Take out a job; it is NEW again, and whatever runs it commits nothing more.

        LookupError if it is not held, BadStatusError if its callable has ended already.
        """
        self._find(item)
        Move.LET_GO.check(item)
        self.let_go(item)
        item.move(Move.LET_GO)
        item.parent = item._place = item._token = item._quota_hold = None

    def index(self, item: Any) -> int:
        """The place of `item`.  LookupError if it is not held."""
        for index, job in enumerate(self):
            if job is item:
                return index
        raise LookupError("item not in agent", item)

    def __contains__(self, item: Any) -> bool:
        return any(job is item for job in self)

    def __len__(self) -> int:
        return len(self._running) + len(self._awaiting) - 2

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        yield from self._running.values(min=0)
        yield from self._awaiting.values(min=0)

    def __getitem__(self, index: int) -> Any:
        return list(self)[index]

    def __delitem__(self, index: int) -> None:
        self.remove(self[index])


def _has_no_end(job: Any) -> bool:
    """Whether a held job surely takes a place of its dispatcher, or waits for one."""
    return (
        why_unreadable(job) is None
        and job.status == ACTIVE
        and job._again is job._suspension is job.awaited is None
    )


@zope.component.adapter(IDispatcherActivated)  # type: ignore[untyped-decorator]
def addMainAgentActivationHandler(event: Any) -> None:
    """Give a dispatcher that is activated and has no agent 'main' one that takes any job."""
    record = event.object
    if IDispatcherAgents.providedBy(record) and "main" not in record:
        record["main"] = Agent()
