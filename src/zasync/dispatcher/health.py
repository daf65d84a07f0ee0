# SPDX-License-Identifier: ZPL-2.1
"""How the queues and their dispatchers do, as it looks from outside: from the database alone.

It reads, never writes, and a bounded number of jobs.  Ages of pings are told by the wall clock, so
the clocks of machines that differ make them wrong by the difference; dispatchers judge each other
otherwise (see `liveness`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from zasync.foundation import clock
from zasync.foundation.errors import why_unreadable
from zasync.interfaces import KEY, IAgent, UnresolvableError

Document = dict[str, Any]

HEALTHY, DEGRADED, BROKEN = "healthy", "degraded", "broken"
EXIT_CODES = {HEALTHY: 0, DEGRADED: 1, BROKEN: 2}

PATIENCE = timedelta(seconds=30)  # for a due job that nobody takes though there are places
LOOKED_AT = 200  # due jobs of a queue at most
TOLD = 5  # of them at most are named


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something that somebody should see to."""

    kind: str  # a word for programs; of the ones in docs/command-line.md
    severity: str  # DEGRADED: something stands still; BROKEN: everything may
    what: str  # what is the case
    do: str  # what to do about it
    queue: str | None = None

    def to_document(self) -> Document:
        return dataclasses.asdict(self)


def verdict(problems: Iterable[Problem]) -> str:
    """HEALTHY, DEGRADED or BROKEN: the worst of the problems."""
    return max((each.severity for each in problems), key=EXIT_CODES.__getitem__, default=HEALTHY)


def survey(root: Any, patience: timedelta = PATIENCE) -> Document:
    """How all queues under the root of a database do, as a JSON-able document.

    'health' is 'healthy', 'degraded' or 'broken'; 'problems' says why, and what to do.  `patience`
    is how long a due job may lie there while agents have places.  Times are ISO 8601 in UTC,
    durations seconds.  The caller begins the transaction.
    """
    queues = root.get(KEY) or {}
    looks = [Look(name, queue, patience) for name, queue in queues.items()]
    problems = [problem for look in looks for problem in look.problems()]
    if not looks:
        problems = [_no_queues()]
    return {
        "at": clock.now().isoformat(),
        "health": verdict(problems),
        "problems": [problem.to_document() for problem in problems],
        "queues": [look.to_document() for look in looks],
    }


def _no_queues() -> Problem:
    return Problem(
        "no-queues",
        DEGRADED,
        "the database has no queues",
        "see whether it is the right one; the first worker that is started makes them",
    )


