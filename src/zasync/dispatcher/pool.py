# SPDX-License-Identifier: ZPL-2.1
"""The worker threads of one agent, and what each of the agent's jobs is doing in this process."""

from __future__ import annotations

import contextvars
import dataclasses
import queue
import threading
from collections.abc import Callable
from typing import Any

import transaction
import zope.component.hooks

from zasync.dispatcher.history import Key
from zasync.foundation import attempts
from zasync.foundation.reporting import events
from zasync.job.performance import Outcome

Task = Callable[[Any], None]
"""What a worker thread does with its connection."""


@dataclasses.dataclass
class Tracked:
    """A job of the agent that this process knows of."""

    key: Key
    token: int
    place: int  # its key in the agent
    running: bool = True  # in a thread, or on its way to one; else suspended
    outcome: Outcome | None = None


class Pool:
    """The threads of one agent.  `resize` is called by the polling thread only."""

    def __init__(
        self, db: Any, queue_name: str, agent_name: str, ended: Callable[[], None]
    ) -> None:
        self.db = db
        self.queue_name = queue_name
        self.agent_name = agent_name
        self.size = 0
        self.stop_signal = threading.Event()
        self.threads: set[threading.Thread] = set()
        self.tracked: dict[Key, Tracked] = {}
        self._ended = ended
        self._inbox: queue.SimpleQueue[Task | None] = queue.SimpleQueue()

    # Threads

    def resize(self, size: int) -> int:
        """Have `size` threads, each with a connection; answers by how many that is more."""
        change, self.size = size - self.size, size
        for _ in range(change):
            thread = threading.Thread(
                target=self._work, name=f"zasync {self.queue_name}/{self.agent_name}", daemon=True
            )
            self.threads.add(thread)
            thread.start()
        for _ in range(-change):
            self._inbox.put(None)
        if change:
            events.pool_resized(self.queue_name, self.agent_name, size)
        return change

    def submit(self, task: Task) -> None:
        """Have a thread do `task(connection)`.  Called in any thread."""
        self._inbox.put(task)

    def _work(self) -> None:
        attempts.stop_signal.set(self.stop_signal)
        connection = None
        try:
            while (task := self._inbox.get()) is not None:
                if connection is None:
                    connection = self.db.open()
                contextvars.copy_context().run(self._do, task, connection)
        finally:
            if connection is not None:
                transaction.abort()
                connection.close()
            self.threads.discard(threading.current_thread())

    def _do(self, task: Task, connection: Any) -> None:
        """Do one task and leave the thread as clean as it was before."""
        try:
            clean_thread()
            task(connection)
        except BaseException as error:  # a task sees to its own errors; this one is ours
            events.worker_failed(self.queue_name, self.agent_name, error)
        finally:
            clean_thread()
            connection.cacheGC()

    # Jobs

    def track(self, tracked: Tracked) -> None:
        self.tracked[tracked.key] = tracked

    def settled(self, tracked: Tracked, outcome: Outcome) -> None:
        """A run has ended.  Called in a worker thread."""
        tracked.outcome = outcome
        tracked.running = False
        self._ended()

    @property
    def busy(self) -> list[Tracked]:
        """The jobs that have no outcome yet."""
        return [tracked for tracked in list(self.tracked.values()) if tracked.outcome is None]

    @property
    def worth_a_poll(self) -> bool:
        """Whether so many have ended that the next should be claimed now, not a little later."""
        tracked = list(self.tracked.values())
        ended = sum(1 for each in tracked if each.outcome is not None)
        return bool(ended) and (ended * 2 >= self.size or ended == len(tracked))


def clean_thread() -> None:
    """No transaction, no site: nothing that a job could have left for the next one."""
    try:
        transaction.abort()
    except Exception as error:  # what somebody joined to it cannot abort
        events.leftover_transaction(error)
    zope.component.hooks.setSite(None)
