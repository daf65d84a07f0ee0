# SPDX-License-Identifier: ZPL-2.1
"""Worker processes that this process starts, watches, replaces, and stops all together.

A child works until its standard input ends.  So it drains when it is told to, on any system, and
also when its parent is killed.  What becomes of one child is in `child`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from zasync.cli import identity
from zasync.cli.child import FROZEN_AFTER, Child
from zasync.cli.errors import CommandError, ExitCode
from zasync.cli.signals import Requests
from zasync.foundation import clock, platform

LAST_SECONDS = 20.0  # beyond the grace time, for saying goodbye and closing the database
# How long to try if no child gets so far as to work.  Longer than children of a parent that was
# killed may take to drain, which have the UUIDs that ours are to have.
TO_GET_READY = 60.0
_TELLING = frozenset({ExitCode.STORAGE_AWAY, ExitCode.IDENTITY_TAKEN})


class NoChildWorks(CommandError):
    """No worker process has come so far as to work; their own output says why."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Children:
    """`number` worker processes; `source` is the URI by which their UUIDs are chosen.

    `frozen_after` is after how many seconds without a sign of life one is killed and replaced;
    0 means never, as on Windows always.  `logs` is the directory for what they print; by default
    it goes where ours goes.
    """

    def __init__(
        self,
        number: int,
        options: Sequence[str],
        *,
        requests: Requests,
        source: str,
        grace: float,
        frozen_after: float = FROZEN_AFTER,
        debug: bool = False,
        logs: Path | None = None,
    ) -> None:
        self._command = [sys.executable, "-m", "zasync", *(["--debug"] if debug else [])]
        self._command += ["worker", "--until-input-ends", "--grace", str(grace), *options]
        self._requests = requests
        self._source = source
        self._grace = grace
        self._logs = logs
        watched = frozen_after > 0 and platform.passes_descriptors()
        self._children = [
            Child(place, self._spawn, frozen_after if watched else None)
            for place in range(1, number + 1)
        ]
        self._give_up_at = 0.0
        self.stopped_cleanly = False

    def __enter__(self) -> Self:
        self._give_up_at = clock.monotonic() + max(TO_GET_READY, self._grace + LAST_SECONDS)
        self.check()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _spawn(self, number: int, pipe: int | None) -> subprocess.Popen[bytes]:
        environment = dict(os.environ)
        identity.for_child(environment, self._source, number)
        output: IO[Any] | None = None
        if self._logs is not None:
            output = (self._logs / f"worker-{number}.log").open("ab")
        telling = [] if pipe is None else ["--heartbeat-to", str(pipe)]
        try:
            return subprocess.Popen(
                [*self._command, *telling],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=() if pipe is None else (pipe,),
                **platform.detached(),
            )
        finally:
            if output is not None:
                output.close()

    @property
    def ready(self) -> bool:
        """Whether one of them has begun to work."""
        return any(child.was_ready for child in self._children)

    def check(self) -> None:
        """Start those that are missing, kill those that are frozen; to be called every second.

        NoChildWorks if there is no hope that any will work.
        """
        for child in self._children:
            child.look()
        if not self.ready and all(child.deaths for child in self._children):
            self._consider_giving_up()

    def _consider_giving_up(self) -> None:
        codes = {child.last_code for child in self._children}
        wrong = ExitCode.WRONG in codes
        if not wrong and clock.monotonic() < self._give_up_at:
            return
        told = sorted(codes & _TELLING)
        code = ExitCode.WRONG if wrong else ExitCode(told[0]) if told else ExitCode.BROKEN
        where = "" if self._logs is None else f"; see worker-1.log in {self._logs}"
        raise NoChildWorks(
            "no worker process has begun to work; the last ended with exit code"
            f" {self._children[-1].last_code}{where}",
            code,
        )

    def stop(self) -> None:
        """Have them drain and wait for it; `stopped_cleanly` says then whether all did.

        A further request to stop, or too long a wait, kills those that have not ended.
        """
        for child in self._children:
            child.tell_to_stop()
        deadline = clock.monotonic() + self._grace + LAST_SECONDS
        try:
            while not all(child.has_ended() for child in self._children):
                for child in self._children:
                    child.kill_if_frozen()
                if self._requests.wait(0.1) is not None or clock.monotonic() > deadline:
                    break
        finally:
            self.stopped_cleanly = self._kill()

    def _kill(self) -> bool:
        """End those that run at once; answers whether none was left and all ended cleanly."""
        for child in self._children:
            child.kill()
        return all([child.close() for child in self._children])
