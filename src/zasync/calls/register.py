# SPDX-License-Identifier: ZPL-2.1
"""Stored: the register of calls, which lie in a bucket for each hour in which some were put.

What producers write are plain trees, several of each, so that they seldom meet.  Their keys begin
with the time, so a bucket is found by the id of a call, and the newest come first without any
being loaded.  Old buckets are dropped whole, by a job: nobody's request has to wait for that.
"""

from __future__ import annotations

import dataclasses
import enum
import heapq
import secrets
import zlib
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, Final

from BTrees.LOBTree import LOBTree
from BTrees.OOBTree import OOBTree
from persistent import Persistent
from ZODB.POSException import POSKeyError

from zasync.calls.call import Call, CallOutcome, CallState
from zasync.foundation import clock
from zasync.foundation.errors import why_unreadable
from zasync.foundation.text import bounded_text, safe_repr
from zasync.interfaces import KEY, BadStatusError, IJob, ZasyncError
from zasync.job import Job

HOUR = 3_600_000_000  # microseconds
LANES = 16  # trees of a bucket, at most as many as a digit tells apart
TIME_DIGITS = 14  # of an id: microseconds since 1970
RANDOM_DIGITS = 32  # of an id: 128 bits
LEAST_POLL_INTERVAL = timedelta(seconds=2)
LONGEST_LABEL = 200
LONGEST_OWNER = 500
_AFTER_OWNER = "\0"
_DIGITS = "0123456789abcdef"
_BACKWARDS = str.maketrans(_DIGITS, _DIGITS[::-1])


class Anybody(enum.Enum):
    """The type of ANYBODY."""

    ANYBODY = "anybody"


ANYBODY: Final = Anybody.ANYBODY
"""Instead of an owner: whoever it is.  For managers."""


class CallNotFound(ZasyncError, LookupError):
    """There is no such call, or not any more, or it belongs to somebody else: nobody is told."""


@dataclasses.dataclass(frozen=True)
class Counts:
    """How many calls there are in each state; `failed` of the resolved ones, cancelled or not."""

    new: int = 0
    accepted: int = 0
    resolved: int = 0
    failed: int = 0


class Bucket(Persistent):
    """The calls that were put in one hour.  Its own record is not written by those who put."""

    def __init__(self, calls: Iterable[Any] = ()) -> None:
        self._by_id = tuple(OOBTree() for _ in range(LANES))  # id, counted backwards -> call
        self._by_owner = tuple(OOBTree() for _ in range(LANES))  # "owner NUL id" the same
        for call in calls:
            self.add(call)

    def add(self, call: Any) -> None:
        """Take `call` in."""
        key = _key_of(call.id)
        self._by_id[_lane_of(call.id)][key] = call
        if call.owner is not None:
            self._by_owner[_lane_of_owner(call.owner)][call.owner + _AFTER_OWNER + key] = call

    def remove(self, call: Any) -> None:
        """Take `call` out."""
        key = _key_of(call.id)
        del self._by_id[_lane_of(call.id)][key]
        if call.owner is not None:
            del self._by_owner[_lane_of_owner(call.owner)][call.owner + _AFTER_OWNER + key]

    def get(self, call_id: str) -> Any:
        """The call, or None."""
        return self._by_id[_lane_of(call_id)].get(_key_of(call_id))

    def newest_first(self) -> Iterator[Any]:
        """All calls; loads those that are asked for."""
        lanes = (lane.items() for lane in self._by_id)
        return (call for _key, call in heapq.merge(*lanes, key=_first))

    def owned_by(self, owner: str) -> Iterator[Any]:
        """The calls of `owner`, the newest first."""
        lane = self._by_owner[_lane_of_owner(owner)]
        return iter(lane.values(owner + _AFTER_OWNER, owner + chr(ord(_AFTER_OWNER) + 1)))

    def touch(self) -> None:
        """Be written, so that whoever else writes this at the same time conflicts."""
        self._p_changed = True

    def __len__(self) -> int:
        return sum(len(lane) for lane in self._by_id)


def _key_of(call_id: str) -> str:
    """The key in a tree: the newest has the smallest one, since trees are read from there."""
    return call_id.translate(_BACKWARDS)


def _first(item: tuple[str, Any]) -> str:
    return item[0]


def _lane_of(call_id: str) -> int:
    return int(call_id[-1], 16) % LANES


def _lane_of_owner(owner: str) -> int:
    return zlib.crc32(owner.encode("utf-8", "surrogatepass")) % LANES


