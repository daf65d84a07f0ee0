# SPDX-License-Identifier: ZPL-2.1
"""Connections that live long: to a chat, a line-based server, a stream of events.

A session belongs to a user and outlives transactions.  Requests send through it by putting
messages in its outbox, in their own transactions; what it hears becomes small jobs.  What is
stored is in `register`, what holds the connection in `holder`; `drivers` and `events` speak.
"""

from zasync.plugins.session.drivers import Connection, Driver, Heard, LineDriver
from zasync.plugins.session.events import EventDriver
from zasync.plugins.session.register import (
    ANYBODY,
    Outbox,
    Session,
    SessionClosed,
    SessionFull,
    SessionNotFound,
    SessionPolicy,
    Sessions,
    SessionState,
)
from zasync.plugins.session.status import SessionStatus

__all__ = [
    "ANYBODY",
    "Connection",
    "Driver",
    "EventDriver",
    "Heard",
    "LineDriver",
    "Outbox",
    "Session",
    "SessionClosed",
    "SessionFull",
    "SessionNotFound",
    "SessionPolicy",
    "SessionState",
    "SessionStatus",
    "Sessions",
]
