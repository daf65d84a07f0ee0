# SPDX-License-Identifier: ZPL-2.1
"""Other processes for tests: started, heard and ended in bounded time, by their own ids."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SECONDS = 30


class Other:
    """Another Python process; tell it to end by closing its standard input."""

    def __init__(self, program: str, *args: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # so that what waits to be read can be waited for
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def line(self) -> str:
        """The next line that it prints, stripped; an empty one if it prints no more."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], SECONDS)
        assert ready, "the other process says nothing"
        return self._process.stdout.readline().decode().strip()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(SECONDS)

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(SECONDS)
        finally:
            self._process.kill()
            self._process.wait(SECONDS)
            self._process.stdout.close()


@contextmanager
def other_process(program: str, *args: str) -> Iterator[Other]:
    """Run `program` with `args` as long as the block; it should end when its input does."""
    other = Other(program, *args)
    try:
        yield other
    finally:
        other.end()


def wait_for_the_end_of(pid: int) -> bool:
    """Whether a process, which need not be a child, has ended or does so in bounded time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], SECONDS)[0])
    finally:
        os.close(descriptor)


def run_without(distribution: str, program: str, directory: Path) -> str:
    """Answer what `program` prints where `distribution` is not installed, but all else is."""
    directory.mkdir()
    for entry in map(Path, sys.path):
        if entry.name == "site-packages" and entry.is_dir():
            _link_all_but(distribution, entry, directory)
    rest = [entry for entry in sys.path if entry and Path(entry).name != "site-packages"]
    return _output(program, [str(directory), *rest])


def _link_all_but(distribution: str, source: Path, directory: Path) -> None:
    for path in source.iterdir():
        link = directory / path.name
        if not path.name.lower().startswith(distribution.lower()) and not link.exists():
            link.symlink_to(path)


def _output(program: str, search: Sequence[str]) -> str:
    head = f"import sys\nsys.path[:] = {list(search)!r}\n"
    command = [sys.executable, "-I", "-S", "-c", head + program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
