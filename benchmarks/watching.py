# SPDX-License-Identifier: ZPL-2.1
"""Child processes: started, watched through their tally and their use of the machine, ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks import tally
from benchmarks.guarding import Guard
from benchmarks.places import Missing, Place
from zasync.foundation import platform

ROOT = Path(__file__).parent.parent
LOOK = 0.002  # seconds between two looks at the tally
END = 15.0  # seconds for a worker to end
READY = 60.0


class Broken(Exception):
    """A child process ended with an error; the message has its last line."""


def environment(place: Place, tally_file: Path, **more: str) -> dict[str, str]:
    """What the children of one measurement find."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return (
        os.environ
        | place.environment
        | {
            tally.ENVIRONMENT: str(tally_file),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "C_FORCE_ROOT": "1",  # Celery's warning is not our subject
        }
        | more
    )


def ask(module: str, *words: object, env: dict[str, str], timeout: float = 600) -> dict[str, Any]:
    """Run `python -m module words`; answers the JSON of its last line.

    Raises Broken, and Missing for what it does not have.
    """
    ended = subprocess.run(
        [sys.executable, "-m", module, *map(str, words)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if ended.returncode:
        reason = _last_line(ended.stderr)
        for kind in ("ModuleNotFoundError: ", "NotImplementedError: "):
            if reason.startswith(kind) and "'benchmarks" not in reason:
                raise Missing(reason.removeprefix(kind))
        raise Broken(f"{module} {' '.join(map(str, words))}: {reason}")
    answer: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return answer


class Worker:
    """A process (with its children) that performs jobs."""

    def __init__(self, command: Sequence[str], env: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command,
                cwd=log.parent,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                **platform.detached(),
            )
        self._guard = Guard(self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def await_readiness(self) -> None:
        """Wait until it says that it is ready."""
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            self._process.wait(END)
            self.check()

    def begin(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def check(self) -> None:
        """Raise Broken if it has ended."""
        if self._process.poll() is not None:
            raise Broken(f"a worker ended: {_last_line(self._log.read_text(errors='replace'))}")

    def end(self) -> dict[str, Any]:
        """End it by the end of its input; answers the JSON of its last line."""
        try:
            said, _ = self._process.communicate(timeout=END)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Broken("a worker did not end") from None
        self._guard.dismiss()
        if self._process.returncode:
            self.check()
        answer: dict[str, Any] = json.loads(said.splitlines()[-1])
        return answer

    def terminate(self) -> None:
        """End it by a signal, and kill what remains of it after a while."""
        family = _family([self.pid])
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(3)
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._close()

    def kill(self) -> None:
        for process in _family([self.pid]):
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._close()

    def _close(self) -> None:
        self._process.wait(END)
        self._guard.dismiss()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


@contextlib.contextmanager
def killed_at_the_end(workers: list[Worker]) -> Iterator[None]:
    """Leave no worker behind, whatever happens."""
    try:
        yield
    finally:
        for worker in workers:
            worker.kill()


class Usage:
    """What processes and their children have used of the machine."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids

    def cpu(self) -> float:
        """Seconds of processor time until now, those of ended children too."""
        total = 0.0
        for process in _family(self._pids):
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
                total += getattr(times, "children_user", 0) + getattr(times, "children_system", 0)
        return total

    def memory(self) -> dict[str, float]:
        """Megabytes that they hold: all (RSS), and with what they share divided up (PSS)."""
        rss = pss = 0
        for process in _family(self._pids):
            with contextlib.suppress(psutil.Error):
                held = process.memory_info().rss
                rss += held
                try:
                    pss += process.memory_full_info().pss
                except (AttributeError, psutil.AccessDenied):  # it is Linux's
                    pss += held
        return {"rss_mb": rss / 2**20, "pss_mb": pss / 2**20}


def await_count(shared: tally.Tally, count: int, deadline: float, workers: list[Worker]) -> bool:
    """Wait until so many calls were counted; False if the deadline came first."""
    looks = 0
    while shared.total() < count:
        if time.perf_counter() > deadline:
            return False
        looks += 1
        if looks % 250 == 0:
            for worker in workers:
                worker.check()
        time.sleep(LOOK)
    return True


def _family(pids: Sequence[int]) -> list[psutil.Process]:
    """The processes and all that they have started."""
    family = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            family += [process, *process.children(recursive=True)]
    return family


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
