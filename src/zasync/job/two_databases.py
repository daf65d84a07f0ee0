# SPDX-License-Identifier: ZPL-2.1
"""A job whose transaction changes other databases than that of its queue.

Two databases do not end a transaction at one moment, and a process may die in between.  So the
queue's database comes last; the others get a marker that says what is missing if it did not come;
and whoever takes an interrupted job over first makes sure that its run commits nothing more, then
looks for markers.  Why it is done this way: docs/decisions/0011-two-databases.md.  A job that
changes nothing but its queue's database pays nothing for all this.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import threading
from typing import Any

import zope.component
from ZODB.POSException import POSKeyError

from zasync import threadlocal
from zasync.failure import Failure
from zasync.foundation import clock
from zasync.foundation.attempts import committed
from zasync.foundation.failpoints import reach
from zasync.foundation.reporting import events
from zasync.interfaces import ACTIVE, IUUID, PartialCommitError, UnresolvableError
from zasync.job import carrying, relations
from zasync.job.marker import MARKERS, Marker, Markers, markers_in

HAND_NAMES = 16  # processes of one instance that call jobs by hand share so many names


# Committing


class Participant:
    """Takes part in a transaction without having anything to commit."""

    transaction_manager = None
    key = ""

    def nothing(self, transaction: Any) -> None:
        """Nothing is to be done at this step."""

    abort = tpc_begin = commit = tpc_vote = tpc_finish = tpc_abort = nothing

    def savepoint(self) -> Participant:
        return self

    def rollback(self) -> None:
        """There is nothing to roll back."""

    def sortKey(self) -> str:
        return self.key


class First(Participant):
    """Comes before all databases: when it commits, what they will store can still be changed.

    Every other database that the transaction changes is fenced by the token of the run.
    """

    def __init__(self, run: Any) -> None:
        self.run = run

    def commit(self, transaction: Any) -> None:
        home = self.run.connection
        others = [each for each in _others(home) if _takes_part(each, transaction)]
        for other in others:
            fence = markers_in(other).fence(self.run.token)
            if fence._p_jar is not None:  # else they are all new, and the root is written
                fence._p_activate()
                other.readCurrent(fence)
        if others:
            self.mark(home, others)

    def mark(self, home: Any, others: list[Any]) -> None:
        """Leave in `others` what recovery needs; what a job commits by itself needs nothing."""


class FirstOfLast(First):
    """The same for the transaction that settles a run: it leaves markers, the queue comes last."""

    def __init__(self, run: Any, last: Last) -> None:
        super().__init__(run)
        self.last = last

    def mark(self, home: Any, others: list[Any]) -> None:
        job = self.run.job
        carried, lost = carrying.pack(job)
        marker = Marker(
            home.db().database_name,
            job.oid,
            self.run.token,
            None if job.status != ACTIVE or job.awaited is not None else job._suspension,
            job.awaited is not None,
            tuple(other.db().database_name for other in others),
            carried,
            lost,
            clock.now_micros(),
        )
        all_markers = [markers_in(other) for other in others]

        def known(old: Marker) -> bool:
            return is_known(old, home)

        name = names.take(self.runner(), all_markers, known)
        self.last.postpone(home, name, marker)
        for markers in all_markers:
            markers.write(name, marker, known)

    def tpc_finish(self, transaction: Any) -> None:
        self.run.in_halves = self.last.home is not None

    def runner(self) -> str:
        """Whose slots these are: no two that commit at the same time have the same name."""
        around = threadlocal.surroundings.get()
        if around is not None and around.dispatcher is not None:
            return str(around.dispatcher.UUID)
        instance = zope.component.queryUtility(IUUID)
        return f"{instance} by hand {os.getpid() % HAND_NAMES}"


class Last(Participant):
    """Comes after all databases, whatever their sort keys are, and finishes the queue's.

    Only the finish is postponed.  The order in which databases are locked stays that of their
    sort keys, which everybody who commits follows; another one could lock each other out.
    """

    key = "\U0010ffff"

    def __init__(self) -> None:
        self.home: Any = None
        self.name = ""
        self.token = 0

    def postpone(self, home: Any, name: str, marker: Marker) -> None:
        self.home, self.name, self.token = home, name, marker.token
        home.tpc_finish = self.nothing  # hides the method, until `_restore`

    def tpc_finish(self, transaction: Any) -> None:
        home = self._restore()
        if home is not None:
            reach("run.half_committed")
            home.tpc_finish(transaction)
            names.known(self.name, self.token)

    def abort(self, transaction: Any) -> None:
        self._restore()

    tpc_abort = abort

    def _restore(self) -> Any:
        home, self.home = self.home, None
        if home is not None:
            del home.tpc_finish
            names.give_back(self.name)
        return home


class Names:
    """The slots in use by this process, and what it knows of those that it used before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: set[str] = set()
        self._known: dict[str, int] = {}  # name -> token of a marker that is needed no more

    def take(self, runner: str, all_markers: list[Markers], is_known: Any) -> str:
        """The first slot of `runner` that nobody uses and whose marker is needed no more."""
        all_names = (f"{runner}/{number}" for number in itertools.count())
        return next(name for name in all_names if self._take(name, all_markers, is_known))

    def _take(self, name: str, all_markers: list[Markers], is_known: Any) -> bool:
        with self._lock:
            if name in self._taken:
                return False
            self._taken.add(name)
        free = False
        try:
            free = all(self._is_free(name, markers, is_known) for markers in all_markers)
        finally:
            if not free:
                self.give_back(name)
        if free:
            self._known.pop(name, None)  # until it is known what becomes of the next marker
        return free

    def _is_free(self, name: str, markers: Markers, is_known: Any) -> bool:
        old = markers.marker(name)
        return old is None or self._known.get(name) == old.token or is_known(old)

    def known(self, name: str, token: int) -> None:
        self._known[name] = token

    def give_back(self, name: str) -> None:
        self._taken.discard(name)


