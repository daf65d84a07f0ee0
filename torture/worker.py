# SPDX-License-Identifier: ZPL-2.1
"""A process that performs jobs and can be told when to die: `python -m torture.worker --help`.

Short intervals, a clock whose offset a file says, and a death by SIGKILL at a named place.  With
`--nursery` it is a process that has imported everything and forks such workers, which takes much
less time than starting them.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import faulthandler
import importlib
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import zope.component
from twisted.internet.selectreactor import SelectReactor
from ZODB.Connection import Connection

from torture import application
from zasync import configure
from zasync.agent import Agent
from zasync.dispatcher import Dispatcher
from zasync.foundation import clock
from zasync.interfaces import IUUID, IDispatcherActivated
from zasync.storage import StorageError, open_database
from zasync.subscribers import CleanEnd
from zasync.testing import fail_points

VOTED, FINISHED, INSIDE = "commit.voted", "commit.finished", "job.inside"
"""Places that the product has no names for: they lie in the storage and in the job."""

PR_SET_PDEATHSIG = 1
LOOK = 0.05  # seconds between two looks at the control file


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m torture.worker", description=__doc__)
    parser.add_argument("--nursery", action="store_true", help="fork workers as told by lines")
    parser.add_argument("--db", metavar="URI")
    parser.add_argument("--uuid", type=UUID)
    parser.add_argument("--queue", action="append", help="a queue to work (all)")
    parser.add_argument("--size", type=int, default=3, help="jobs at once (3)")
    parser.add_argument("--batch", type=int, default=1, help="jobs committed together (1)")
    parser.add_argument("--poll", type=float, default=0.2, help="seconds (0.2)")
    parser.add_argument("--ping", type=float, default=0.3, help="seconds (0.3)")
    parser.add_argument("--death", type=float, default=1.5, help="seconds (1.5)")
    parser.add_argument("--grace", type=float, default=5.0, help="seconds (5)")
    parser.add_argument("--lines", type=Path, help="where attempts are written down")
    parser.add_argument("--control", type=Path, help="JSON: offset in seconds, kill_at")
    parser.add_argument("--kill", metavar="PLACE", help="die when this is reached")
    parser.add_argument("--after", metavar="PLACE[*N]", help="but only after that, N times")
    parser.add_argument("--call", metavar="MODULE:FUNCTION", help="call that, perform no jobs")
    parser.add_argument("argument", nargs="*", help="of the function")
    return parser


# Dying


class Death:
    """Kills the process when `place` is reached, after `first` has been reached `times` times.

    A place in the storage counts only in the thread that has reached `first`, and `first` only
    then: it is the very next commit that is meant.
    """

    def __init__(self, place: str, first: str | None = None, times: int = 1) -> None:
        self.place, self.first, self.left = place, first, times
        self._thread: int | None = None

    def arm(self) -> None:
        if self.place in (VOTED, FINISHED):
            _watch_commits(self)
        if self.first is None:
            self.left = 0
            self._arm(self.place, self._reached)
        else:
            self._arm(self.first, self._first_reached)

    def _arm(self, place: str, action: Callable[[], object]) -> None:
        if place == INSIDE:
            application.pause = lambda seconds: action()  # type: ignore[assignment]
        elif place not in (VOTED, FINISHED):
            fail_points.arm(place, action)

    def _first_reached(self) -> None:
        self.left -= 1
        if self.left == 0:
            self._thread = threading.get_ident()
            if self.place != self.first:
                self._arm(self.place, self._reached)
        elif self.left < 0 and self.place in (VOTED, FINISHED):
            self._thread = threading.get_ident()

    def _reached(self) -> None:
        if self.left <= 0:
            kill_this_process()

    def commit_reached(self, place: str) -> None:
        here = self.first is None or self._thread == threading.get_ident()
        if place == self.place and self.left <= 0 and here:
            kill_this_process()


def _watch_commits(death: Death) -> None:
    def watched(method: Any, place: str) -> Any:
        def call(self: Any, transaction: Any) -> Any:
            answer = method(self, transaction)
            death.commit_reached(place)
            return answer

        return call

    Connection.tpc_vote = watched(Connection.tpc_vote, VOTED)
    Connection.tpc_finish = watched(Connection.tpc_finish, FINISHED)


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # no line of Python must be run between the order and the end


# The control file


class Control:
    """What the file says now: the offset of the clock, and the place to die at."""

    def __init__(self, path: Path | None) -> None:
        self.offset = timedelta()
        self._path = path
        self._told: str | None = None
        self.look()
        if path is not None:
            threading.Thread(target=self._keep_looking, name="control", daemon=True).start()

    def look(self) -> None:
        if self._path is None or not self._path.exists():
            return
        told = json.loads(self._path.read_text())
        self.offset = timedelta(seconds=told.get("offset", 0))
        place = told.get("kill_at")
        if place is not None and place != self._told:
            Death(place).arm()
        self._told = place

    def _keep_looking(self) -> None:
        while True:
            time.sleep(LOOK)
            self.look()


def tell(path: Path, **told: Any) -> None:
    """Write a control file, all of it at once."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(told))
    new.replace(path)


