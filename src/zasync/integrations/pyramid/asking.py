# SPDX-License-Identifier: ZPL-2.1
"""What a request has: the queues and the register of calls, in the request's own transaction."""

from __future__ import annotations

from typing import Any

from pyramid_zodbconn import get_connection

from zasync.interfaces import KEY

CALLS_KEY = "zasync_calls"
"""The name in the root of the queues' database under which the register of calls lies."""


def home_of(connection: Any) -> Any:
    """The connection to the database that the queues lie in, by one to the primary database."""
    return connection.root()[KEY]._p_jar


def queues_of(request: Any) -> Any:
    """`request.zasync_queues`: the mapping of queues."""
    return get_connection(request).root()[KEY]


def queue_of(request: Any) -> Any:
    """`request.zasync_queue`: the queue that the setting zasync.queue names."""
    return queues_of(request)[request.registry.zasync_settings.queue]


def calls_of(request: Any) -> Any:
    """`request.zasync_calls`: the register of calls."""
    return home_of(get_connection(request)).root()[CALLS_KEY]
