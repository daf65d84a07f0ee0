# SPDX-License-Identifier: ZPL-2.1
"""What the control panel shows of queues and workers: plain values, read from kept counters."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from zasync.foundation import clock
from zasync.interfaces import KEY, IAgent


@dataclass(frozen=True)
class QueueLine:
    """One queue.  The ended jobs are those of about a week."""

    name: str
    waiting: int
    running: int
    ended: int
    failed: int
    parked: int
    workers: int
    """How many live."""

    @property
    def stands_still(self) -> bool:
        """Whether jobs wait and nobody does them."""
        return self.waiting > 0 and self.workers == 0


@dataclass(frozen=True)
class WorkerLine:
    """One process in one queue: `state` is 'running', 'dead' or 'stopped'."""

    queue: str
    uuid: str
    state: str
    place: str
    """Host and process id, as far as they are known."""
    silent_for: timedelta | None
    running: int
    size: int


def queues_of(connection: Any) -> dict[str, Any]:
    """The queues of the database, by name; also if they lie in another database of it."""
    return dict((connection.root().get(KEY) or {}).items())


def queue_lines(queues: dict[str, Any]) -> list[QueueLine]:
    """A line for each queue."""
    return [_queue_line(name, queue) for name, queue in sorted(queues.items())]


def _queue_line(name: str, queue: Any) -> QueueLine:
    records = list(queue.dispatchers.values())
    agents = [agent for record in records for agent in _agents(record)]
    return QueueLine(
        name=name,
        waiting=len(queue),
        running=sum(len(agent) for agent in agents),
        ended=sum(len(agent.completed) for agent in agents),
        failed=sum(agent.completed.failed for agent in agents),
        parked=len(queue.parked),
        workers=sum(1 for record in records if _state(record) == "running"),
    )


def worker_lines(queues: dict[str, Any]) -> list[WorkerLine]:
    """A line for each process that works a queue, or did so and died."""
    lines = [
        _worker_line(name, record)
        for name, queue in sorted(queues.items())
        for record in queue.dispatchers.values()
    ]
    return sorted(lines, key=lambda line: (_ORDER[line.state], line.queue, line.uuid))


_ORDER = {"dead": 0, "running": 1, "stopped": 2}


def _worker_line(queue_name: str, record: Any) -> WorkerLine:
    last = record.last_ping.value
    process = record.process or {}
    host, pid = process.get("host"), process.get("pid")
    return WorkerLine(
        queue=queue_name,
        uuid=str(record.UUID),
        state=_state(record),
        place=f"{host}, process {pid}" if host else "",
        # Never negative: the clock of another machine may be ahead.
        silent_for=None if last is None else max(timedelta(), clock.now() - last),
        running=sum(agent.running for agent in _agents(record)),
        size=sum(agent.size for agent in _agents(record)),
    )


def _agents(record: Any) -> list[Any]:
    return [agent for agent in record.values() if IAgent.providedBy(agent)]


def _state(record: Any) -> str:
    if not record.activated:
        return "stopped"
    return "dead" if record.dead else "running"