names = Names()


def secure(run: Any) -> None:
    """Prepare the transaction that is about to settle `run`."""
    if _has_others(run.connection):
        last = Last()
        transaction = run.manager.get()
        transaction.join(FirstOfLast(run, last))
        transaction.join(last)


def fence(run: Any, transaction: Any) -> None:
    """Prepare a transaction of the job's own code, which is about to be committed."""
    if _has_others(run.connection):
        transaction.join(First(run))


def _has_others(home: Any) -> bool:
    """Whether there is another database, which even a hook before the commit may open."""
    return len(home.db().databases) > 1


def _others(home: Any) -> list[Any]:
    """The connections to other databases that belong to `home`."""
    return [each for each in home.connections.values() if each is not home]


def _takes_part(connection: Any, transaction: Any) -> bool:
    """Whether the transaction that is being committed changes what `connection` leads to."""
    try:
        transaction.data(connection)
    except KeyError:
        return False
    return True


# Taking over


@dataclasses.dataclass(frozen=True)
class Found:
    """What an interrupted run has committed in other databases, but not in that of its queue."""

    marker: Marker
    missing: tuple[str, ...]  # databases that it has changed, but not committed


def other_databases(home: Any) -> tuple[str, ...]:
    """The names of the databases beside that of `home`, whether it is connected to them or not."""
    database = home.db()
    return tuple(sorted(name for name in database.databases if name != database.database_name))


def note_interruption(job: Any, databases: tuple[str, ...] = ()) -> None:
    """Note the attempt at `job` that was interrupted, if it may have changed other databases.

    These are the `databases` that its process had open, and those that ours has.
    """
    home = job._p_jar
    names = {*databases, *other_databases(home)} - {home.db().database_name}
    if names:
        job._interrupted = (*job._interrupted, (job._token, tuple(sorted(names))))


def may_be_half_committed(job: Any) -> bool:
    """Whether a run of `job` may have changed other databases, so that `find` must tell."""
    if job.status != ACTIVE or job.awaited is not None or job._again is not None:
        return False
    record = getattr(job.agent, "parent", None)
    elsewhere = bool(getattr(record, "databases", ())) or _has_others(job._p_jar)
    return elsewhere or bool(_interruptions(job))


def attempts_at(job: Any) -> Any:
    """What names the attempts that `find` looks for."""
    return job._token, job._interrupted


def find(job: Any) -> Found | None:
    """What interrupted attempts at `job` have left half done; from now on they commit nothing.

    Commits.  UnresolvableError if a database is not open here in which one may have left a marker.
    """
    home = job._p_jar
    if not _has_others(home) and not _interruptions(job):
        return None
    manager = home.transaction_manager
    tokens, databases = committed(_what_to_look_for, job, transaction_manager=manager)
    if not tokens:
        return None
    missing = [name for name in databases if name not in home.db().databases]
    if missing:
        raise UnresolvableError(
            f"{job!r} was interrupted and may have changed databases that are not open in this"
            f" process: {', '.join(missing)}.  A worker that has them must go on with it."
        )
    writable = [name for name in databases if not home.get_connection(name).isReadOnly()]
    for name in writable:
        committed(_touch_fences, home, name, tokens, transaction_manager=manager)
    return committed(_read_markers, job, tokens, writable, transaction_manager=manager)


