# SPDX-License-Identifier: ZPL-2.1
"""For code that runs inside a job: the job, its queue, its dispatcher, and what is told at once.

Works in threads and in coroutines.  Live annotations and the line of progress are committed in a
connection of their own, so that others see them while the job is still running.
"""

from __future__ import annotations

from typing import Any

from zasync import threadlocal
from zasync.foundation import clock
from zasync.foundation.attempts import OwnManager, begun, committed, end, pause
from zasync.interfaces import CancelledError, ReassignedError


def getJob() -> Any:
    """The job that is running here.

    In a coroutine it is for reading: there is no transaction that would keep changes.
    """
    return threadlocal.current().get_job()


def getQueue() -> Any:
    """The queue of the running job, or None."""
    return getJob().queue


def getDispatcher() -> Any:
    """The dispatcher that runs this job, or None if it was called by hand."""
    return threadlocal.current().dispatcher


def getReactor() -> Any:
    """The reactor of the dispatcher that runs this job, or None."""
    dispatcher = getDispatcher()
    return None if dispatcher is None else dispatcher.reactor


def getAgentName() -> str | None:
    """The name of the agent that runs this job, or None."""
    return threadlocal.current().agent_name


def setLiveAnnotation(name: str, value: Any, job: Any = None) -> None:
    """Set `job.annotations[name]` (of the running job by default) and commit that at once.

    It is committed in a connection of its own; the present transaction is not touched and does
    not see it.  `value` must not be or hold a persistent object of the present connection.
    """
    job = getJob() if job is None else job
    manager, connection = _open_beside(job)
    try:
        committed(_annotate, connection, job._p_oid, name, value, transaction_manager=manager)
    finally:
        end(manager)
        connection.close()


def getLiveAnnotation(
    name: str, default: Any = None, timeout: float = 0, poll: float = 1, job: Any = None
) -> Any:
    """What others see under `name` in the annotations of `job` now.

    Waits for at most `timeout` seconds for it to be there, looking every `poll` seconds;
    `default` if it is not there then.
    """
    job = getJob() if job is None else job
    deadline = clock.monotonic() + timeout
    manager, connection = _open_beside(job)
    try:
        while True:
            manager.begin()
            extras = connection.get(job._p_oid).find_extras()
            annotations = {} if extras is None else extras.annotations or {}
            if name in annotations:
                return annotations[name]
            remaining = deadline - clock.monotonic()
            if remaining <= 0:
                return default
            end(manager)
            pause(min(poll, remaining))
    finally:
        end(manager)
        connection.close()


def set_progress(text: str, *, done: float | None = None, total: float | None = None) -> None:
    """Note in one line how far the running job is, for `job.progress`; committed at once.

    With `done` and `total`, how much of how much is done is kept for `job.progress_numbers`;
    ValueError if one of them is missing, or if they are no such numbers.

    It is committed in a connection of its own and never makes the job's own commit conflict.  The
    first 200 characters of the last line are kept; should the process die, they tell how far the
    job was.  Of a job that was called by hand nothing is kept.
    """
    job = getJob()
    manager, connection = _open_beside(job)
    try:
        committed(
            _note_progress, connection, job._p_oid, text, done, total, transaction_manager=manager
        )
    finally:
        end(manager)
        connection.close()


def _note_progress(connection: Any, oid: bytes, text: str, done: Any, total: Any) -> None:
    connection.get(oid).note_progress(text, done, total)


def is_cancelled() -> bool:
    """Whether somebody has cancelled the running job, so that going on with it is in vain.

    The database is asked, in a connection of its own: cheap enough for each step of a long job,
    not for each turn of a tight loop.
    """
    loss = _loss()
    return loss is not None and loss.cancelled


def check_cancelled() -> None:
    """CancelledError if somebody has cancelled the running job.

    ReassignedError if it was taken away from this process, which was believed dead.  Either way
    what this run does can no longer be committed.
    """
    loss = _loss()
    if loss is not None:
        raise CancelledError(str(loss)) if loss.cancelled else loss


def _loss() -> ReassignedError | None:
    """The error of the present run if it has lost its job, as the database knows it now."""
    around = threadlocal.current()
    job = around.get_job()
    manager, connection = _open_beside(job)
    try:
        loss: ReassignedError | None = begun(
            lambda: connection.get(job._p_oid).loss_of(around.token), transaction_manager=manager
        )
        return loss
    finally:
        end(manager)
        connection.close()


def _open_beside(job: Any) -> tuple[Any, Any]:
    """Open a second connection to the database that `job` lies in."""
    if job._p_jar is None or job._p_oid is None:
        raise ValueError("what is told at once needs a job that is stored; commit it first", job)
    manager = OwnManager()
    return manager, job._p_jar.db().open(transaction_manager=manager)


def _annotate(connection: Any, oid: bytes, name: str, value: Any) -> None:
    connection.get(oid).annotations[name] = value