class Calls(Persistent):
    """What users, and the application itself, have asked for.  Nothing here commits.

    `queue` is the name of the queue that the jobs are put in, `retention` how long a call is kept
    at least after it was resolved, `poll_interval` how long those should wait who ask for news
    again (at least two seconds).  It lies best in the database in which its queue lies.
    """

    def __init__(
        self,
        *,
        queue: str = "",
        retention: timedelta = timedelta(days=1),
        poll_interval: timedelta = timedelta(seconds=5),
    ) -> None:
        self._buckets = LOBTree()  # number of the hour since 1970 -> Bucket
        self.queue = queue
        self.retention = retention
        self.poll_interval = poll_interval

    @property
    def queue(self) -> str:
        """The name of the queue."""
        return self._queue

    @queue.setter
    def queue(self, name: str) -> None:
        if not isinstance(name, str):
            raise TypeError(f"the queue of a register is given by its name, not {safe_repr(name)}")
        self._queue = name

    @property
    def retention(self) -> timedelta:
        """How long a call is kept after it was resolved; it goes within about an hour of that."""
        return self._retention

    @retention.setter
    def retention(self, span: timedelta) -> None:
        self._retention = _checked_span(span, "retention")

    @property
    def poll_interval(self) -> timedelta:
        """How long to wait before one asks for news again."""
        return self._poll_interval

    @poll_interval.setter
    def poll_interval(self, span: timedelta) -> None:
        self._poll_interval = max(_checked_span(span, "poll_interval"), LEAST_POLL_INTERVAL)

    # Asking for something

    def put(
        self, item: Any, /, *args: Any, owner: str | None = None, label: str = "", **kwargs: Any
    ) -> Call:
        """Have `item`, a job or a callable with its arguments, performed; answers the call.

        Refused is what `Queue.put` refuses.  A callable that has an argument `owner` or `label`
        is given as a Job.  The caller commits.
        """
        if IJob.providedBy(item) and (args or kwargs):
            raise TypeError("the arguments of a job are given to the job, not to put")
        owner = _checked_owner(owner)
        job = self._find_queue().put(item if IJob.providedBy(item) else Job(item, *args, **kwargs))
        label = bounded_text(label or job.callable_name, LONGEST_LABEL)
        call = Call(self, _new_id(), job, owner, label)
        self._bucket_for(call.id).add(call)
        return call

    def put_again(self, call: Call) -> Any:
        """Put a new job for `call`, which has failed, and answer it."""
        bucket = self._buckets.get(_hour_of(call.id))
        if bucket is None or bucket.get(call.id) is None:
            raise CallNotFound(_not_found(call.id))
        bucket.touch()  # conflicts with one who drops the bucket at this moment
        queue = self._find_queue()
        if call.job in queue.parked:
            return queue.parked.put_back(call.job)
        return queue.put(call.job.again())

    def discard(self, call: Call) -> None:
        """Forget `call` before its time has come.

        BadStatusError if it is not resolved; CallNotFound if it is gone already.
        """
        if call.state is not CallState.RESOLVED:
            raise BadStatusError(
                f"call {call.id} cannot be discarded: it is {call.state}; cancel it first"
            )
        bucket = self._buckets.get(_hour_of(call.id))
        if bucket is None or bucket.get(call.id) is not call:
            raise CallNotFound(_not_found(call.id))
        bucket.touch()  # conflicts with one who drops the bucket, or asks again, at this moment
        bucket.remove(call)

    def _find_queue(self) -> Any:
        if self._p_jar is None:
            raise ValueError(
                "the register of calls is not stored yet: put it into the database, and add it to"
                " the connection or commit, before it is used"
            )
        queues = self._p_jar.root().get(KEY)
        queue = None if queues is None else queues.get(self._queue)
        if queue is None:
            raise LookupError(
                f"there is no queue {self._queue!r} in the database; make it, or set the name of"
                " another one as `queue` of the register"
            )
        return queue

    def _bucket_for(self, call_id: str) -> Bucket:
        hour = _hour_of(call_id)
        bucket: Bucket | None = self._buckets.get(hour)
        if bucket is None:
            bucket = self._buckets[hour] = Bucket()
            if self._buckets.minKey() < self._first_hour_to_stay():
                self._find_queue().put(Job(self.rotate))
        return bucket

    # Looking

    def get(self, call_id: str, *, owner: str | Anybody | None = ANYBODY) -> Call:
        """The call of that id.  CallNotFound if there is none, or if it is not of `owner`."""
        call: Call | None = None
        if _is_id(call_id):
            bucket = self._buckets.get(_hour_of(call_id))
            call = None if bucket is None else bucket.get(call_id)
        if call is None or (owner is not ANYBODY and call.owner != owner):
            raise CallNotFound(_not_found(call_id))
        return call

    def owned_by(self, owner: str) -> Iterator[Call]:
        """The calls of `owner`, the newest first; loads those that are asked for."""
        checked = _checked_owner(owner)
        if checked is None:
            raise TypeError("whose calls? Those without an owner are found among all")
        for bucket in self._newest_first():
            yield from bucket.owned_by(checked)

    def __iter__(self) -> Iterator[Call]:
        """All calls, the newest first; loads those that are asked for."""
        for bucket in self._newest_first():
            yield from bucket.newest_first()

    def _newest_first(self) -> Iterator[Bucket]:
        return (self._buckets[hour] for hour in sorted(self._buckets, reverse=True))

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self._buckets.values())

    def __bool__(self) -> bool:
        return True

    def counts(self) -> Counts:
        """How many calls there are in each state; loads all calls and their jobs."""
        numbers = dict.fromkeys(CallState, 0)
        failed = 0
        for call in self:
            numbers[call.state] += 1
            failed += call.outcome in (CallOutcome.FAILED, CallOutcome.CANCELLED)
        new, accepted, resolved = (numbers[state] for state in CallState)
        return Counts(new, accepted, resolved, failed)

    # Letting go

    def _first_hour_to_stay(self) -> int:
        """The first hour of which a call may be too young to go."""
        return (clock.now_micros() - self._retention // timedelta(microseconds=1)) // HOUR

    def rotate(self) -> int:
        """Drop the calls that were resolved longer ago than `retention`; answers how many.

        Done by a job when the first call of an hour is put, so that it need not be called.  A
        bucket is dropped whole; those of its calls that must stay are put in a new one.
        """
        cutoff = clock.now_micros() - self._retention // timedelta(microseconds=1)
        count = 0
        for hour in list(self._buckets.keys(max=cutoff // HOUR, excludemax=True)):
            bucket = self._buckets[hour]
            before = len(bucket)
            stay = [call for call in bucket.newest_first() if not _is_over(call, cutoff)]
            if len(stay) == before:
                continue
            bucket.touch()
            if stay:
                self._buckets[hour] = Bucket(stay)
            else:
                del self._buckets[hour]
            count += before - len(stay)
        return count


def _is_over(call: Call, cutoff: int) -> bool:
    """Whether `call` may go: also one whose job is lost, such as by a pack of another database."""
    error = why_unreadable(call.job)
    over = isinstance(error, POSKeyError) if error is not None else call.is_over(cutoff)
    if over:
        call._p_deactivate()  # there may be very many
    return over


def _new_id() -> str:
    """An id that nobody can guess.  Not from the clock's random numbers: those are guessable."""
    return f"{clock.now_micros():0{TIME_DIGITS}x}{secrets.token_hex(RANDOM_DIGITS // 2)}"


def _is_id(text: Any) -> bool:
    if not isinstance(text, str) or len(text) != TIME_DIGITS + RANDOM_DIGITS:
        return False
    return all(letter in _DIGITS for letter in text)


def _hour_of(call_id: str) -> int:
    return int(call_id[:TIME_DIGITS], 16) // HOUR


def _not_found(call_id: Any) -> str:
    return f"there is no call {safe_repr(call_id, 80)}, or it is over or somebody else's"


def _checked_span(span: Any, name: str) -> timedelta:
    if not isinstance(span, timedelta):
        raise TypeError(f"{name} must be a timedelta, not {safe_repr(span)}")
    if span <= timedelta():
        raise ValueError(f"{name} must be more than nothing: {span!r}")
    return span


def _checked_owner(owner: Any) -> str | None:
    """`owner`, which must be a text that can be told from all others."""
    if owner is None:
        return None
    if not isinstance(owner, str):
        raise TypeError(f"an owner is a text, not {safe_repr(owner)}")
    if not owner or len(owner) > LONGEST_OWNER or _AFTER_OWNER in owner:
        raise ValueError(
            f"an owner is a text of 1 to {LONGEST_OWNER} letters without NUL, not"
            f" {safe_repr(owner)}"
        )
    return owner