class OffsetClock(clock.Clock):
    """Real time, with a wall clock that is set wrong by as much as the control file says."""

    def __init__(self, control: Control) -> None:
        super().__init__()
        self._control = control

    def now(self) -> datetime:
        return datetime.now(UTC) + self._control.offset


# Working


def main(argv: list[str] | None = None) -> None:
    told = options().parse_args(argv)
    _die_with_parent()
    faulthandler.register(signal.SIGUSR1)  # where it hangs, for whoever reads its log
    if told.nursery:
        nurse()
    elif told.call:
        _arm(told)
        module, _, function = told.call.partition(":")
        getattr(importlib.import_module(module), function)(told.db, *told.argument)
    else:
        work(told)


def work(told: argparse.Namespace) -> None:
    """Perform jobs until a signal comes, or death."""
    clock.install(OffsetClock(Control(told.control)))
    if told.lines is not None:
        application.open_lines(told.lines)
    zope.component.provideUtility(told.uuid, IUUID)
    configure.base()
    configure.provide_default_queue()
    zope.component.provideHandler(_joined(told), (IDispatcherActivated,))
    _arm(told)
    db = opened(told.db)
    dispatcher = Dispatcher(
        db,
        SelectReactor(),
        told.poll,
        told.uuid,
        queue_names=told.queue,
        grace=told.grace,
    )
    dispatcher.activate()
    dispatcher.thread = threading.Thread(
        target=dispatcher.reactor.run, kwargs={"installSignalHandlers": False}, daemon=True
    )
    CleanEnd(dispatcher).install()
    dispatcher.thread.start()
    while True:  # until the signal that ends the process; one can come just before a long sleep
        time.sleep(0.5)


def _joined(told: argparse.Namespace) -> Callable[[Any], None]:
    def joined(event: Any) -> None:
        record = event.object
        if told.uuid != record.UUID:
            return
        record.ping_interval = timedelta(seconds=told.ping)
        record.ping_death_interval = timedelta(seconds=told.death)
        if "main" not in record:
            record["main"] = Agent(size=told.size, batch=told.batch)

    return joined


def _arm(told: argparse.Namespace) -> None:
    if told.kill:
        first, _, times = (told.after or "").partition("*")
        Death(told.kill, first or None, int(times or 1)).arm()


def opened(uri: str) -> Any:
    """The database; a server that is away is waited for."""
    while True:
        try:
            return open_database(uri, wait=timedelta(seconds=10))
        except (StorageError, OSError) as error:
            logging.warning("cannot open %s: %s", uri, error)
            time.sleep(0.1)


def _die_with_parent() -> None:
    """Whatever becomes of who has started us, we do not stay behind (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


# Forking


def nurse() -> None:
    """For each line of standard input, a log file and arguments as JSON, fork a worker.

    Answers its process id in a line.  Ends, and all workers with it, when the input does.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    for line in iter(sys.stdin.readline, ""):
        log, argv = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _be_born(log, argv)
        print(pid, flush=True)


def _be_born(log: str, argv: list[str]) -> None:
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        main(argv)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    logging.basicConfig(
        level=os.environ.get("TORTURE_LOG", "INFO"),
        format="%(asctime)s %(levelname)s %(process)d %(name)s %(message)s",
    )
    main()
