# SPDX-License-Identifier: ZPL-2.1
"""The application whose jobs the command line runs in these tests; copied to where it is called.

What it does outside of the database it writes to files, so that a test can see how often.
"""

import multiprocessing
import os
import re
import signal
import threading
import time
from pathlib import Path

from zasync import local

_tick = threading.Event()  # never set: waiting for it lets others run


def add(first: int, second: int = 0) -> int:
    return first + second


def fail() -> None:
    raise ValueError("no words for it")


def thing() -> object:
    return complex(1, 2)


def note_process(name: str) -> int:
    """Note in a file that, and in which process, this was done."""
    with open(name, "a") as file:
        file.write(f"{os.getpid()}\n")
    return os.getpid()


def hold(name: str, seconds: float = 60) -> str:
    """Note that this has begun, and end when the file `name`.go is there."""
    note_process(name)
    go = Path(f"{name}.go")
    for _ in range(int(seconds / 0.01)):
        if go.exists():
            return "let go"
        _tick.wait(0.01)
    raise AssertionError(f"nobody made {go}")


def hold_everything(name: str) -> None:
    """Let nothing else run in this process, unless the file `name`.go is there."""
    note_process(name)
    if not Path(f"{name}.go").exists():
        re.match(r"(a+)+$", "a" * 60 + "b")  # tries 2 ** 60 ways, and keeps Python's lock


def hold_and_count(name: str, number: int) -> None:
    hold(name)
    count(number)


def count(number: int) -> None:
    """Note in the database that this was done for `number`."""
    local.getJob()._p_jar.root()["ledger"][number].change(1)


def span(name: str) -> None:
    """Note when, and in which process, this began, and go on noting that it is still at it."""
    for _ in range(6000):
        with open(name, "a") as file:
            file.write(f"{os.getpid()} {time.monotonic()}\n")
        if Path(f"{name}.go").exists():
            return
        _tick.wait(0.001)


def wait_for_child(name: str) -> int:
    """Fork a process that hangs, end it as multiprocessing does, and answer how it ended."""
    child = multiprocessing.get_context("fork").Process(target=hold, args=(name,))
    child.start()
    while not Path(name).exists():
        _tick.wait(0.01)
    child.terminate()
    child.join(20)
    return child.exitcode or 0


def stop_the_reactor() -> None:
    reactor = local.getReactor()
    reactor.callFromThread(reactor.stop)


def die(how: str) -> None:
    """End this process without a word: by `os._exit`, or by the signal of that name."""
    note_process("deaths")
    local.set_progress("the last line")
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), getattr(signal, how))
    _tick.wait(60)


def callback_that_dies(result: object, how: str) -> None:
    die(how)
