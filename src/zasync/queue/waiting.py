# SPDX-License-Identifier: ZPL-2.1
"""Stored: the jobs that wait in a queue, in the order in which they are due.

Jobs with the same quotas form a *line*, so that a full quota is passed over without loading any
of the jobs that want it.  A line has a tree of jobs that were put back (first of all), and a few
*lanes*, so that producers seldom write to the same bucket.  A lane has a tree of jobs that may
start at once and one of jobs that are due later, both keyed by microseconds since 1970; the low
bits of a key are the number of the lane.  Reading merges all trees into one sequence.

Only BTrees and Lengths of the BTrees package are written often: a storage can merge them without
having our code.  A tree that is never empty merges more: each holds a sentinel that stays.
"""

from __future__ import annotations

import heapq
import itertools
import weakref
from collections.abc import Iterable, Iterator, Set
from typing import Any, NamedTuple

from BTrees.Length import Length
from BTrees.LOBTree import LOBTree, LOBucket
from BTrees.OOBTree import OOBTree
from persistent import Persistent

from zasync.foundation import clock
from zasync.job.record import Place

LANE_BITS = 5
LANE_MASK = 2**LANE_BITS - 1
LANES = 8  # of a line without quotas; at most 2 ** LANE_BITS
LANES_WITH_QUOTAS = 2
RUN_LENGTH = 32  # so many puts of one transaction go to one lane before the next is taken
ORDER_BOUND = 1_000_000  # microseconds by which a dispatcher may prefer jobs of its own lanes
AGE_SHARE = 4  # or this part of the time for which the first of the others' jobs has waited
LATE = 2_000_000  # microseconds that may lie between the moment of a put and its commit
LEFT_TO_OTHERS = 30_000  # microseconds for which jobs in other lanes are left to their dispatchers
SAME_MOMENT = 100_000  # microseconds by which the keys of jobs due at one moment may differ
LARGEST_CHUNK = 64  # entries of a tree that are read at once
PART = 32  # jobs of a lane of others, about, that each of the other dispatchers begins with
MOMENTS_KEPT = 1000  # of those for which a connection has put jobs
_SENTINEL = -(2**63)
RETURNED, READY, LATER = "returned", "ready", "later"


class Entry(NamedTuple):
    """One waiting job on its way out; entries sort in the order of claims."""

    rank: int  # 0: was put back, 1: others
    moment: int
    is_ready: bool  # at the same moment, what was scheduled for it comes before what is put then
    order: int
    place: Place  # no two have the same, so jobs are never compared
    job: Any

    @property
    def is_of_others(self) -> bool:
        """Whether it lies in a lane that other dispatchers prefer."""
        return self.order != self.place.key


