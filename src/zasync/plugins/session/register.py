# SPDX-License-Identifier: ZPL-2.1
"""Stored: the sessions of users, what they are to send, and how they do.

A session's own record and its outbox are written by requests, its state by the one job that holds
the connection, so that the two hardly ever conflict.  Nothing here commits.
"""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from BTrees.Length import Length
from BTrees.LOBTree import LOBTree
from BTrees.OOBTree import OOBTree, OOTreeSet
from persistent import Persistent

from zasync.failure import Failure
from zasync.foundation import clock
from zasync.foundation.text import bounded_text, looks_secret, printable, safe_repr
from zasync.foundation.wakeup import ring_after_commit
from zasync.interfaces import (
    CALLBACKS,
    COMPLETED,
    NEW,
    PENDING,
    UnresolvableError,
    ZasyncError,
)
from zasync.job import Job, RetryCommonForever, callables
from zasync.plugins.registry import blank_job
from zasync.plugins.session import waking
from zasync.plugins.session.drivers import LineDriver
from zasync.plugins.session.events import EventDriver
from zasync.plugins.session.holder import HandedOver, hold
from zasync.plugins.session.status import SessionStatus

DRIVERS: Mapping[str, Any] = {"lines": LineDriver, "events": EventDriver}
LONGEST_LABEL = 200  # characters
LONGEST_ERROR = 500
MOST_UNSENT = 1000
MOST_UNHANDLED = 1000
RETRY_LATER = timedelta(minutes=1)

_SENTINEL = -1  # a tree that is never empty merges more
_RANDOM_BITS = 11  # so that messages of the same microsecond have different keys

ANYBODY = object()
"""For `Sessions.get`: whoever it belongs to."""


class SessionNotFound(ZasyncError, LookupError):
    """There is no session of that id, or it is somebody else's: the two cannot be told apart."""


class SessionClosed(ZasyncError, ValueError):
    """The session has ended, or is about to: it takes no more messages."""


class SessionFull(ZasyncError):
    """So many messages wait to be sent that no more are taken; try again later."""


class SessionPolicy(RetryCommonForever):
    """Of the job that holds a session: whatever interrupts it, another worker takes it up."""

    def jobError(self, failure: Any, data_cache: dict[str, Any]) -> Any:
        if failure.check(HandedOver):
            return timedelta()
        if failure.check(UnresolvableError):  # of a driver that this worker does not have
            return RETRY_LATER
        return super().jobError(failure, data_cache)


class Outbox(Persistent):
    """Messages that are to be sent, in order; many producers, one consumer."""

    def __init__(self) -> None:
        self._messages = LOBTree({_SENTINEL: ""})
        self.count = Length()  # changes with each message, which wakes the holder

    def __len__(self) -> int:
        return int(self.count())

    def __bool__(self) -> bool:
        return True

    def put(self, text: str) -> None:
        """Add a message behind all that are known here."""
        now = clock.now_micros() << _RANDOM_BITS
        now |= clock.current().random.getrandbits(_RANDOM_BITS)
        self._messages[max(now, self._messages.maxKey() + 1)] = text
        self.count.change(1)

    def first(self, limit: int) -> list[tuple[int, str]]:
        """The first messages with their keys."""
        found = []
        for key, text in self._messages.iteritems(min=0):
            found.append((key, text))
            if len(found) == limit:
                break
        return found

    def remove(self, keys: list[int]) -> None:
        """Take out messages, as far as they are there."""
        gone = [self._messages.pop(key, None) for key in keys]
        self.count.change(-sum(1 for text in gone if text is not None))


class SessionState(Persistent):
    """What the holder of a session says about it.  Nobody else writes it."""

    phase: str | None = None  # a SessionStatus, of the present run of the holder
    attempts = 0  # to connect, since it was connected last
    error = ""  # why it was lost, or could not be connected
    heard = 0
    sent = 0
    refused = 0  # messages that the other side did not take
    resume = ""  # the last id that was heard
    _since: int | None = None
    _connected_at: int | None = None

    def __init__(self) -> None:
        self.unhandled = LOBTree({_SENTINEL: None})  # number of what was heard -> its job

    @property
    def since(self) -> datetime | None:
        """Since when it is in its phase."""
        return None if self._since is None else clock.from_micros(self._since)

    @property
    def connected_at(self) -> datetime | None:
        """When it was connected last."""
        return None if self._connected_at is None else clock.from_micros(self._connected_at)

    def note(self, phase: SessionStatus, error: str = "") -> None:
        """Enter `phase`."""
        self.phase, self._since = phase.value, clock.now_micros()
        if phase is SessionStatus.CONNECTING:
            self.attempts += 1
        elif phase is SessionStatus.CONNECTED:
            self._connected_at, self.attempts, self.error = self._since, 0, ""
        if error:
            self.note_error(error)

    def note_error(self, error: str) -> None:
        self.error = bounded_text(printable(error, one_line=True), LONGEST_ERROR)

    def prune(self) -> int:
        """Forget the jobs that have ended; answers how many have not."""
        ended = [
            number
            for number, job in self.unhandled.items(min=0)
            if job.status in (CALLBACKS, COMPLETED)
        ]
        for number in ended:
            del self.unhandled[number]
        return len(self.unhandled) - 1


