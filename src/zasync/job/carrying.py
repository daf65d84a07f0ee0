# SPDX-License-Identifier: ZPL-2.1
"""What a transaction writes into the queue's database, packed so that it can be written later.

Carried is what jobs usually write there: the result, jobs that were put, callbacks and
annotations of the job itself.  What else a transaction has changed there is told by name.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import zodbpickle.pickle
from BTrees.LOBTree import LOBTree, LOBucket
from BTrees.OOBTree import OOBTree, OOBucket
from persistent import Persistent
from ZODB.POSException import POSKeyError
from ZODB.utils import z64

from zasync.foundation.attempts import OwnManager
from zasync.foundation.reporting import events
from zasync.foundation.text import persistent_name
from zasync.interfaces import ACTIVE, NEW, PENDING, IQueue
from zasync.job import relations
from zasync.job.states import Move

PROTOCOL = 3


def pack(job: Any) -> tuple[bytes, tuple[str, ...]]:
    """What the present transaction writes for `job`; and the names of what that leaves out.

    To be called when nothing of the transaction has been stored yet.
    """
    connection = job._p_jar
    changed = _changed(connection)
    put = [each for each in changed if _is_put(each, connection)]
    content = {
        "result": job.result,
        "put": [(each, each.parent, each._place.kind == "returned") for each in put],
        "oids": [
            (each, each._p_oid)
            for each in changed
            if each._p_jar is connection and is_new(each, connection)
        ],
        "callbacks": [each for each in job.callbacks if is_new(each, connection)],
        "annotations": _annotations(job),
    }
    lost = [each for each in changed if not _is_carried(each, job, put, connection)]
    try:
        packed = _dump(content, connection)
    except Exception as error:  # pickling runs code of the objects
        return b"", (f"its result and the jobs that it put ({type(error).__name__}: {error})",)
    return packed, tuple(map(persistent_name, lost))


def unpack(packed: bytes, job: Any) -> Any:
    """Write what was packed for `job`, all but its result; answers that.  Does not commit."""
    if not packed:
        return None
    connection = job._p_jar
    for each in connection.connections.values():
        each.cacheMinimize()  # ghosts of what has not been stored would be in the way
    content = _load(packed, connection)
    for thing, oid in content["oids"]:
        _bring_home(thing, oid, connection)
    for each, queue, is_first in content["put"]:
        _put(each, queue, is_first)
    if content["callbacks"]:
        extras = job.need_extras()
        for callback in content["callbacks"]:
            callback.parent = job
        extras.callbacks = (*extras.callbacks, *content["callbacks"])
    if content["annotations"] is not None:
        job.annotations.update(content["annotations"])
    return content["result"]


def _dump(content: Any, connection: Any) -> bytes:
    """A pickle in which what is stored already is named by its database and oid."""

    def persistent_id(thing: Any) -> Any:
        if isinstance(thing, type) or not isinstance(thing, Persistent):
            return None
        if is_new(thing, connection):
            return None  # its state is part of the pickle
        return thing._p_jar.db().database_name, thing._p_oid

    file = io.BytesIO()
    pickler = zodbpickle.pickle.Pickler(file, PROTOCOL)
    pickler.persistent_id = persistent_id
    pickler.dump(content)
    return file.getvalue()


def _load(packed: bytes, connection: Any) -> Any:
    def persistent_load(reference: tuple[str, bytes]) -> Any:
        database, oid = reference
        return connection.get_connection(database).get(oid)

    unpickler = zodbpickle.pickle.Unpickler(io.BytesIO(packed))
    unpickler.persistent_load = persistent_load
    return unpickler.load()


def _bring_home(thing: Any, oid: bytes, connection: Any) -> None:
    """Add `thing` under the oid that it was given, by which the data may refer to it."""
    try:
        connection.get(oid)._p_activate()
    except POSKeyError:
        connection._add(thing, oid)  # `add` chooses the oid
    else:  # a storage that was closed meanwhile has given it to something else
        connection.add(thing)
        events.oid_taken(thing, int.from_bytes(oid, "big"))


def _put(job: Any, queue: Any, is_first: bool) -> None:
    """Put a job, in whose record it says that it lies in `queue`, there."""
    if job.status == PENDING:  # a new one; one that is stored already was not written
        job._status, job._parent = NEW, None
    Move.RESCHEDULE.check(job)
    if is_first:
        queue.putBack(job)
    else:
        queue.reschedule(job, job._begin_after)


def _annotations(job: Any) -> dict[str, Any] | None:
    """The annotations of `job`, if there are any."""
    extras = job.find_extras()
    if extras is None or extras.annotations is None:
        return None
    return dict(extras.annotations)


# What a transaction has changed


def _changed(connection: Any) -> list[Any]:
    """The objects that a transaction has changed in, or added to, a database.

    ZODB has no public way to ask.  What savepoints have set aside already lies apart.
    """
    changed = {thing._p_oid: thing for thing in connection._registered_objects}
    aside = connection._savepoint_storage
    for oid in () if aside is None else aside.index:
        if oid not in changed:
            changed[oid] = connection.get(oid)
    return list(changed.values())


def is_new(thing: Any, connection: Any) -> bool:
    """Whether a persistent object has never been committed to the queue's database."""
    home = thing._p_jar
    if home is not connection:
        return home is None
    try:
        thing._p_activate()  # only then the serial tells
    except POSKeyError:
        return False
    return bool(thing._p_serial == z64)


