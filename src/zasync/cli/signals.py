# SPDX-License-Identifier: ZPL-2.1
"""What asks a command to stop: signals, or the end of its standard input."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from zasync.foundation import platform

_WAKE_UP = 0.5  # seconds; on Windows nothing interrupts a wait, so none may be longer


class Requests:
    """The requests to stop, in their order.  The first asks to finish, the second to end now.

    What comes from two sources is one request: a service manager that signals a whole group of
    processes must not make those end at once whose parent also tells them to finish.
    """

    def __init__(self) -> None:
        # A SimpleQueue, since a signal handler may run while this very thread holds the lock of
        # an Event.
        self._inbox: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._posted: Counter[str] = Counter()  # by source, as far as they were taken out
        self._made = 0

    def post(self, reason: str, source: str | None = None) -> None:
        """Ask to stop.  May be called in any thread and in a signal handler.

        `source` is whose request it is, by default one that is known by the reason.
        """
        self._inbox.put((reason, source or reason))

    def wait(self, seconds: float = _WAKE_UP) -> str | None:
        """The next request if there is one within `seconds`, else None.  Main thread only."""
        try:
            reason, source = self._inbox.get(timeout=min(seconds, _WAKE_UP))
        except queue.Empty:
            return None
        self._posted[source] += 1
        if self._posted[source] <= self._made:  # another source has said it already
            return None
        self._made += 1
        return reason

    def post_at_end_of_input(self) -> None:
        """From now on, the end of standard input is a request."""
        threading.Thread(target=self._read_input, daemon=True).start()

    def _read_input(self) -> None:
        # Not sys.stdin: Python could not end while a thread waits in there.
        while os.read(0, 1024):
            pass
        self.post("end of input")


@contextmanager
def stop_requests() -> Iterator[Requests]:
    """Requests that the signals for termination make, as long as the block; main thread only."""
    requests = Requests()
    owner = os.getpid()

    def received(number: int, frame: Any) -> None:
        if os.getpid() == owner:
            requests.post(signal.Signals(number).name, "signal")
        else:  # a child that a job has forked: not ours to keep alive
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    former = {number: signal.signal(number, received) for number in platform.termination_signals()}
    try:
        yield requests
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
