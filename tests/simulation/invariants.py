# SPDX-License-Identifier: ZPL-2.1
"""What must hold in every committed state, and between one and the next.

`violations` looks at one state, `Watch` at what a commit has changed, `unfinished` at a state in
which nothing is left to be done.  The numbers I1 to I20 are those of the reliability notes.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any

from BTrees.check import check
from ZODB.POSException import ConflictError
from ZODB.serialize import referencesf
from ZODB.utils import u64

from tests.simulation import jobs
from zasync.dispatcher.pool import MOST_AHEAD
from zasync.failure import Failure
from zasync.interfaces import (
    ACTIVE,
    ASSIGNED,
    CALLBACKS,
    COMPLETED,
    KEY,
    NEW,
    PENDING,
    AbortedError,
    ICallbackProxy,
    TimeoutError,
)
from zasync.job import Job
from zasync.queue.waiting import LATER

ENDED = (CALLBACKS, COMPLETED)
CONTINUING = ("handleInterrupt", "resumeCallbacks", "continue_callbacks", "fail")


class Places:
    """Where every job of a queue lies."""

    def __init__(self, queue: Any) -> None:
        self.waiting: dict[int, list[Any]] = {}  # oid -> places
        self.held: dict[int, list[Any]] = {}  # oid -> agents
        self.completed: Counter[int] = Counter()
        self.errors: list[str] = []
        self.cared_for: set[int] = set()  # oids of jobs that another job is to continue
        for names, line in queue._waiting._lines.items():
            self._line(names, line)
        self.jobs = {job.oid: job for job, _place in self._waiting_jobs}
        for record in queue.dispatchers.values():
            for agent in record.values():
                self._agent(agent)
        for job in list(self.jobs.values()):
            if job.status != COMPLETED:
                self._continues(job)

    def _line(self, names: Any, line: Any) -> None:
        count = 0
        self._waiting_jobs = getattr(self, "_waiting_jobs", [])
        trees = [("returned", line.returned)]
        for ready, later, _added in line.lanes:
            trees += [("ready", ready), ("later", later)]
        for kind, tree in trees:
            for key, job in tree.items():
                if job is not None:
                    count += 1
                    place = (names, kind, key)
                    self.waiting.setdefault(job.oid, []).append(place)
                    self._waiting_jobs.append((job, place))
        if count != len(line):
            self.errors.append(f"I7 line {names}: {count} jobs, counted as {len(line)}")

    def _agent(self, agent: Any) -> None:
        for job in agent:
            self.held.setdefault(job.oid, []).append(agent)
            self.jobs[job.oid] = job
        for job in agent.completed:
            self.completed[job.oid] += 1

    def _continues(self, job: Any) -> None:
        names = job._names
        if names[-1] in CONTINUING:
            target = job if job._payload is None else job._payload.target
            if target is not None and target.oid not in self.cared_for:
                self.cared_for.add(target.oid)
                self._continues(target)  # which may be one that is to continue a third


def violations(root: Any) -> list[str]:
    """What is wrong in the state that `root` shows."""
    found: list[str] = []
    queue = root[jobs.KEY][""]
    places = Places(queue)
    found += places.errors
    for oid, where in places.waiting.items():
        found += _check_waiting(places.jobs[oid], where, queue)
    for oid, agents in places.held.items():
        found += _check_held(places.jobs[oid], agents, places)
    for record in queue.dispatchers.values():
        for agent in record.values():
            if not record.activated and len(agent) and not record.left_behind:
                found.append(f"I8 agent of {record.UUID}, not activated, holds {len(agent)} jobs")
    counted = 0
    for entry in root[jobs.LEDGER].values():
        found += _check_entry(entry, places)
        if entry.kind == "count":
            counted += len(entry.effects.runs)
    if counted != root[jobs.GAUGE].value:
        found.append(f"I2 {counted} jobs have counted, and the gauge says {root['gauge'].value}")
    return found


def _check_waiting(job: Any, where: list[Any], queue: Any) -> Iterator[str]:
    if len(where) != 1:
        yield f"I1 job {job.oid} waits at {len(where)} places: {where}"
    if job.status != PENDING:
        yield f"I7 job {job.oid} lies among the waiting, and is {job.status}"
    elif job.parent is not queue or tuple(job._place) != where[0]:
        yield f"I7 job {job.oid} lies at {where[0]}, and takes itself to lie at {job._place}"


def _check_held(job: Any, agents: list[Any], places: Places) -> Iterator[str]:
    if len(agents) != 1:
        yield f"I1 job {job.oid} is held {len(agents)} times"
    if job.oid in places.waiting:
        yield f"I1 job {job.oid} is held and waits"
    if job.status in (NEW, PENDING):
        yield f"I7 job {job.oid} is held by an agent, and is {job.status}"
    if job.parent is not agents[0] and job.status != COMPLETED:
        yield f"I7 job {job.oid} is held by an agent that is not its parent"


def _check_entry(entry: Any, places: Places) -> Iterator[str]:
    job, name = entry.job, f"job {entry.job.oid} (entry {entry.number}, {entry.kind})"
    oid, status = job.oid, job.status
    cared_for = oid in places.cared_for
    if status == PENDING:
        lost = oid not in places.waiting
    elif status == COMPLETED:
        lost = False
    elif status == NEW:
        lost = not entry.removed and not cared_for  # an expired one, which is failed by another
    else:
        lost = oid not in places.held and not cared_for
        # What is failed by hand is in the hands of who does it until its callbacks are done.
        lost = lost and not (entry.failed_by_hand and status == CALLBACKS)
    if lost:
        yield f"I1 {name} is {status} and lies nowhere"
    if places.completed[oid] > 1 or (places.completed[oid] and oid in places.held):
        yield f"I1 {name} is among the completed and somewhere else"
    if places.completed[oid] and status != COMPLETED:
        yield f"I1 {name} is among the completed, and is {status}"
    yield from _check_effects(entry, name)
    yield from _check_callbacks(entry, name)


def _check_effects(entry: Any, name: str) -> Iterator[str]:
    job, effects = entry.job, len(entry.effects.runs)
    if entry.kind in jobs.LOOSE:
        if job.status in ENDED and not job.failed and not effects:
            yield f"I2 {name} has succeeded without an effect"
        return
    if job.status in ENDED:
        expected = (0,) if job.failed else (1,)
        if job.failed and entry.kind == "job":
            expected = (0, 1)  # what it waited for has failed
    elif job.awaited is not None:
        expected = (1,)
    else:
        expected = (0,)
    if effects not in expected:
        yield f"I2 {name} is {job.status}, failed: {job.failed}, and has {effects} effects"
    if job.status in ENDED and job.failed and not _may_have_failed(entry):
        known = getattr(job._policy, "data", None)
        yield f"I9 {name} has failed without reason, with {known}: {job.result!r}"


def _may_have_failed(entry: Any) -> bool:
    """Whether there is a reason why the job of `entry` has failed."""
    job, failure = entry.job, entry.job.result
    if entry.kind in jobs.FAILING or entry.failed_by_hand:
        return True
    if entry.kind == "job" and len(entry.effects.runs):
        return True  # the inner one is in the ledger too
    if failure.check(TimeoutError):
        return job._begin_by is not None
    if entry.policy is jobs.NeverRetry or job._deadline is not None:
        return True
    data = getattr(job._policy, "data", {})
    if failure.check(AbortedError):
        return bool(data.get("interruptions", 0) > 9)
    if failure.check(ConflictError):
        return bool(data.get("conflicts", 0) > 4)
    return False


def callbacks_of(job: Any) -> Iterator[Any]:
    for item in job.callbacks:
        chosen = item.job if ICallbackProxy.providedBy(item) else item
        if chosen is not None:
            yield chosen


def _check_callbacks(entry: Any, name: str) -> Iterator[str]:
    job = entry.job
    for index, (callback, effects) in enumerate(entry.callbacks):
        runs = len(effects.runs)
        if runs > 1:
            yield f"I5 callback {index} of {name} has run {runs} times"
        if runs and job.status not in ENDED:
            yield f"I5 callback {index} of {name} has run before the job has ended"
        if callback.status in ENDED and not callback.failed and runs != 1:
            yield f"I5 callback {index} of {name} is {callback.status} with {runs} effects"
        if callback.status in ENDED and callback.failed and effects.kind not in jobs.FAILING:
            yield f"I5 callback {index} of {name} has failed: {callback.result!r}"
        if runs and not _is_result(effects.got, job.result):
            yield f"I5 callback {index} of {name} got {effects.got!r}, not {job.result!r}"


def _is_result(got: Any, result: Any) -> bool:
    if isinstance(got, Failure):
        return isinstance(result, Failure)
    return bool(got == result)


# From one state to the next


@dataclasses.dataclass(frozen=True)
class Seen:
    """What is remembered of a job's last committed state."""

    status: str
    token: Any
    result: Any
    quotas: tuple[str, ...]
    held: bool
    scheduled: bool  # waits, and not before a certain moment
    again: Any  # is to run again

    @classmethod
    def of(cls, job: Any) -> Seen:
        # What is compared later must not be an object that changes meanwhile.
        result = None
        if job.status in ENDED:
            value = job.result
            result = type(value).__name__, value if isinstance(value, int | str) else None
        held = job.status in (ASSIGNED, ACTIVE) and hasattr(job.parent, "mailbox")
        place = job._place if job.status == PENDING else None
        scheduled = place is not None and place.kind == LATER
        return cls(job.status, job._token, result, job._quota_names, held, scheduled, job._again)