class Session(Persistent):
    """A connection that belongs to `owner`.  Made by `Sessions.open`."""

    label = ""
    reconnect = True
    give_up_after: timedelta | None = None
    most_unsent = MOST_UNSENT
    most_unhandled = MOST_UNHANDLED
    job: Any = None
    """The job that holds the connection."""
    handler_queue: Any = None
    """Where the jobs are put that handle what is heard."""
    closing: str | None = None
    """Why it was closed by us, once it was."""

    def __init__(
        self, owner: str | None, label: str, driver: Any, options: Mapping[str, Any], template: Job
    ) -> None:
        self.id = secrets.token_urlsafe(16)
        self.owner = owner
        self.label = label
        self.opened_at = clock.now()
        self.driver_names = callables.describe(driver)[0]
        self.options = dict(options)
        self.outbox = Outbox()
        self.state = SessionState()
        self._template = template

    def driver(self) -> Any:
        """What speaks with the other side.  UnresolvableError if its code is not here."""
        return callables.resolve(self.driver_names, None)()

    @property
    def status(self) -> SessionStatus:
        """How it does."""
        job = self.job
        if job.status in (CALLBACKS, COMPLETED):
            failed = isinstance(job.result, Failure) and not job.cancelled
            return SessionStatus.FAILED if failed else SessionStatus.CLOSED
        if job.status in (NEW, PENDING) or self.state.phase is None:
            return SessionStatus.WAITING
        return SessionStatus(self.state.phase)

    @property
    def has_ended(self) -> bool:
        """Whether it is closed or failed, for good."""
        return self.status in (SessionStatus.CLOSED, SessionStatus.FAILED)

    @property
    def unsent(self) -> int:
        """How many messages wait to be sent."""
        return len(self.outbox)

    def send(self, text: str) -> None:
        """Have `text` sent, once the caller has committed; after what was put before.

        It is taken out of the outbox when the connection has taken it.  SessionClosed,
        SessionFull, or ValueError or TypeError if the driver cannot send such a message.
        """
        if self.closing is not None or self.has_ended:
            raise SessionClosed(f"the session {self.id} is closed, and sends nothing any more")
        if not isinstance(text, str):
            raise TypeError(f"a message is text, not {safe_repr(text)}")
        self.driver().check_message(self.options, text)
        if self.unsent >= self.most_unsent:
            raise SessionFull(f"{self.unsent} messages of the session {self.id} wait already")
        self._p_jar.readCurrent(self)  # it might be closed at this moment
        self.outbox.put(text)
        self._wake()

    def close(self, reason: str = "closed") -> bool:
        """Have it closed, once the caller has committed, after what is to be sent was.

        Answers False if it has ended, or was told so before.
        """
        if self.closing is not None or self.has_ended:
            return False
        self.closing = printable(reason, one_line=True)[:LONGEST_LABEL]
        self._wake()
        return True

    def _wake(self) -> None:
        waking.wake_after_commit(self)
        ring_after_commit(self._p_jar)

    def handler_job(self, heard: Any) -> Job:
        """A new job that handles what was heard; to be put."""
        made: Job = self._template.again()
        about = {"number": self.state.heard}
        about |= {name: value for name in ("event", "id") if (value := getattr(heard, name))}
        made.args = [self, heard.text, about]
        return made

    def summary(self) -> dict[str, Any]:
        """How it ended: the result of the job that held it."""
        state = self.state
        counts = {"heard": state.heard, "sent": state.sent, "refused": state.refused}
        return {**counts, "unsent": self.unsent}

    def __repr__(self) -> str:
        return f"<zasync.plugins.session.Session {self.id}>"


