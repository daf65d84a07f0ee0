# SPDX-License-Identifier: ZPL-2.1
"""Worker processes that this process starts, watches, and stops all together.

A child works until its standard input ends.  So it drains when it is told to, on any system, and
also when its parent is killed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from zasync.cli import identity
from zasync.cli.errors import CommandError
from zasync.cli.signals import Requests
from zasync.foundation import clock, platform
from zasync.storage import EmbeddedServer, is_file_storage

LAST_SECONDS = 20.0  # beyond the grace time, for saying goodbye and closing the database


class ChildDied(CommandError):
    """A worker process ended though nobody had told it to; its own output says why."""


class Children:
    """`number` worker processes; `source` is the URI by which their UUIDs are chosen.

    `logs` is the directory for what they print; by default it goes where ours goes.
    """

    def __init__(
        self,
        number: int,
        options: Sequence[str],
        *,
        requests: Requests,
        source: str,
        grace: float,
        debug: bool = False,
        logs: Path | None = None,
    ) -> None:
        self._number = number
        self._command = [sys.executable, "-m", "zasync", *(["--debug"] if debug else [])]
        self._command += ["worker", "--until-input-ends", "--grace", str(grace), *options]
        self._requests = requests
        self._source = source
        self._grace = grace
        self._logs = logs
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            for number in range(1, self._number + 1):
                self._processes.append(self._spawn(number))
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _spawn(self, number: int) -> subprocess.Popen[bytes]:
        environment = dict(os.environ)
        identity.for_child(environment, self._source, number)
        output: IO[Any] | None = None
        if self._logs is not None:
            output = (self._logs / f"worker-{number}.log").open("ab")
        try:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment,
                **platform.detached(),
            )
        finally:
            if output is not None:
                output.close()

    def check(self) -> None:
        """ChildDied if one has ended."""
        for number, process in enumerate(self._processes, 1):
            code = process.poll()
            if code is not None:
                where = "" if self._logs is None else f"; see worker-{number}.log in {self._logs}"
                raise ChildDied(
                    f"worker process {number} (pid {process.pid}) ended with exit code {code};"
                    f" the others are stopped{where}"
                )

    def stop(self) -> None:
        """Have them drain and wait for it.

        A further request to stop, or too long a wait, kills those that have not ended.
        """
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
        deadline = clock.monotonic() + self._grace + LAST_SECONDS
        try:
            while any(process.poll() is None for process in self._processes):
                if self._requests.wait(0.1) is not None or clock.monotonic() > deadline:
                    break
        finally:
            self.kill()

    def kill(self) -> None:
        """End those that run at once."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()


@contextmanager
def shared(uri: str, processes: int) -> Iterator[str]:
    """A URI under which `processes` processes can open the database `uri` during the block."""
    if processes > 1 and is_file_storage(uri):
        with EmbeddedServer(uri) as server:
            yield server.uri
    else:
        yield uri