class Watch:
    """Compares each commit with what was there before it; told of all commits in their order."""

    def __init__(self, seen: Any) -> None:
        self.jobs: dict[bytes, Seen] = {}
        self.effects: dict[bytes, tuple[Any, ...]] = {}
        self.running: Counter[str] = Counter()  # jobs per quota that agents hold
        self.agents: dict[bytes, tuple[int, int]] = {}  # how many it held, its greatest size
        self.exempt: set[str] = set()  # quotas that were made while jobs were running
        self.seen = seen
        self.entered: set[tuple[int, Any]] = set()  # oid, token of attempts whose code was entered

    def after(self, connection: Any, oids: list[bytes], clock: Any) -> Iterator[str]:
        """What is wrong with the commit that changed `oids`; `clock` is that of its node."""
        changed = [item for oid in oids if (item := _loaded(connection, oid)) is not None]
        before, running = dict(self.jobs), self.running
        for item in changed:
            if isinstance(item, Job):
                yield from self._job(item, clock)
        for item in changed:
            if isinstance(item, jobs.Effects):
                yield from self._effects(item, before)
        for record in connection.root()[KEY][""].dispatchers.values():
            for agent in record.values():
                yield from self._agent(agent)
        self.running = Counter(
            name for seen in self.jobs.values() if seen.held for name in seen.quotas
        )
        quotas = connection.root()[KEY][""].quotas
        for name, count in self.running.items():
            quota = quotas.get(name)
            if quota is None:
                self.exempt.add(name)
            elif name not in self.exempt and count > running[name] and count > quota.size:
                yield f"I4 {count} jobs run under quota {name!r} of size {quota.size}"

    def _job(self, job: Any, clock: Any) -> Iterator[str]:
        old, new = self.jobs.get(job._p_oid), Seen.of(job)
        self.jobs[job._p_oid] = new
        if old is None:
            return
        if old.status == COMPLETED and new.status != COMPLETED:
            yield f"I3 job {job.oid} was completed, and is {new.status} again"
        if old.status in ENDED and (new.status not in ENDED or new.result != old.result):
            yield f"I3 job {job.oid} had its result {old.result}, and now is {new}"
        if old.held and old.status == ACTIVE and new.status == PENDING and old.again is None:
            self.seen["a claimed job is given back as if nobody had claimed it"] += 1
            if (job.oid, old.token) in self.entered:
                yield f"I21 job {job.oid} was begun, and is given back as if it was not"
        if new.status == ACTIVE and old.status == PENDING:
            if old.scheduled and job._active_start < job._begin_after:
                yield f"I10 job {job.oid} was started before its begin_after"
            if job._deadline is not None and clock.poll_began > job._deadline:
                yield f"I10 job {job.oid} was started after its begin_by"

    def _effects(self, effects: Any, before: dict[bytes, Seen]) -> Iterator[str]:
        old = self.effects.get(effects._p_oid, ())
        self.effects[effects._p_oid] = effects.runs
        if len(effects.runs) <= len(old):
            return
        token = effects.runs[-1]
        owner = before.get(effects.job._p_oid)
        if owner is not None and (owner.status != ACTIVE or owner.token != token):
            yield (
                f"I6 an effect of job {effects.job.oid} was committed under token {token},"
                f" while it was {owner.status} under {owner.token}"
            )

    def _agent(self, agent: Any) -> Iterator[str]:
        held, size = self.agents.get(agent._p_oid, (0, 0))
        # A claim may have seen the size that it had before.
        size = max(size, agent.size)
        self.agents[agent._p_oid] = agent.running, size
        if agent.running > size + MOST_AHEAD and agent.running > held:
            yield f"I8 an agent of size {size} holds {agent.running} jobs"