def _interruptions(job: Any) -> list[tuple[int | None, tuple[str, ...]]]:
    """Those of the job, and of those whose callback it is."""
    noted = list(job._interrupted)
    parent = relations.parent_job(job)
    while parent is not None:
        noted += [(None, databases) for _token, databases in parent._interrupted]
        parent = relations.parent_job(parent)
    return noted


def _what_to_look_for(job: Any) -> tuple[list[int], list[str]]:
    """The tokens of the interrupted attempts, and the databases that they may have changed."""
    if job.status != ACTIVE or job.awaited is not None or job._again is not None:
        return [], []
    noted = _interruptions(job)
    tokens = {token for token, _databases in noted if token is not None}
    if job._token is not None:
        tokens.add(job._token)
    databases = set(other_databases(job._p_jar)).union(*(some for _token, some in noted))
    return sorted(tokens), sorted(databases - {job._p_jar.db().database_name})


def _touch_fences(home: Any, name: str, tokens: list[int]) -> None:
    markers = markers_in(home.get_connection(name))
    for token in tokens:
        markers.fence(token).touch()


def _read_markers(job: Any, tokens: list[int], databases: list[str]) -> Found | None:
    """The marker that the queue's database does not know of, looked for in all `databases`."""
    home = job._p_jar
    present: dict[str, Marker] = {}
    for name in databases:
        markers = home.get_connection(name).root().get(MARKERS)
        for marker in () if markers is None else markers.present():
            if _is_of(marker, job) and marker.token in tokens and _is_news(marker, job):
                present[name] = marker
    if not present:
        return None
    marker = max(present.values(), key=lambda each: each.written)
    return Found(marker, tuple(name for name in marker.changed if present.get(name) != marker))


def _is_of(marker: Marker, job: Any) -> bool:
    return (marker.database, marker.oid) == (job._p_jar.db().database_name, job.oid)


def _is_news(marker: Marker, job: Any) -> bool:
    return marker.suspension is None or marker.suspension != job._suspension


def is_known(marker: Marker, home: Any) -> bool:
    """Whether the queue's database knows the outcome that `marker` tells, or needs it no more."""
    try:
        job = home.get_connection(marker.database).get(marker.oid.to_bytes(8, "big"))
        if not relations.is_job(job):
            return True
    except POSKeyError:
        return True
    except KeyError:  # a database that is not open here
        return False
    if any(token == marker.token for token, _databases in job._interrupted):
        return False
    if job._token != marker.token or job.status != ACTIVE:
        return True
    return job._again is not None or job.awaited is not None or not _is_news(marker, job)


def forget_interruptions(job: Any) -> None:
    """What interrupted attempts left is known, and written."""
    if job._interrupted:
        job._interrupted = ()


def take_over(job: Any, found: Found) -> None:
    """Write into the queue's database what a run has not written there.  Does not commit.

    The job then has its result, waits, or is suspended, as that run wanted it.
    """
    marker = found.marker
    if found.missing:
        job.finish(Failure(_partial(job, f"not in {', '.join(found.missing)}")))
        return
    result = carrying.unpack(marker.carried, job)
    if marker.suspension is not None:
        job._suspension = marker.suspension
    elif marker.lost:
        job.finish(Failure(_partial(job, f"but not these in its own: {', '.join(marker.lost)}")))
    elif not marker.waiting:
        job.finish(result)
    elif carrying.is_new(result, job._p_jar):
        job._result = result  # a new job, which was packed with the callback of this one
    else:
        job.place_inner(result)
        job.wait_for(result)


def _partial(job: Any, what: str) -> PartialCommitError:
    return PartialCommitError(
        f"{job!r} died while it committed to several databases: its changes took effect in"
        f" others, {what}.  It is not run again; compare the data and put it right by hand."
    )


def report(job: Any, found: Found) -> None:
    """Log how the job was taken over."""
    events.taken_over(job, found.marker.changed)
    if found.missing or found.marker.lost:
        events.partly_committed(job, job.result)
