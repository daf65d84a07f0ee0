# SPDX-License-Identifier: ZPL-2.1
"""Hints to the holder of a session, in the same process, that there is something to send.

Those of other processes come through the dispatcher's hints.  A hint promises nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

Key = tuple[Any, bytes]

_holders: dict[Key, set[Callable[[], None]]] = {}
_lock = threading.Lock()


def listen(db: Any, oid: bytes, wake: Callable[[], None]) -> Callable[[], None]:
    """Call `wake` when the session `oid` of `db` is given something; answers what ends that."""
    key = (id(db), oid)
    with _lock:
        _holders.setdefault(key, set()).add(wake)

    def stop() -> None:
        with _lock:
            left = _holders.get(key, set())
            left.discard(wake)
            if not left:
                _holders.pop(key, None)

    return stop


def wake_after_commit(session: Any) -> None:
    """Wake the holder of `session`, if it is in this process, after the present transaction."""
    key = (id(session._p_jar.db()), session._p_oid)
    session._p_jar.transaction_manager.get().addAfterCommitHook(_wake_if, (key,))


def _wake_if(committed: bool, key: Key) -> None:
    if not committed:
        return
    with _lock:
        holders = list(_holders.get(key, ()))
    for wake in holders:
        wake()
