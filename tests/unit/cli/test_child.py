# SPDX-License-Identifier: ZPL-2.1
"""One place for a worker process, with a clock that is moved by hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.running import until
from zasync.cli.child import (
    FIRST_PAUSE,
    LONG_LIFE,
    LONGEST_PAUSE,
    TO_BEGIN,
    Child,
    Pauses,
    Silence,
    describe,
)
from zasync.foundation import clock
from zasync.testing.virtual_clock import VirtualClock

# Says what it is told on its command line into the pipe, and waits for the end of its input.
PROGRAM = """\
import os, sys
os.write(int(sys.argv[1]), sys.argv[2].encode())
print("said", flush=True)
sys.stdin.read()
sys.exit(int(sys.argv[3]))
"""


@pytest.fixture
def time() -> Iterator[VirtualClock]:
    real = clock.current()
    virtual = VirtualClock()
    clock.install(virtual)
    yield virtual
    clock.install(real)


class Starts:
    """Starts processes that say `says` and end with `code`; or raises, as often as told."""

    def __init__(self, says: str = ".", code: int = 0) -> None:
        self.says, self.code = says, code
        self.processes: list[subprocess.Popen[bytes]] = []
        self.refusals = 0

    def __call__(self, number: int, pipe: int | None) -> subprocess.Popen[bytes]:
        if self.refusals:
            self.refusals -= 1
            raise OSError(11, "no process is left")
        assert pipe is not None
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(pipe), self.says, str(self.code)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(pipe,),
        )
        assert process.stdout is not None
        with process.stdout as output:
            assert output.readline() == b"said\n"
        self.processes.append(process)
        return process


@pytest.fixture
def starts() -> Iterator[Starts]:
    starts = Starts()
    yield starts
    for process in starts.processes:
        process.kill()
        process.wait(30)


def end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait(30)


def look_for(child: Child, time: VirtualClock, seconds: int) -> None:
    for _ in range(seconds):
        time.advance(1)
        child.look()


def test_pauses_double_up_to_a_limit_and_begin_anew_after_a_long_life() -> None:
    pauses = Pauses()
    assert [pauses.after(1) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert pauses.after(LONG_LIFE) == FIRST_PAUSE
    assert pauses.after(LONG_LIFE - 1) == 2 * FIRST_PAUSE
    assert LONGEST_PAUSE == 30


def test_silence_counts_only_what_was_listened_to(time: VirtualClock) -> None:
    silence = Silence(0)
    time.advance(0.5)
    assert silence.look(False) == 0.5
    time.advance(3600)  # the machine was suspended
    assert silence.look(False) == 1.5
    assert silence.look(True) == 0


def test_a_new_process_has_time_to_begin(time: VirtualClock) -> None:
    silence = Silence(TO_BEGIN)
    time.advance(1)
    assert silence.look(False) == 1 - TO_BEGIN


def test_a_process_that_says_nothing_is_killed_and_replaced(
    time: VirtualClock, starts: Starts, caplog: pytest.LogCaptureFixture
) -> None:
    child = Child(1, starts, frozen_after=10)
    child.look()
    child.look()  # hears the first sign of life
    look_for(child, time, 10)
    assert child.deaths == 0
    time.advance(1)
    child.look()
    assert "has shown no sign of life for 11 s" in caplog.text
    assert starts.processes[0].wait(30) == -signal.SIGKILL
    child.look()
    assert (child.deaths, child.last_code) == (1, -signal.SIGKILL)
    time.advance(FIRST_PAUSE)
    child.look()
    assert len(starts.processes) == 2
    assert caplog.text.count("no sign of life") == 1
    child.kill()
    assert not child.close()


def test_a_process_is_waited_for_in_a_pause_and_not_in_another(
    time: VirtualClock, starts: Starts
) -> None:
    starts.code = 3
    child = Child(1, starts, frozen_after=10)
    child.look()
    end(starts.processes[0])
    child.look()
    assert child.last_code == 3
    child.look()
    assert len(starts.processes) == 1
    time.advance(FIRST_PAUSE)
    child.look()
    assert len(starts.processes) == 2
    child.tell_to_stop()
    starts.processes[1].wait(30)
    assert child.has_ended()
    assert not child.close()


def test_what_a_process_said_before_it_died_is_heard(time: VirtualClock, starts: Starts) -> None:
    starts.says = ".r."
    child = Child(1, starts, frozen_after=10)
    child.look()
    end(starts.processes[0])
    assert not child.was_ready
    child.look()
    assert child.was_ready
    assert child.deaths == 1


def test_where_no_process_can_be_started_it_is_tried_again(
    time: VirtualClock, starts: Starts, caplog: pytest.LogCaptureFixture
) -> None:
    starts.refusals = 2
    child = Child(1, starts, frozen_after=10)
    child.look()
    assert "worker process 1 could not be started" in caplog.text
    assert child.has_ended()
    time.advance(FIRST_PAUSE)
    child.look()
    time.advance(2 * FIRST_PAUSE)
    child.look()
    assert len(starts.processes) == 1
    assert child.deaths == 2
    child.tell_to_stop()
    starts.processes[0].wait(30)
    assert child.close()


def test_nothing_is_left_open_when_a_process_ends_or_none_is_started(
    time: VirtualClock, starts: Starts
) -> None:
    before = set(os.listdir("/proc/self/fd"))
    starts.refusals = 1
    child = Child(1, starts, frozen_after=10)
    child.look()
    time.advance(FIRST_PAUSE)
    child.look()
    end(starts.processes[0])
    child.look()
    assert child.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_one_that_is_not_watched_is_never_frozen(time: VirtualClock) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def spawn(number: int, pipe: int | None) -> subprocess.Popen[bytes]:
        assert pipe is None
        started.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
        return started[-1]

    child = Child(1, spawn, frozen_after=None)
    child.look()
    look_for(child, time, 200)
    assert until(lambda: started[0].poll() is None)
    child.kill()
    assert not child.close()


@pytest.mark.parametrize(
    ("code", "text"),
    [(0, "exit code 0"), (3, "exit code 3"), (-9, "SIGKILL"), (-99, "signal 99")],
)
def test_an_end_is_told_in_words(code: int, text: str) -> None:
    assert describe(code) == text
