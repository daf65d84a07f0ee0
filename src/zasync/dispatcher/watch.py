# SPDX-License-Identifier: ZPL-2.1
"""A thread that looks at its dispatcher and says what stands still: polls, pings, jobs.

It asks neither the storage nor the reactor for anything, so it goes on when those hang.  It can
stop nothing: a thread cannot be ended from outside.
"""

from __future__ import annotations

import sys
import threading
import traceback
from typing import Any

from zasync.dispatcher.expiry import end_in_thread
from zasync.dispatcher.pool import Tracked
from zasync.foundation import clock
from zasync.foundation.reporting import events

INTERVAL = 1.0  # seconds between two looks
FRAMES = 30  # of a stack at most are shown, the innermost ones


class Watch:
    """Looks at `dispatcher` from its activation to its end."""

    def __init__(self, dispatcher: Any) -> None:
        self._dispatcher = dispatcher
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="zasync watch", daemon=True)
        self._stuck_report_at: float | None = None  # so many seconds without a poll
        self._holds_back = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(INTERVAL)

    def _run(self) -> None:
        while not clock.wait_idly(self._stop, INTERVAL):
            try:
                self.look()
            except Exception as error:  # the last that may be silent
                events.watch_failed(self._dispatcher.UUID, error)

    def look(self) -> None:
        """Report what has stood still for too long: once, and again after twice the time."""
        self._look_at_polls()
        self._look_at_pulse()
        for tracked in self._dispatcher.running():
            self._look_at_job(tracked)

    def _look_at_polls(self) -> None:
        dispatcher = self._dispatcher
        silent, limit = dispatcher.seconds_without_poll(), dispatcher.stuck_after
        if silent <= limit:
            if self._stuck_report_at is not None:
                events.polls_again(dispatcher.UUID)
            self._stuck_report_at = None
        elif silent > (self._stuck_report_at or limit):
            self._stuck_report_at = 2 * silent
            events.polls_are_stuck(dispatcher.UUID, silent, stack_of(dispatcher.polling_thread))

    def _look_at_pulse(self) -> None:
        holds_back = not self._dispatcher.pulse.is_known()
        if holds_back and not self._holds_back:
            events.pulse_lost(self._dispatcher.UUID, self._dispatcher.pulse.age())
        elif self._holds_back and not holds_back:
            events.pulse_found(self._dispatcher.UUID)
        self._holds_back = holds_back

    def _look_at_job(self, tracked: Tracked) -> None:
        timeout = tracked.timeout
        if timeout is not None and tracked.thread is not None and tracked.seconds() > timeout:
            tracked.timeout = None
            end_in_thread(self._dispatcher.db, tracked, timeout)
        limit = self._dispatcher.limit_of(tracked)
        seconds = tracked.seconds()
        if limit is None or seconds <= max(limit, tracked.report_after):
            return
        tracked.report_after = 2 * seconds
        info = self._dispatcher.jobs.copy_of(tracked.key)
        events.job_is_overdue(
            info.get("call", "?"), tracked.key[0], seconds, limit, stack_of(tracked.thread)
        )


def stack_of(thread: int | None) -> str:
    """Where a thread is, without its variables; or why that is not known."""
    frame = None if thread is None else sys._current_frames().get(thread)
    if frame is None:
        return "no thread of this process is at it: it waits for a Deferred or a coroutine"
    # Read from the innermost on, since the stack of an endless recursion is long.
    found = traceback.StackSummary.extract(
        _inner_frames(frame), limit=FRAMES, lookup_lines=True, capture_locals=False
    )
    return "".join(reversed(found.format())).rstrip()


def _inner_frames(frame: Any) -> Any:
    while frame is not None:
        yield frame, frame.f_lineno
        frame = frame.f_back
