# SPDX-License-Identifier: ZPL-2.1
"""The steps of a dispatcher's stop that wait: for jobs, and for a storage that may not answer."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from zasync.dispatcher.polling import Poller
from zasync.dispatcher.pool import Pool, Tracked
from zasync.foundation import attempts, clock
from zasync.foundation.reporting import events


def drained(pools: Sequence[Pool], grace: float) -> list[Tracked]:
    """Wait until no job runs, for at most `grace` seconds; then stop all that waits in the pools.

    Answers the jobs that have not ended.
    """
    deadline = clock.monotonic() + grace
    while busy := next((pool for pool in pools if pool.busy), None):
        remaining = deadline - clock.monotonic()
        if remaining <= 0:
            break
        busy.ended_signal.clear()
        if busy.busy:
            clock.wait(busy.ended_signal, remaining)
    left = [tracked for pool in pools for tracked in pool.busy]
    for pool in pools:
        pool.stop_signal.set()
    return left


def goodbye(poller: Poller, poll_lock: Any, seconds: float) -> bool:
    """Hand back what is left, mark our records, and close the poller; answers whether it could.

    Another thread does it, since a call to a storage may never return; then that thread is left
    alone.  What it has asked of the storage may still take effect, which does no harm: what runs
    here is fenced off by it.
    """
    done = threading.Event()
    too_long = Alarm(seconds)

    def say() -> None:
        attempts.stop_signal.set(too_long)
        with poll_lock:  # a poll that is under way comes first
            if poller.abandoned:
                return
            try:
                attempts.committed(poller.deactivate, transaction_manager=poller.manager)
                done.set()
            except Exception as error:
                events.deactivation_failed(poller.dispatcher.UUID, error)
            finally:
                poller.close()

    thread = threading.Thread(target=say, name="zasync goodbye", daemon=True)
    thread.start()
    thread.join(seconds + 1.0)  # real time, even where a test's clock stands still
    if thread.is_alive():
        poller.abandoned = True
        events.left_for_recovery(poller.dispatcher.UUID)
    return done.is_set()


class Alarm:
    """A signal that sets itself after some seconds."""

    def __init__(self, seconds: float) -> None:
        self._deadline = clock.monotonic() + seconds
        self._never = threading.Event()

    def is_set(self) -> bool:
        return clock.monotonic() >= self._deadline

    def wait(self, timeout: float | None = None) -> bool:
        remaining = max(0.0, self._deadline - clock.monotonic())
        clock.wait(self._never, remaining if timeout is None else min(timeout, remaining))
        return self.is_set()
