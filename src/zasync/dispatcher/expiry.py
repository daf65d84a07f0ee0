# SPDX-License-Identifier: ZPL-2.1
"""What a dispatcher does about a run that has taken longer than its job's `timeout`.

A coroutine and a Deferred are cancelled where they run.  A thread cannot be ended, so the job is:
what the thread still does is not committed, and its place is free when it comes back.
"""

from __future__ import annotations

import threading
from typing import Any

from zasync.dispatcher.pool import Tracked
from zasync.foundation.attempts import OwnManager, committed, end
from zasync.foundation.reporting import events
from zasync.interfaces import TimeoutError
from zasync.job import cancelling


def overtime(seconds: float | None) -> TimeoutError:
    """What such a run ends with."""
    return TimeoutError(f"the job took longer than its timeout of {seconds:g} s")


def end_in_thread(db: Any, tracked: Tracked, seconds: float) -> None:
    """End the job of `tracked`, in a thread of its own, since the storage may not answer."""
    thread = threading.Thread(
        target=_end, args=(db, tracked, seconds), name="zasync expiry", daemon=True
    )
    thread.start()


def _end(db: Any, tracked: Tracked, seconds: float) -> None:
    oid, database_name = tracked.key
    manager = OwnManager()
    connection = db.open(transaction_manager=manager)

    def expire() -> None:
        job = connection.get_connection(database_name).get(oid.to_bytes(8, "big"))
        cancelling.expire(job, tracked.token, overtime(seconds))

    try:
        committed(expire, transaction_manager=manager)
    except Exception as error:  # such as for a job without a queue; it is reported as overdue
        events.expiry_failed(oid, error)
    finally:
        end(manager)
        connection.close()