class Sessions(Persistent):
    """The sessions of an application; keep one in the database."""

    def __init__(self) -> None:
        self._sessions = OOBTree()  # id -> Session
        self._owned = OOBTree()  # owner -> ids

    def open(
        self,
        driver: Any,
        options: Mapping[str, Any],
        *,
        queue: Any,
        handler: Any,
        owner: str | None = None,
        label: str = "",
        handler_queue: Any = None,
        reconnect: bool = True,
        give_up_after: timedelta | None = None,
        most_unsent: int = MOST_UNSENT,
        most_unhandled: int = MOST_UNHANDLED,
    ) -> Session:
        """Have a connection made and held by a worker of `queue`, once the caller has committed.

        `driver` is 'lines', 'events' or a Driver class, and `options` are its.  For each thing
        that is heard a job is put in `handler_queue` (the same queue) that calls
        `handler(session, text, about)`: the handler is a callable, the name of a plugin, or a new
        job whose options are to be used.  `about` has its number, and its kind and id where the
        driver tells them.  A lost connection is made again, unless `reconnect` is off, for at most
        `give_up_after` (None: for ever).
        """
        if self._p_jar is None:
            raise ValueError("the sessions are in no database yet: add them to one, and commit")
        driver = _driver_class(driver)
        driver().check_options(options)
        _check_no_secrets(options)
        template = _template(handler, queue._p_jar)
        session = Session(owner, label[:LONGEST_LABEL], driver, options, template)
        for name, limit in (("most_unsent", most_unsent), ("most_unhandled", most_unhandled)):
            if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
                raise ValueError(f"{name} is a number from 1 on, not {safe_repr(limit)}")
            setattr(session, name, limit)
        session.reconnect, session.give_up_after = bool(reconnect), give_up_after
        session.handler_queue = queue if handler_queue is None else handler_queue
        self._p_jar.add(session)
        session.job = _holding_job(session)
        queue.put(session.job)
        self._sessions[session.id] = session
        if owner is not None:
            if owner not in self._owned:
                self._owned[owner] = OOTreeSet()
            self._owned[owner].insert(session.id)
        return session

    def get(self, session_id: str, *, owner: Any = ANYBODY) -> Session:
        """The session of that id.  SessionNotFound if there is none, or none of `owner`."""
        found = self._sessions.get(session_id) if isinstance(session_id, str) else None
        if found is None or (owner is not ANYBODY and found.owner != owner):
            raise SessionNotFound(f"there is no session {safe_repr(session_id)}")
        return found  # type: ignore[no-any-return]

    def owned_by(self, owner: str) -> Iterator[Session]:
        """The sessions of `owner`, the newest first."""
        found = [self._sessions[session_id] for session_id in self._owned.get(owner, ())]
        return iter(sorted(found, key=_opened_at, reverse=True))

    def __iter__(self) -> Iterator[Session]:
        """All, the newest first."""
        return iter(sorted(self._sessions.values(), key=_opened_at, reverse=True))

    def __len__(self) -> int:
        return len(self._sessions)

    def __bool__(self) -> bool:
        return True

    def forget(self, session: Session) -> None:
        """Take out a session that has ended.  ValueError for another."""
        if not session.has_ended:
            raise ValueError(f"the session {session.id} has not ended; close it first")
        if self._sessions.pop(session.id, None) is not None and session.owner is not None:
            self._owned[session.owner].remove(session.id)

    def prune(self, older_than: timedelta) -> int:
        """Forget the sessions that ended so long ago; answers how many."""
        limit = clock.now() - older_than
        old = [
            session
            for session in self._sessions.values()
            if session.has_ended and (session.job.active_end or session.opened_at) <= limit
        ]
        for session in old:
            self.forget(session)
        return len(old)


_opened_at: Callable[[Session], datetime] = lambda session: session.opened_at  # noqa: E731


def _driver_class(driver: Any) -> Any:
    if isinstance(driver, str):
        if driver not in DRIVERS:
            raise ValueError(f"there is no driver {driver!r}; there are {sorted(DRIVERS)}")
        return DRIVERS[driver]
    if not isinstance(driver, type):
        raise TypeError(f"a driver is a class or the name of one, not {safe_repr(driver)}")
    names, target = callables.describe(driver)
    callables.check_nameable(names, target)
    return driver


def _check_no_secrets(options: Mapping[str, Any]) -> None:
    for name in options:
        if looks_secret(name) and name != "credential":
            raise ValueError(
                f"the option {name!r} would be stored with the session; name a credential instead"
            )


def _template(handler: Any, connection: Any) -> Job:
    if isinstance(handler, Job):
        if handler.status != NEW or handler.parent is not None or handler.args or handler.kwargs:
            raise ValueError("a handler that is a job is a new one without arguments")
        template = handler
    else:
        template = blank_job(handler)
    template.check_storable(connection)
    if inspect.iscoroutinefunction(template.callable):
        raise TypeError(
            f"the handler {template.callable_name} is a coroutine function, which cannot get the"
            " session: it runs outside of any transaction"
        )
    return template


def _holding_job(session: Session) -> Job:
    oid = int.from_bytes(session._p_oid, "big")
    job = Job(hold, session._p_jar.db().database_name, oid)
    job.retry_policy_factory = SessionPolicy
    job.crash_limit = 2**31  # it outlives many workers, and is not to blame for their deaths
    return job


for _stored in (Outbox, Session, Sessions, SessionState, SessionPolicy):
    _stored.__module__ = "zasync.plugins.session"
