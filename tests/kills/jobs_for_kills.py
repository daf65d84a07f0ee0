# SPDX-License-Identifier: ZPL-2.1
"""What the jobs of the kill grid do, and what its clients put.  Imported by the workers, too."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import transaction
from BTrees.OOBTree import OOBTree

from torture import application
from torture.worker import opened
from zasync import local
from zasync.interfaces import KEY
from zasync.job import Job, RetryCommonForever

MARKS = "marks"


class Again(RetryCommonForever):
    """An error of the job: once more, in a moment."""

    def jobError(self, failure: Any, data_cache: dict[str, Any]) -> Any:
        return timedelta(milliseconds=50)


def mark(name: str) -> None:
    """Count, in the job's own transaction, that this was done."""
    marks = local.getJob()._p_jar.root()[MARKS]
    marks[name] = marks.get(name, 0) + 1


def work(name: str, seconds: float = 0.0) -> str:
    application.write("enter", name, "")
    application.pause(seconds)
    mark(name)
    return name


def fail_once(name: str, flag: str) -> str:
    """Raise an error the first time, which a file remembers, and work the second time."""
    application.write("enter", name, "")
    if _is_first_time(flag):
        raise LookupError(name)
    mark(name)
    return name


def linger_once(name: str, flag: str) -> str:
    """Take very long the first time."""
    application.write("enter", name, "")
    if _is_first_time(flag):
        application.pause(60)
    mark(name)
    return name


def _is_first_time(flag: str) -> bool:
    try:
        with open(flag, "x"):
            return True
    except FileExistsError:
        return False


def fail(name: str) -> None:
    application.write("enter", name, "")
    raise LookupError(name)


def call_back(name: str, result: Any) -> None:
    mark(name)


def put(queue: Any, name: str, job: Job) -> Job:
    """Put a job with two callbacks."""
    queue.put(job)
    job.addCallback(Job(call_back, f"{name}/first"))
    job.addCallback(Job(call_back, f"{name}/second"))
    return job


# A client


def enqueue(uri: str, queue_name: str, name: str) -> None:
    """The program of a client: put a job, unless it is there, and commit that with data."""
    db = opened(uri)
    connection = db.open(transaction_manager=transaction.TransactionManager())
    root = connection.root()
    names = root.setdefault("client", OOBTree())
    if name not in names:
        names[name] = put(root[KEY][queue_name], name, Job(work, name))
        connection.transaction_manager.commit()
    connection.close()
    db.close()
