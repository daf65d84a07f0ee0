# SPDX-License-Identifier: ZPL-2.1
"""Worker processes of torture.worker that are forked in no time, for tests that kill many."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.processes import SECONDS, wait_for_the_end_of


class Worker:
    """One process, of which only the number is known: it is no child of ours."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self._log = log

    def dies(self) -> bool:
        """Whether it has ended, or does so in bounded time."""
        return wait_for_the_end_of(self.pid)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        assert self.dies()

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


class Nursery:
    """The process that forks them; when it is closed they all are dead."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "torture.worker", "--nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(["", *sys.path])},
        )

    def start(self, *arguments: object) -> Worker:
        """Fork a worker with the arguments of torture.worker."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._count += 1
        log = self._directory / f"worker-{self._count}.log"
        order = [str(log), [str(argument) for argument in arguments]]
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Worker(int(self._process.stdout.readline()), log)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(SECONDS)
        finally:
            self._process.kill()
            self._process.wait(SECONDS)
            self._process.stdout.close()