class Own:
    """Counts the sequences of one's own lanes that a reader has not come to the end of."""

    def __init__(self) -> None:
        self.left = 0

    def counted(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        self.left += 1
        yield from entries
        self.left -= 1


def new_tree() -> LOBTree:
    """A tree that is never empty."""
    tree = LOBTree()
    tree[_SENTINEL] = None
    return tree


class Lane:
    """The trees and the counter of one lane, as they are found in a line; not stored itself."""

    def __init__(self, ready: LOBTree, later: LOBTree, added: Length) -> None:
        self.ready = ready
        self.later = later
        self.added = added


class Line(Persistent):
    """The waiting jobs that want the same quotas.  Its own record is not written after its start.

    `added` of a lane counts what was ever put in, `removed` what was ever taken out: producers
    write the former, claims the latter, and a changed `added` is news for dispatchers.
    """

    def __init__(self, lanes: int) -> None:
        self.returned = new_tree()
        self.returned_added = Length()
        self.lanes = tuple((new_tree(), new_tree(), Length()) for _ in range(lanes))
        self.removed = Length()

    def lane(self, number: int) -> Lane:
        return Lane(*self.lanes[number])

    def counters(self) -> list[Length]:
        """The counters that grow when something is put in."""
        return [self.returned_added, *(added for _, _, added in self.lanes)]

    def parts(self) -> list[Any]:
        """The roots of its trees, and its counters."""
        trees = [tree for ready, later, _added in self.lanes for tree in (ready, later)]
        return [self.returned, self.removed, *trees, *self.counters()]

    def __len__(self) -> int:
        return int(sum(counter() for counter in self.counters()) - self.removed())

    def tree(self, kind: str, key: int) -> Any:
        if kind == RETURNED:
            return self.returned
        ready, later, _added = self.lanes[key & LANE_MASK]
        return ready if kind == READY else later


class Waiting(Persistent):
    """All lines of one queue.  Knows jobs as what lies in it, not what they are."""

    def __init__(self) -> None:
        self._lines = OOBTree()  # names of quotas -> Line
        self._lines[()] = Line(LANES)

    # volatile, per connection: what keeps the puts of one transaction in order and together
    _v_last = 0
    _v_first = 0
    _v_later: dict[int, int] | None = None  # moment that was asked for -> the last one given
    _v_lane: tuple[Any, int, int] = (None, 0, 0)
    _v_next_lanes: list[int] | None = None

    def lines(self) -> Iterable[tuple[tuple[str, ...], Line]]:
        """Names of quotas and line, for each line."""
        return self._lines.items()  # type: ignore[no-any-return]

    def _line(self, quota_names: tuple[str, ...]) -> Line:
        line = self._lines.get(quota_names)
        if line is None:
            line = self._lines[quota_names] = Line(LANES_WITH_QUOTAS if quota_names else LANES)
        return line  # type: ignore[no-any-return]

    def add(self, job: Any, quota_names: tuple[str, ...], due: int | None) -> Place:
        """Put `job` at the end of the line (`due` None), or at the time at which it is due."""
        lane = self._choose_lane(len(self._line(quota_names).lanes))
        if due is None:
            self._v_last = max(clock.now_micros(), self._v_last + 1)
            return self._insert(job, quota_names, READY, self._v_last, lane)
        if self._v_later is None or len(self._v_later) >= MOMENTS_KEPT:
            self._v_later = {}
        self._v_later[due] = self._v_later.get(due, due - 1) + 1  # after the last one due then
        return self._insert(job, quota_names, LATER, self._v_later[due], lane)

    def _insert(
        self, job: Any, quota_names: tuple[str, ...], kind: str, moment: int, number: int
    ) -> Place:
        line = self._line(quota_names)
        lane = line.lane(number)
        tree = lane.ready if kind == READY else lane.later
        key = moment << LANE_BITS | number
        while key in tree:
            key += 1 << LANE_BITS
        tree[key] = job
        lane.added.change(1)
        return Place(quota_names, kind, key)

    def add_first(self, job: Any, quota_names: tuple[str, ...]) -> Place:
        """Put `job` before all others; what is put first later comes before it."""
        first = next(iter(self._line(quota_names).returned.keys(min=_SENTINEL + 1)), 0)
        self._v_first = min(-clock.now_micros(), self._v_first - 1, first - 1)
        return self._insert_returned(job, quota_names, self._v_first)

    def _insert_returned(self, job: Any, quota_names: tuple[str, ...], key: int) -> Place:
        line = self._line(quota_names)
        while key in line.returned:
            key -= 1
        line.returned[key] = job
        line.returned_added.change(1)
        return Place(quota_names, RETURNED, key)

    def move(self, job: Any, place: Place, quota_names: tuple[str, ...]) -> Place:
        """Move `job` from `place` to the same moment in the line of `quota_names`."""
        self.discard(place)
        if place.kind == RETURNED:
            return self._insert_returned(job, quota_names, place.key)
        number = (place.key & LANE_MASK) % len(self._line(quota_names).lanes)
        return self._insert(job, quota_names, place.kind, place.key >> LANE_BITS, number)

    def _choose_lane(self, lanes: int) -> int:
        """One lane for a run of puts of one transaction, another for the next run.

        Transactions take all lanes in turn, in another order each time: so all get as many, and
        what comes at regular intervals does not always meet the same one.
        """
        known, number, puts = self._v_lane
        transaction = None if self._p_jar is None else self._p_jar.transaction_manager.get()
        same = transaction is None if known is None else known() is transaction
        if not same or puts == 0:
            if not self._v_next_lanes:
                self._v_next_lanes = list(range(LANES))
                clock.current().random.shuffle(self._v_next_lanes)
            number, puts = self._v_next_lanes.pop(), 0
        elif puts % RUN_LENGTH == 0:
            number += 1  # so that all lanes get as many
        if not same:
            known = None if transaction is None else weakref.ref(transaction)
        self._v_lane = (known, number, puts + 1)
        return number % lanes

    def discard(self, place: Place) -> None:
        """Take out what lies at `place`; KeyError if nothing does."""
        line = self._lines[place.quota_names]
        del line.tree(place.kind, place.key)[place.key]
        line.removed.change(1)

    def __len__(self) -> int:
        return sum(len(line) for line in self._lines.values())

    def entries(
        self,
        *,
        due: int | None = None,
        skip: Set[str] = frozenset(),
        share: tuple[int, int] | None = None,
        patience: int = 0,
        own: Own | None = None,
        refusals: Any = None,
        parts: bool = False,
    ) -> Iterator[Entry]:
        """The waiting jobs in the order of claims, without loading them.

        With `due`, only those that may start at that time (microseconds), and some that are due
        within SAME_MOMENT of it.  Lines whose names of quotas meet `skip` (looked at for each job)
        are passed over, apart from what was put back.
        With `share` (n, of), jobs of other lanes than this share are left to others for `patience`
        (microseconds), and count as younger then: by ORDER_BOUND, or an AGE_SHARE of the age of
        the first of them.  With `parts`, each dispatcher begins elsewhere among those of a lane of
        others that are no younger than that.
        `own` is told when there is nothing left in the lanes of this share.  What lies before the
        marks of `refusals` is passed over, and what it knows of the other lanes is not looked up.
        """
        ours, others = self._sequences(due, skip, share, patience, own or Own(), refusals, parts)
        merged: Iterator[Entry]
        if share is None or due is None or refusals is None:
            merged = heapq.merge(*ours, *(each.entries() for each in others))
        else:
            key = share, frozenset(skip)
            latest = due + ORDER_BOUND - patience  # what may not be taken yet comes after that
            merged = _merged_lazily(ours, others, key, latest, refusals)
        for entry in merged:
            if not skip or entry.rank == 0 or skip.isdisjoint(entry.place.quota_names):
                yield entry

    def _sequences(
        self,
        due: int | None,
        skip: Set[str],
        share: tuple[int, int] | None,
        patience: int,
        own: Own,
        refusals: Any,
        parts: bool,
    ) -> tuple[list[Iterator[Entry]], list[OfOthers]]:
        """Those of this share, and of what was put back; and the trees of other dispatchers."""
        latest = None if due is None else _last_key(due + SAME_MOMENT)
        ours, others = [], []
        for names, line in self._lines.items():
            ours.append(_read(names, RETURNED, line.returned, None, frozenset(), 0, _SENTINEL))
            if not skip.isdisjoint(names):
                continue
            for number, (ready, later, _added) in enumerate(line.lanes):
                for kind, tree, last in ((READY, ready, None), (LATER, later, latest)):
                    start = _SENTINEL
                    if refusals is not None and due is not None:
                        mark = _last_key(due - LATE)
                        start = refusals.mark((names, kind, number), mark, _SENTINEL)
                    if share is None or due is None or number % share[1] == share[0]:
                        is_claim = refusals is not None
                        read = _read(names, kind, tree, last, skip, 0, start, is_claim)
                        ours.append(own.counted(read))
                    else:
                        until = last if not patience else _last_key(due - patience)
                        part = ((share[0] - number) % share[1], share[1]) if parts else (0, 1)
                        others.append(OfOthers(names, kind, tree, due, until, skip, start, part))
        return ours, others

    def next_of_others(self, now: int, share: tuple[int, int]) -> int | None:
        """When (microseconds) a job may be taken that is still left to others, or None."""
        after = _last_key(now - LEFT_TO_OTHERS)
        latest = _last_key(now + SAME_MOMENT)
        keys = [
            next(iter(tree.keys(min=after, max=latest, excludemin=True)), None)
            for line in self._lines.values()
            for number, (ready, later, _added) in enumerate(line.lanes)
            if number % share[1] != share[0]
            for tree in (ready, later)
        ]
        moments = [key >> LANE_BITS for key in keys if key is not None]
        return min(moments) + LEFT_TO_OTHERS if moments else None

    def next_due(self) -> int | None:
        """When the first of those jobs is due that are not due yet (microseconds), or None."""
        after = _last_key(clock.now_micros())
        keys = [
            next(iter(later.keys(min=after, excludemin=True)), None)
            for line in self._lines.values()
            for _ready, later, _added in line.lanes
        ]
        return min((key >> LANE_BITS for key in keys if key is not None), default=None)

    def is_part(self, record: Any, names: Set[tuple[str, ...]]) -> bool:
        """Whether `record` is a part of the lines of these `names`, as far as one can tell.

        What is below the root of a tree does not know its tree; but each job knows its key.
        """
        lines = [line for key, line in self._lines.items() if key in names]
        parts = [part for line in lines for part in line.parts()]
        if any(record is part for part in (self._lines, *parts)):
            return True
        if not isinstance(record, LOBTree | LOBucket):
            return False
        key, value = next(iter(record.items()), (None, None))
        place = getattr(value, "_place", None)
        return key == _SENTINEL or (isinstance(place, Place) and place.key == key)


def _last_key(moment: int) -> int:
    """The greatest key of what is due at `moment`."""
    return (moment + 1 << LANE_BITS) - 1


def _merged_lazily(
    ours: list[Iterator[Entry]], others: list[OfOthers], key: Any, latest: int, refusals: Any
) -> Iterator[Entry]:
    """All in order; the trees of others, which they change all the time, only if need be.

    `refusals` remembers for `key` the moment from which on others have jobs; it is not later than
    `latest`, where there are none now.
    """
    begin = refusals.others_begin(key)
    if begin is None:
        orders = [order for each in others if (order := each.first_order()) is not None]
        begin = min(latest, *(order >> LANE_BITS for order in orders)) if orders else latest
        refusals.others_seen(key, begin)
    merged: Iterator[Entry] = heapq.merge(*ours)
    for entry in merged:
        if entry.rank > 0 and entry.moment >= begin:
            merged = itertools.chain([entry], merged)
            break
        yield entry
    yield from heapq.merge(merged, *(each.entries() for each in others))


class OfOthers(NamedTuple):
    """A tree in a lane of another dispatcher, as one that claims at `now` reads it.

    From the first after the key `start`, up to the key `latest`.  The first of its jobs are taken
    in parts, so that dispatchers that have nothing else to do do not all take the same ones: this
    one begins with the part `part` (n, of), and comes to what it has left out next.
    """

    names: tuple[str, ...]
    kind: str
    tree: Any
    now: int
    latest: int | None
    skip: Set[str]
    start: int
    part: tuple[int, int]

    def _first(self) -> int | None:
        keys = self.tree.keys(min=self.start, max=self.latest, excludemin=True)
        return next(iter(keys), None)

    def _handicap(self, first: int) -> int:
        return max(ORDER_BOUND, (self.now - (first >> LANE_BITS)) // AGE_SHARE) << LANE_BITS

    def first_order(self) -> int | None:
        """From where on its jobs come in the order of claims; None if there are none."""
        first = self._first()
        return None if first is None else first + self._handicap(first)

    def entries(self) -> Iterator[Entry]:
        first = self._first()
        if first is None:
            return
        handicap, start = self._handicap(first), self.start
        number, parts = self.part
        if number:
            last = first + handicap
            last = last if self.latest is None else min(last, self.latest)
            found = list(itertools.islice(self.tree.items(min=first, max=last), parts * PART))
            start = found[-1][0]
            begin = -(-len(found) * number // parts)
            for key, job in _prefetched(self.tree, found[begin:] + found[:begin]):
                order = (key if key >= found[begin % len(found)][0] else start) + handicap
                place = Place(self.names, self.kind, key)
                yield Entry(1, order >> LANE_BITS, self.kind == READY, order, place, job)
                if self.names and not self.skip.isdisjoint(self.names):
                    return
        yield from _read(
            self.names, self.kind, self.tree, self.latest, self.skip, handicap, start, True
        )


def _prefetched(tree: Any, items: list[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """The items, with more and more of the jobs asked for at once."""
    position, size = 0, 1
    while position < len(items):
        chunk = items[position : position + size]
        _prefetch(tree, chunk)
        yield from chunk
        position, size = position + size, min(2 * size, LARGEST_CHUNK)


def _prefetch(tree: Any, items: list[tuple[int, Any]]) -> None:
    """One question to the storage for all of these jobs, where it can be asked so."""
    if len(items) > 1 and tree._p_jar is not None:
        tree._p_jar.prefetch([job for _, job in items if job._p_changed is None])


def _read(
    names: tuple[str, ...],
    kind: str,
    tree: Any,
    latest: int | None,
    skip: Set[str],
    handicap: int,
    key: int,
    is_claim: bool = False,
) -> Iterator[Entry]:
    """What lies in `tree` after `key`; `is_claim` says that the jobs will be read."""
    rank, ready = 0 if kind == RETURNED else 1, kind == READY
    size = 1
    while True:
        # Looked up anew after each few, since the reader may have taken out what it got before.
        found = list(itertools.islice(tree.items(min=key, max=latest, excludemin=True), size))
        if is_claim:
            _prefetch(tree, found)
        for key, job in found:
            order = key + handicap
            yield Entry(rank, order >> LANE_BITS, ready, order, Place(names, kind, key), job)
            if names and not skip.isdisjoint(names):
                return
        if len(found) < size:
            return
        size = min(2 * size, LARGEST_CHUNK)