def _loaded(connection: Any, oid: bytes) -> Any:
    try:
        item = connection.get(oid)
        item._p_activate()
    except KeyError:
        return None
    return item


# The end


def unfinished(root: Any) -> list[str]:
    """What is not as it should be when all faults are over and nothing is left to be done."""
    found = violations(root)
    queue = root[jobs.KEY][""]
    for entry in root[jobs.LEDGER].values():
        job = entry.job
        name = f"job {job.oid} (entry {entry.number}, {entry.kind})"
        if job.status != COMPLETED and not entry.removed:
            found.append(f"I16 {name} is {job.status} at the end")
        for index, (callback, _effects) in enumerate(entry.callbacks):
            if callback.status != COMPLETED and not entry.removed:
                found.append(f"I5 callback {index} of {name} is {callback.status} at the end")
    for quota in queue.quotas.values():
        held = [job.oid for job, token in quota._holders if job._quota_hold == token]
        if held:
            found.append(f"I17 quota {quota.name!r} is held by {held} at the end")
    for record in queue.dispatchers.values():
        for agent in record.values():
            if len(agent.mailbox) > 1:
                found.append(f"I5 {len(agent.mailbox) - 1} items lie in a mailbox at the end")
    return found + broken_trees(root)


def broken_trees(root: Any) -> list[str]:
    """BTrees of ours that are not sound."""
    queue = root[jobs.KEY][""]
    trees = [root[jobs.LEDGER], queue._waiting._lines]
    for line in queue._waiting._lines.values():
        trees += [line.returned, *(tree for lane in line.lanes for tree in lane[:2])]
    for record in queue.dispatchers.values():
        for agent in record.values():
            trees += [agent._running, agent._awaiting, agent.mailbox]
    found = []
    for tree in trees:
        try:
            tree._check()
            check(tree)
        except AssertionError as error:
            found.append(f"I7 a BTree is broken: {error}")
    return found


def dangling(revisions: dict[bytes, list[tuple[bytes, bytes]]]) -> list[str]:
    """References to records that are not there (I11)."""
    found = []
    for oid, known in revisions.items():
        for reference in referencesf(known[-1][1]):
            if reference not in revisions:
                found.append(f"I11 record {u64(oid)} refers to {u64(reference)}, which is gone")
    return found
