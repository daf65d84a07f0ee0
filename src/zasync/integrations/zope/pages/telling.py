# SPDX-License-Identifier: ZPL-2.1
"""What the pages say about calls and workers: plain values, ready to be shown.

Lists never look at results or arguments: these may be large, secret, or costly to read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from zasync.calls import Call
from zasync.calls.description import describe
from zasync.foundation import clock
from zasync.integrations.zope import ownership
from zasync.integrations.zope.pages.page import moment, span

STATES = {
    "new": "waiting",
    "accepted": "running",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}
"""Each state of a call, or the outcome of one that is resolved, in a word for people."""


def fetched(calls: Iterable[Call]) -> list[Call]:
    """The calls, which are asked of the server with their jobs all at once, not one by one."""
    found = list(calls)
    _fetch(found)
    _fetch([call.job for call in found])
    return found


def _fetch(things: list[Any]) -> None:
    by_connection: dict[Any, list[Any]] = {}
    for thing in things:
        if thing._p_jar is not None:
            by_connection.setdefault(thing._p_jar, []).append(thing)
    for connection, group in by_connection.items():
        connection.prefetch(group)  # does nothing where the storage has no such thing


def state_of(call: Call) -> str:
    """A key of STATES."""
    return str(call.state if call.outcome is None else call.outcome)


def row(call: Call, address: str) -> dict[str, Any]:
    """A call in a list; `address` is that of its page."""
    state = state_of(call)
    progress = call.progress
    return {
        "id": call.id,
        "url": address,
        "label": call.label,
        "owner": ownership.title_of(call.owner),
        "state": state,
        "state_name": STATES[state],
        "put_at": moment(call.put_at),
        "progress": progress.text or "",
        "percent": percent(progress.done, progress.total),
    }


def whole(call: Call, address: str, *, with_traceback: bool = False) -> dict[str, Any]:
    """A call on a page of its own."""
    told = describe(call, url=address, with_traceback=with_traceback)
    progress = call.progress
    failure = told.get("failure") or {}
    return {
        **row(call, address),
        "done": progress.done,
        "total": progress.total,
        "ended": call.outcome is not None,
        "succeeded": state_of(call) == "succeeded",
        "can_retry": state_of(call) in ("failed", "cancelled"),
        "result": shown(told.get("result"), told.get("result_is_json", True)),
        "error": ": ".join(filter(None, (_short(failure.get("type")), failure.get("message")))),
        "traceback": failure.get("traceback"),
    }


def for_owner(body: dict[str, Any], call: Call) -> dict[str, Any]:
    """What programs are told, with the owner as people see it: a browser's key is a secret."""
    return {**body, "owner": ownership.title_of(call.owner)}


def _short(name: str | None) -> str | None:
    return None if name is None else name.removeprefix("builtins.")


def shown(result: Any, is_json: bool) -> str:
    """A result as text: a text as it is, else JSON, else what it is and its repr."""
    if isinstance(result, str):
        return result
    if not is_json:
        return f"{result['type']}\n{result['repr']}"
    return json.dumps(result, indent=2, ensure_ascii=False)


def percent(done: float | None, total: float | None) -> int | None:
    """How much of it is done; None if that is not known."""
    if done is None or not total:
        return None
    return int(100 * min(1.0, max(0.0, done / total)))


def worker(record: Any) -> dict[str, Any]:
    """A dispatcher that works, or has worked, the queue."""
    if not record.activated:
        state = "stopped"
    elif record.dead:
        state = "dead"
    else:
        state = "alive"
    last = record.last_ping.value
    process = record.process or {}
    return {
        "uuid": str(record.UUID),
        "state": state,
        "host": process.get("host"),
        "pid": process.get("pid"),
        "last_ping": moment(last),
        "age": None if last is None else span(clock.now() - last),
        "running": sum(len(agent) for agent in record.values()),
        "places": sum(agent.size for agent in record.values()),
    }
