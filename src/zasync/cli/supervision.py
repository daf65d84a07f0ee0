# SPDX-License-Identifier: ZPL-2.1
"""What a worker tells those that supervise it: that it works, that it lives, that it stops.

A supervisor is the parent process (`children`), which is told through a pipe, or systemd, which
is told as sd_notify(3) describes.  That it lives is said by a thread that does nothing else and
knows no database: it falls silent only if the process is stopped or nothing in it can run.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from zasync.foundation import clock

BEAT = 1.0  # seconds between two signs of life
ALIVE, READY = b".", b"r"  # what a parent is told, one byte each

_ADDRESS = "NOTIFY_SOCKET"  # systemd's


class Supervisor(Protocol):
    """Someone who wants to know; each of these neither waits nor fails."""

    def ready(self) -> None:
        """The worker has begun to work."""

    def alive(self) -> None:
        """The process lives."""

    def stopping(self) -> None:
        """The worker has been told to stop."""


class Parent:
    """The process that started this one, at the other end of the pipe `descriptor`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        os.set_blocking(descriptor, False)  # a parent that is stopped itself does not read
        os.set_inheritable(descriptor, False)

    def ready(self) -> None:
        self._tell(READY)

    def alive(self) -> None:
        self._tell(ALIVE)

    def stopping(self) -> None:
        """It knows: it was the one to say so."""

    def _tell(self, what: bytes) -> None:
        with contextlib.suppress(OSError):  # it has died, which the end of our input says too
            os.write(self._descriptor, what)


class Systemd:
    """The service manager that listens on the datagram socket `address`."""

    def __init__(self, address: str) -> None:
        # "@" stands for the NUL of Linux's abstract names
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def ready(self) -> None:
        self._tell(b"READY=1")

    def alive(self) -> None:
        self._tell(b"WATCHDOG=1")

    def stopping(self) -> None:
        self._tell(b"STOPPING=1")

    def _tell(self, what: bytes) -> None:
        with contextlib.suppress(OSError):  # the next sign of life may reach it
            self._socket.sendto(what, self._address)


class Supervisors:
    """All that supervise this process; one of them for `alive`, `ready` and so on."""

    def __init__(self, each: Sequence[Supervisor]) -> None:
        self._each = each

    def __bool__(self) -> bool:
        return bool(self._each)

    def ready(self) -> None:
        for one in self._each:
            one.ready()

    def alive(self) -> None:
        for one in self._each:
            one.alive()

    def stopping(self) -> None:
        for one in self._each:
            one.stopping()


@contextmanager
def supervised(pipe: int | None = None) -> Iterator[Supervisors]:
    """Show signs of life during the block to whoever wants them.

    They are the parent behind the pipe with the number `pipe`, and systemd where the environment
    says so, which processes that are started in the block do not find there any more.
    """
    each: list[Supervisor] = [] if pipe is None else [Parent(pipe)]
    address = os.environ.pop(_ADDRESS, "")
    if address:
        each.append(Systemd(address))
    supervisors = Supervisors(each)
    ended = threading.Event()
    if supervisors:
        threading.Thread(
            target=_beat, args=(supervisors, ended), name="zasync heartbeat", daemon=True
        ).start()
    try:
        yield supervisors
    finally:
        ended.set()


def _beat(supervisors: Supervisors, ended: threading.Event) -> None:
    supervisors.alive()
    while not clock.wait(ended, BEAT):
        supervisors.alive()