def _is_put(thing: Any, connection: Any) -> bool:
    """Whether this is a job that has been put in a queue of the job's database."""
    if not relations.is_job(thing) or thing.status != PENDING:
        return False
    parent: Any = thing.parent
    lies_here = parent is not None and parent._p_jar is connection and IQueue.providedBy(parent)
    return lies_here and (is_new(thing, connection) or _stored_status(thing) != PENDING)


def _stored_status(job: Any) -> str:
    """The status of a job before the present transaction."""
    connection = job._p_jar.db().open(transaction_manager=OwnManager())
    try:
        connection.transaction_manager.begin()
        return str(connection.get(job._p_oid).status)
    finally:
        connection.transaction_manager.abort()
        connection.close()


def _is_carried(thing: Any, job: Any, put: list[Any], connection: Any) -> bool:
    """Whether the change of `thing` is packed, or follows from what is, or is of no interest."""
    if is_new(thing, connection):
        return True
    if _is_one_of(thing, [job, job._payload, job._policy, job._result, *put]):
        return True
    if relations.is_job(thing):
        # A group that is being concluded, or a job that calls this one and counts its commits.
        return bool(thing.status == ACTIVE)
    if any(queue.explains(thing, put) for queue in _queues(put)):
        return True
    return any(_is_of_extras(thing, each, connection) for each in (job, job.awaited) if each)


def _is_one_of(thing: Any, others: Iterable[Any]) -> bool:
    return any(thing is other for other in others)


def _queues(put: Iterable[Any]) -> list[Any]:
    queues: list[Any] = []
    for each in put:
        if not _is_one_of(each.parent, queues):
            queues.append(each.parent)
    return queues


def _is_of_extras(thing: Any, job: Any, connection: Any) -> bool:
    """Whether `thing` holds callbacks or annotations of `job`, and none of others is new in it."""
    extras = job.find_extras()
    if extras is None:
        return False
    if _is_one_of(thing, [extras, extras.annotations]):
        return True
    if isinstance(thing, LOBTree | LOBucket):  # (part of) the mailbox in which extras are left
        return _is_one_of(extras, thing.values()) and not any(
            is_new(each, connection)
            for each in thing.values()
            if isinstance(each, Persistent) and each is not extras
        )
    if isinstance(thing, OOBTree | OOBucket) and extras.annotations is not None and len(thing):
        return all(extras.annotations.get(key) is value for key, value in thing.items())
    return False
