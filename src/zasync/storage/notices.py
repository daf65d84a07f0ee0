# SPDX-License-Identifier: ZPL-2.1
"""Hints between processes that share a PostgreSQL: who puts sends NOTIFY, who works LISTENs.

RelStorage tells nobody of commits.  So each process has one more connection, made when it first
puts or works, which a thread of its own looks after: a server that is away or hangs never holds
up a put or a dispatcher.  A notice carries nothing and may be lost; then the poll finds the work.
"""

from __future__ import annotations

import atexit
import selectors
import socket
import threading
import weakref
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from zasync.foundation import clock, wakeup
from zasync.foundation.attempts import pauses
from zasync.foundation.reporting import events
from zasync.storage import relstorage
from zasync.storage.watching import CommitWatch

if TYPE_CHECKING:
    from zasync.storage.psycopg2 import Session

LAST_SECONDS = 2.0  # how long the end of a process may wait for its last notice
_LONGEST_PAUSE = 30.0  # seconds between two attempts to connect

_lines: weakref.WeakKeyDictionary[Any, Line] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def tell_others(db: Any) -> None:
    """From now on, tell other processes of work that this one puts into `db`.

    `open_database` and dispatchers do this.  Does nothing for a database that does not lie in
    PostgreSQL, and may be called again.  Connects at the first put, not now.
    """
    for database in db.databases.values():
        _line(database)


def hear_others(db: Any, wake: Callable[[], None]) -> Callable[[], None]:
    """Call `wake`, in a thread of our own, when another process has put work into `db`.

    Also after each time that the connection was lost and made again; and after any commit, where
    only a look at the database tells.  Answers a function that ends it.
    """
    files = [relstorage.sqlite_file(database.storage) for database in db.databases.values()]
    watches = [CommitWatch(path, wake) for path in files if path is not None]
    lines = [line for database in db.databases.values() if (line := _line(database)) is not None]
    for line in lines:
        line.listen(wake)

    def stop() -> None:
        for line in lines:
            line.ignore(wake)
        for watch in watches:
            watch.stop()

    return stop


def hang_up(db: Any) -> None:
    """End the connection for notices of one database, after its last notice is sent."""
    with _lock:
        line = _lines.pop(db, None)
    if line is not None:
        line.close()


def _line(database: Any) -> Line | None:
    with _lock:
        line = _lines.get(database)
        if line is None:
            dsn = relstorage.postgresql_dsn(database.storage)
            if dsn is None:
                return None
            if find_spec("psycopg2") is None:
                events.notices_unavailable(database.database_name)
                return None
            line = _lines[database] = Line(dsn, database.database_name)
            weakref.finalize(database, line.abandon).atexit = False
            wakeup.hang_bell(database, line.ring)
        return line


class Line:
    """The connection for the notices of one database, and the thread that looks after it."""

    def __init__(self, dsn: str, name: str) -> None:
        self._dsn = dsn
        self._name = name
        self._wakers: list[Callable[[], None]] = []
        self._has_to_ring = False
        self._rung = threading.Event()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._here: socket.socket | None = None  # a byte sent here makes the thread look about

    def ring(self) -> None:
        """Tell the others soon; does not wait for it."""
        self._ask(self._note_ring)

    def listen(self, wake: Callable[[], None]) -> None:
        """Call `wake` for what others tell."""
        self._ask(lambda: self._wakers.append(wake))

    def ignore(self, wake: Callable[[], None]) -> None:
        """Do not call `wake` any more."""
        with self._lock:
            self._wakers = [each for each in self._wakers if each != wake]

    def close(self) -> None:
        """Send what is to be sent, if that can be done soon, and end."""
        atexit.unregister(self.close)
        with self._lock:
            thread = self._thread
        if thread is None or not thread.is_alive() or thread is threading.current_thread():
            self._closing.set()
            return
        if self._has_to_ring:
            clock.wait(self._rung, LAST_SECONDS)
        self.abandon()
        thread.join(LAST_SECONDS)

    def abandon(self) -> None:
        """End soon; does not wait for it."""
        self._closing.set()
        self._poke()

    def _note_ring(self) -> None:
        self._has_to_ring = True
        self._rung.clear()

    def _ask(self, change: Callable[[], object]) -> None:
        with self._lock:
            if self._closing.is_set():
                return
            change()
            if self._thread is None or not self._thread.is_alive():  # or we are a fork
                self._start()
        self._poke()

    def _start(self) -> None:
        self._here, there = socket.socketpair()
        self._here.setblocking(False)
        there.setblocking(False)
        self._thread = threading.Thread(
            target=self._run, args=(there,), name=f"zasync notices {self._name}", daemon=True
        )
        self._thread.start()
        atexit.register(self.close)

    def _poke(self) -> None:
        here = self._here
        try:
            if here is not None:
                here.send(b"!")
        except BlockingIOError:
            pass  # it has been poked often enough
        except OSError:
            pass  # the thread has ended

    # In the thread

    def _run(self, poked: socket.socket) -> None:
        from zasync.storage import psycopg2

        seconds = pauses(first=0.5, step=1.0, longest=_LONGEST_PAUSE)
        lost = False
        with poked:
            while self._has_a_reason(poked):
                session = None
                try:
                    session = psycopg2.Session(self._dsn)
                    seconds = pauses(first=0.5, step=1.0, longest=_LONGEST_PAUSE)
                    if lost:
                        events.notices_back(self._name)
                    lost = False
                    self._serve(session, poked)
                except (psycopg2.Error, OSError, ValueError) as error:
                    if self._closing.is_set():
                        return
                    lost = True
                    pause = next(seconds)
                    events.notices_lost(self._name, error, pause)
                    clock.wait(self._closing, pause)
                finally:
                    if session is not None:
                        session.close()

    def _has_a_reason(self, poked: socket.socket) -> bool:
        """Wait until there is something to say or somebody to wake; False when it is over."""
        while not self._closing.is_set():
            if self._wakers or self._has_to_ring:
                return True
            _await_one_of(poked)
            _drain(poked)
        return False

    def _serve(self, session: Session, poked: socket.socket) -> None:
        listening = False
        while not self._closing.is_set():
            if self._wakers and not listening:
                session.listen()
                listening = True
                self._wake_all()  # for what was told before
            if self._has_to_ring:
                self._has_to_ring = False
                try:
                    session.notify()
                except BaseException:
                    self._has_to_ring = True
                    raise
                self._rung.set()
            if session.has_heard_others():
                self._wake_all()
            _await_one_of(session, poked)
            _drain(poked)

    def _wake_all(self) -> None:
        for wake in list(self._wakers):
            wake()


def _await_one_of(*sources: Any) -> None:
    """Wait until one of them can be read."""
    with selectors.DefaultSelector() as selector:
        for source in sources:
            selector.register(source, selectors.EVENT_READ)
        selector.select()


def _drain(poked: socket.socket) -> None:
    try:
        while poked.recv(1024):
            pass
    except BlockingIOError:
        pass
