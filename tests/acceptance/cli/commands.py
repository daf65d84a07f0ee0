# SPDX-License-Identifier: ZPL-2.1
"""The command line as a user calls it: real processes in a directory with an application."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transaction

from tests.support.running import until
from zasync.storage import close_database, open_database

SECONDS = 60
APPLICATION = Path(__file__).with_name("application.py")


class Desk:
    """A directory in which commands are called."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        shutil.copy(APPLICATION, directory / "application.py")
        kept = {name: value for name, value in os.environ.items() if not name.endswith("_UUID")}
        self.environment = kept | {
            "ZASYNC_STATE": str(directory / "state"),
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
            "PYTHONUNBUFFERED": "1",
        }

    def path(self, name: str) -> Path:
        return self.directory / name

    def run(self, *args: object) -> subprocess.CompletedProcess[str]:
        """Call `zasync` with `args` and wait for its end."""
        return subprocess.run(
            self._command(args),
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def done(self, *args: object) -> str:
        """Call `zasync` with `args`, which must succeed; answers what it printed."""
        ended = self.run(*args)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    @contextmanager
    def started(self, *args: object) -> Iterator[Started]:
        """`zasync` with `args`, started; killed at the end of the block if it still runs."""
        number = len(list(self.directory.glob("output-*")))
        output = self.path(f"output-{number}.txt")
        with output.open("wb") as file:
            process = subprocess.Popen(
                self._command(args),
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        try:
            yield Started(process, output)
        finally:
            process.kill()
            process.wait(SECONDS)

    def _command(self, args: tuple[object, ...]) -> list[str]:
        return [sys.executable, "-m", "zasync", *map(str, args)]

    def lines(self, name: str) -> list[str]:
        """The lines of a file that jobs may write."""
        path = self.path(name)
        return path.read_text().splitlines() if path.exists() else []


class Started:
    """A command that runs."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process = process
        self._output = output

    @property
    def output(self) -> str:
        return self._output.read_text()

    def says(self, pattern: str, times: int = 1) -> list[str]:
        """Wait until it has printed `pattern` so often; answers what the pattern's group found."""

        def found() -> list[str] | None:
            matches = re.findall(pattern, self.output)
            assert self.process.poll() is None or len(matches) >= times, self.output
            return matches if len(matches) >= times else None

        matches: list[str] = until(found, f"{pattern!r} in its output", SECONDS)
        return matches

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def ends(self) -> int:
        """Wait until it has ended; answers its exit code."""
        return self.process.wait(SECONDS)


@contextmanager
def root_of(uri: str) -> Iterator[Any]:
    """The root of a database that nobody else has open, in a transaction to read or commit."""
    with connection_to(uri) as connection:
        yield connection.root()


@contextmanager
def connection_to(uri: str) -> Iterator[Any]:
    db = open_database(uri)
    manager = transaction.TransactionManager()
    try:
        yield db.open(transaction_manager=manager)
    finally:
        manager.abort()
        close_database(db)