class Look:
    """What is seen in one queue."""

    def __init__(self, name: str, queue: Any, patience: timedelta) -> None:
        self.name = name
        self.queue = queue
        self.patience = patience
        self.now = clock.now()
        self.records = [record for record in queue.dispatchers.values() if record.activated]
        self.dead = [record for record in self.records if record.dead]
        self.living = [record for record in self.records if not record.dead]
        self.due = self._due()

    def _due(self) -> list[tuple[datetime, Any]]:
        """The first of the due jobs, and since when each is due; the longest waiting first."""
        found = []
        for _number, job in zip(range(LOOKED_AT), self.queue.due(), strict=False):
            if why_unreadable(job) is None and job.begin_after <= self.now:
                found.append((job.begin_after, job))
        return sorted(found, key=lambda each: each[0])

    def to_document(self) -> Document:
        return {
            "name": self.name,
            "waiting": len(self.queue),
            "oldest_due": self._described(*self.due[0]) if self.due else None,
            "parked": len(self.queue.parked),
            "dispatchers": [self._dispatcher(record) for record in self.records],
        }

    def _described(self, since: datetime, job: Any) -> Document:
        return {
            "job": job.oid,
            "callable": job.callable_name,
            "since": since.isoformat(),
            "seconds": (self.now - since).total_seconds(),
        }

    def _dispatcher(self, record: Any) -> Document:
        return {
            "uuid": str(record.UUID),
            "state": "dead" if record.dead else "running",
            "last_ping": record.last_ping.value.isoformat(),
            "seconds_since_ping": self._seconds_since_ping(record),
            "places": sum(agent.size for agent in agents_of(record)),
            "taken": sum(agent.running for agent in agents_of(record)),
            "overdue": [
                {
                    "job": oid,
                    "database": database,
                    "agent": agent,
                    "seconds": (self.now - clock.from_micros(since)).total_seconds(),
                }
                for oid, database, agent, since in record.last_ping.overdue
            ],
        }

    def _seconds_since_ping(self, record: Any) -> float:
        """Never negative: the clock of another machine may be ahead."""
        age: timedelta = self.now - record.last_ping.value
        return max(0.0, age.total_seconds())

    # What is wrong

    def problems(self) -> Iterator[Problem]:
        yield from self._dead()
        yield from self._late()
        if self.due and not self.living:
            yield self._problem(
                "no-dispatcher",
                BROKEN,
                f"{len(self.due)} jobs or more are due, and no dispatcher that lives works the"
                " queue",
                "start a worker",
            )
        else:
            yield from self._not_taken()
        yield from self._overdue()
        yield from self._parked()

    def _problem(self, kind: str, severity: str, what: str, do: str) -> Problem:
        return Problem(kind, severity, f"queue {self.name!r}: {what}", do, self.name)

    def _dead(self) -> Iterator[Problem]:
        for record in self.dead:
            yield self._problem(
                "dead-dispatcher",
                DEGRADED if self.living else BROKEN,
                f"dispatcher {record.UUID} was not stopped and has not pinged for"
                f" {self._seconds_since_ping(record):.0f} s",
                "if it does not run, start it or another: a dispatcher that lives takes over its"
                " jobs; if it does, see whether it reaches the database and whether the clocks of"
                " its machine and this one agree",
            )

    def _late(self) -> Iterator[Problem]:
        """All those that should ping do not: then it is hardly their own fault."""
        late = [
            record
            for record in self.living
            if self._seconds_since_ping(record) > 2 * record.ping_interval.total_seconds()
        ]
        if late and len(late) == len(self.living):
            newest = min(map(self._seconds_since_ping, late))
            yield self._problem(
                "not-committing",
                DEGRADED,
                f"no dispatcher has committed a ping for {newest:.0f} s",
                "the storage does not commit, or all dispatchers hang: look in their logs, and"
                " whether the storage's server runs and has space to write",
            )

    def _not_taken(self) -> Iterator[Problem]:
        """Due jobs that lie there while agents have places for them."""
        neglected = [(since, job) for since, job in self.due if self._is_neglected(since, job)]
        if not neglected:
            return
        agents = [agent for record in self.living for agent in agents_of(record)]
        if not any(agent.size for agent in agents):
            yield self._problem(
                "no-places",
                BROKEN,
                "jobs are due, and no agent has a place for any",
                "give an agent a size of more than 0 (zasync worker --size N)",
            )
        elif any(agent.running < agent.size for agent in agents):
            for kind, what, do in _REASONS:
                jobs = [(since, job) for since, job in neglected if _reason(job) == kind]
                if jobs:
                    yield self._problem(kind, DEGRADED, f"{len(jobs)} {what}: {_named(jobs)}", do)

    def _is_neglected(self, since: datetime, job: Any) -> bool:
        if self.now - since <= self.patience:
            return False
        quotas = self.queue.quotas
        return not any(quotas[name].filled for name in job.quota_names if name in quotas)

    def _overdue(self) -> Iterator[Problem]:
        for record in self.living:
            overdue = record.last_ping.overdue
            if overdue:
                places = sum(agent.size for agent in agents_of(record))
                yield self._problem(
                    "overdue",
                    BROKEN if len(overdue) >= places and len(self.living) == 1 else DEGRADED,
                    f"{len(overdue)} of the {places} places of dispatcher {record.UUID} are taken"
                    " by jobs that run for too long",
                    "its log says where they are; a thread cannot be ended, so if they hang,"
                    " restart that process",
                )

    def _parked(self) -> Iterator[Problem]:
        parked = len(self.queue.parked)
        if parked:
            yield self._problem(
                "parked",
                DEGRADED,
                f"{parked} jobs are parked: they have ended, and a person is to see to them",
                "see why (zasync parked), then put them back or discard them",
            )


_REASONS = [
    (
        "unknown-callable",
        "jobs wait for code that this process does not have either",
        "start workers that have that code, or remove the jobs",
    ),
    (
        "not-taken",
        "jobs are due, places are free, and no agent takes them",
        "see the filters of the agents, and whether the workers have the jobs' code (their logs"
        " name what they do not find)",
    ),
]


def _reason(job: Any) -> str:
    try:
        job.check_resolvable()
    except UnresolvableError:
        return "unknown-callable"
    except Exception:  # what the code raises when it is imported here says nothing of workers
        pass
    return "not-taken"


def _named(jobs: list[tuple[datetime, Any]]) -> str:
    shown = [f"{job.callable_name} (job {job.oid})" for _since, job in jobs[:TOLD]]
    return ", ".join(shown) + (", ..." if len(jobs) > TOLD else "")


def agents_of(record: Any) -> list[Any]:
    """The agents of a dispatcher's record."""
    return [agent for agent in record.values() if IAgent.providedBy(agent)]
