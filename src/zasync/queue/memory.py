# SPDX-License-Identifier: ZPL-2.1
"""What a dispatcher remembers between its claims; in its process, not in the database.

It spares looks at jobs that could not be taken a moment ago.  All of it is looked at anew after
some time, since nothing here is told when it is no longer true.
"""

from __future__ import annotations

from typing import Any

from zasync.foundation import clock
from zasync.foundation.reporting import events
from zasync.interfaces import UnresolvableError
from zasync.job.record import Place
from zasync.queue.waiting import LANE_MASK, RETURNED

REPORTED_AT_MOST = 10_000  # jobs of which is known that they were reported
LOOK_AGAIN = 5.0  # seconds until code that was not there is looked for again
FULL_FOR = 0.1  # seconds for which a quota that was full is taken to be so
REFUSED_FOR = 60.0  # seconds after which a filter is asked again about what it refused
EACH_REFUSED = 0.002  # or so many for each job, if that is more: to ask takes time
OTHERS_KNOWN_FOR = 1.0  # seconds for which what was the first job in the lanes of others is it

Tree = tuple[tuple[str, ...], str, int]


class Refusals:
    """What one filter has refused: of each tree all that lies before a mark.

    The marks take no more memory when more is refused.  A job that was committed later than LATE
    after it was put may lie before a mark; the filter is asked about it when it is asked again.
    """

    def __init__(self) -> None:
        self._marks: dict[Tree, int] = {}
        self._stopped: set[Tree] = set()
        self._count = 0
        self._since = clock.monotonic()
        self._others: dict[Any, tuple[float, int]] = {}

    def begin(self) -> None:
        """A claim begins."""
        self._stopped.clear()
        now = clock.monotonic()
        if now - self._since >= max(REFUSED_FOR, EACH_REFUSED * self._count):
            self._marks.clear()
            self._count, self._since = 0, now

    def mark(self, tree: Tree, latest: int, default: int) -> int:
        """The key after which the claim has to look, at most `latest`."""
        return min(self._marks.get(tree, default), latest)

    def refused(self, place: Place) -> None:
        """The filter has refused the job at `place`; the claim has looked at all before it."""
        tree = _tree(place)
        if place.kind != RETURNED and tree not in self._stopped:
            self._count += place.key > self._marks.get(tree, place.key - 1)
            self._marks[tree] = max(place.key, self._marks.get(tree, place.key))

    def others_begin(self, key: Any) -> int | None:
        """The moment before which no job in the lanes of others comes; None: to be looked up."""
        until, moment = self._others.get(key, (0.0, 0))
        return moment if clock.monotonic() < until else None

    def others_seen(self, key: Any, moment: int) -> None:
        """No job in the lanes of others comes before `moment`; later there will be later ones."""
        self._others = {key: (clock.monotonic() + OTHERS_KNOWN_FOR, moment)}

    def left(self, place: Place) -> None:
        """The job at `place` could not be taken for another reason; it is to be looked at again."""
        self._stopped.add(_tree(place))


def _tree(place: Place) -> Tree:
    return place.quota_names, place.kind, place.key & LANE_MASK


class ClaimMemory:
    """What a dispatcher remembers of one queue, or of several.

    `leaves_to_others` says that it comes again soon: so jobs in the lanes of other dispatchers
    are left to these for a moment.
    """

    def __init__(self, *, leaves_to_others: bool = False) -> None:
        self.leaves_to_others = leaves_to_others
        self.last_chance_held = False  # a job that runs here is parked if this process dies again
        self.left_to_others = False  # the last claim did so with some jobs, not to meet them there
        self.reported: set[Place] = set()
        self._missing: dict[Any, float] = {}  # code that is not here -> when to look again
        self._full: dict[Any, float] = {}  # queue and name of a quota -> when to look again
        self._refusals: dict[Any, Refusals] = {}

    def may_look_for(self, code: Any) -> bool:
        """Whether `code` was not looked for in vain a moment ago."""
        return not self._missing or clock.monotonic() >= self._missing.get(code, 0.0)

    def not_found(self, code: Any) -> None:
        """`code` is not in this process now."""
        self._missing[code] = clock.monotonic() + LOOK_AGAIN

    def full(self, queue: Any) -> set[str]:
        """The names of the quotas of `queue` that were full a moment ago."""
        now = clock.monotonic()
        self._full = {key: until for key, until in self._full.items() if until > now}
        return {name for oid, name in self._full if oid == queue._p_oid}

    def is_full(self, queue: Any, name: str) -> None:
        """The quota `name` has no place."""
        self._full[queue._p_oid, name] = clock.monotonic() + FULL_FOR

    def forget_full(self) -> None:
        """Places may have become free."""
        self._full.clear()

    def refusals(self, agent: Any) -> Refusals:
        """What the filter of `agent` has refused."""
        key = agent._p_oid, agent._filter
        if key not in self._refusals:
            # One filter for each agent, so that the memory is bounded by the agents.
            gone = [known for known in self._refusals if known[0] == agent._p_oid]
            for known in gone:
                del self._refusals[known]
            self._refusals[key] = Refusals()
        return self._refusals[key]

    def forget_refusals(self) -> None:
        """What was taken by claims that were not committed lies where it lay."""
        self._refusals.clear()

    def report_once(self, place: Place, job: Any, error: Exception) -> None:
        """Log a job that cannot be run here, or not even be read, but only once."""
        if place in self.reported:
            return
        if len(self.reported) >= REPORTED_AT_MOST:
            self.reported.clear()
        self.reported.add(place)
        if isinstance(error, UnresolvableError):
            events.job_unresolvable(job, error)
        else:
            events.job_unreadable(f"the queue at {place}", error)
