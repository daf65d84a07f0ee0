# SPDX-License-Identifier: ZPL-2.1
"""One place for a worker process, and the processes that fill it one after the other.

It is looked at every so often by `children` and never waits itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable

from zasync.cli.supervision import READY
from zasync.foundation import clock
from zasync.foundation.reporting import events

FIRST_PAUSE = 0.5  # seconds from a death to the next start; doubled each time
LONGEST_PAUSE = 30.0
LONG_LIFE = 60.0  # seconds; a death after that long is a new trouble, not the former one again
# The last ping may be 15 s old when a process is frozen, and siblings wait for 60 s.  A frozen
# one can hold a lock of the storage that keeps all others from pinging; with it gone after 30 s
# they can say in time that they live.
FROZEN_AFTER = 30.0
TO_BEGIN = 60.0  # seconds that a new process may take, beyond that, for its first sign of life
_LOOK = 1.0  # seconds of silence that one look can find

Spawn = Callable[[int, int | None], "subprocess.Popen[bytes]"]
"""Starts the process number N; told the end of the pipe for its signs of life, or None."""


class Pauses:
    """How long to wait before something that ended is started again."""

    def __init__(self) -> None:
        self._next = FIRST_PAUSE

    def after(self, lived: float) -> float:
        """The pause, in seconds, after a life of `lived` seconds."""
        if lived >= LONG_LIFE:
            self._next = FIRST_PAUSE
        pause, self._next = self._next, min(self._next * 2, LONGEST_PAUSE)
        return pause


class Silence:
    """For how many seconds nothing was heard, of the time that we were there to listen.

    Where the whole machine was suspended, or this process stopped, others must not be blamed for
    the silence; so that counts as one look, however long it took.
    """

    def __init__(self, first: float) -> None:
        self.seconds = -first
        self._looked_at = clock.monotonic()

    def look(self, heard: bool) -> float:
        """Look; answers the seconds."""
        now = clock.monotonic()
        self.seconds = 0.0 if heard else self.seconds + min(now - self._looked_at, _LOOK)
        self._looked_at = now
        return self.seconds


class Child:
    """The worker process `number`; `frozen_after` None means never to ask for signs of life."""

    def __init__(self, number: int, spawn: Spawn, frozen_after: float | None) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.was_ready = False  # this process or a former one
        self.deaths = 0
        self.last_code = 0
        self._spawn = spawn
        self._frozen_after = frozen_after
        self._pauses = Pauses()
        self._due = 0.0
        self._started = 0.0
        self._pipe: int | None = None
        self._silence = Silence(TO_BEGIN)
        self._killed = False

    def _start(self) -> None:
        theirs = None
        if self._frozen_after is not None:
            self._pipe, theirs = os.pipe()
            os.set_blocking(self._pipe, False)
        try:
            self.process = self._spawn(self.number, theirs)
        except BaseException:
            self._close_pipe()
            raise
        finally:
            if theirs is not None:
                os.close(theirs)
        self._started = clock.monotonic()
        self._silence = Silence(TO_BEGIN)
        self._killed = False

    def look(self) -> None:
        """Start a process where there is none and its time has come; see to one that ended."""
        if self.process is None:
            if clock.monotonic() >= self._due:
                self._try_to_start()
            return
        self.kill_if_frozen()
        code = self.process.poll()
        if code is not None:
            self._bury(self.process, code)

    def kill_if_frozen(self) -> None:
        """Kill a process that has shown no sign of life for too long."""
        silent = self._silence.look(self._heard())
        if self.process is None or self._frozen_after is None or self._killed:
            return
        if silent > self._frozen_after and self.process.poll() is None:
            events.worker_process_frozen(self.number, self.process.pid, silent)
            self.process.kill()  # its end is seen at a later look
            self._killed = True

    def _try_to_start(self) -> None:
        try:
            self._start()
        except OSError as error:  # no memory, no process, no file is left
            self.deaths += 1
            pause = self._pause(0.0)
            events.worker_process_not_started(self.number, error, pause)
        else:
            assert self.process is not None
            events.worker_process_started(self.number, self.process.pid)

    def _heard(self) -> bool:
        """Whether it has said something since we looked last."""
        if self._pipe is None:
            return True  # where nothing can be said, nobody is blamed for silence
        try:
            said = os.read(self._pipe, 65536)
        except BlockingIOError:
            return False
        if READY in said:
            self.was_ready = True
        return bool(said)

    def _bury(self, process: subprocess.Popen[bytes], code: int) -> None:
        self.deaths += 1
        self.last_code = code
        self.process = None
        self._close_pipe()
        close_input(process)
        pause = self._pause(clock.monotonic() - self._started)
        events.worker_process_ended(self.number, process.pid, describe(code), pause)

    def _pause(self, lived: float) -> float:
        pause = self._pauses.after(lived)
        self._due = clock.monotonic() + pause
        return pause

    def _close_pipe(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None

    # The end

    def tell_to_stop(self) -> None:
        """Have it drain."""
        if self.process is not None:
            close_input(self.process)

    def has_ended(self) -> bool:
        """Whether no process is left."""
        return self.process is None or self.process.poll() is not None

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()

    def close(self) -> bool:
        """Wait for its end, and let go of it; answers whether it had ended cleanly."""
        process, self.process = self.process, None
        self._close_pipe()
        if process is None:
            return True
        close_input(process)
        code = process.wait()
        if code != 0:
            events.worker_process_left(self.number, process.pid, describe(code))
        return code == 0


def close_input(process: subprocess.Popen[bytes]) -> None:
    """Let the standard input of `process` end."""
    if process.stdin is not None:
        process.stdin.close()


def describe(code: int) -> str:
    """What ended a process, of which `subprocess` says `code`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
