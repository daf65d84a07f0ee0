# SPDX-License-Identifier: ZPL-2.1
"""How a session does, in a word."""

from __future__ import annotations

import enum


class SessionStatus(enum.StrEnum):
    """How a session does."""

    WAITING = "waiting"  # for a worker that holds it
    CONNECTING = "connecting"
    CONNECTED = "connected"
    LOST = "lost"  # and soon tried again
    CLOSED = "closed"
    FAILED = "failed"
