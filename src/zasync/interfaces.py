# SPDX-License-Identifier: ZPL-2.1
"""The words of zasync and what each of them promises: statuses, contracts, events, errors.

This is the page to read first.  It imports nothing of ours; everything else imports it.
"""

from __future__ import annotations

import builtins
from typing import Any

import zope.interface
from zope.interface import Attribute, Interface
from zope.interface.common.mapping import IEnumerableMapping
from zope.interface.interfaces import IObjectEvent, ObjectEvent

KEY = "zasync"
"""The name in the database root under which the `Queues` mapping lies."""

# The statuses of a job, in the order of its life (zasync.job.states has the moves).
NEW = "new-status"
PENDING = "pending-status"
ASSIGNED = "assigned-status"
ACTIVE = "active-status"
CALLBACKS = "callback-status"
COMPLETED = "completed-status"


# Errors


class ZasyncError(Exception):
    """The base of every error that zasync itself raises."""


class AbortedError(ZasyncError):
    """A job was given up: interrupted, and its retry policy does not allow another run."""


class ParkedError(AbortedError):
    """A job was parked: it has ended, but a person may want to have it done all the same.

    The message tells why.  The job is in `queue.parked`, from where it can be put back.  A job that
    fails with such an error is parked.
    """


class PoisonError(ParkedError):
    """A job was parked: its process died under it as often as its `crash_limit` allows.

    The message tells when and where.
    """


class CancelledError(AbortedError):
    """A job was cancelled: somebody called its `cancel`, or its own code raised this."""


class TimeoutError(ZasyncError, builtins.TimeoutError):  # the contract fixes the name
    """A job was not begun by its `begin_by`, or something was waited for in vain."""


class BadStatusError(ZasyncError):
    """What was asked cannot be done in the status that the job has; the message names both."""


class ReassignedError(ZasyncError):
    """A run has lost its job, because its dispatcher was believed dead; it commits nothing.

    Or because somebody has cancelled the job; then `cancelled` is true.
    """

    cancelled = False


class PartialCommitError(ZasyncError):
    """A job's process died while it committed to several databases, and some lack its changes.

    The message names them.  The job is not run again: compare the databases, and repair by hand.
    """


class FullError(ZasyncError):
    """A container of bounded size (a quota) has no free place."""


class UnresolvableError(ZasyncError, LookupError):
    """What a job's callable is named after cannot be found in this process.

    The job waits in its queue for a worker that has the code; nothing of it is used up.
    """


class NotStorableError(ZasyncError, TypeError):
    """A callable, argument or result cannot be held by the database; the message names it."""


# The running side


class IReactor(Interface):
    """All that a dispatcher asks of a reactor.  Any Twisted reactor fits."""

    def callFromThread(callable: Any, *args: Any, **kw: Any) -> Any:
        """Have `callable` called in the reactor's thread, soon.  May be called in any thread."""

    def callInThread(callable: Any, *args: Any, **kw: Any) -> Any:
        """Have `callable` called in a thread that is not the reactor's."""

    def callLater(seconds: float, callable: Any, *args: Any, **kw: Any) -> Any:
        """Have `callable` called in the reactor's thread after `seconds`.

        The answer has `cancel()` and `active()`.  Called in the reactor's thread only.
        """

    def callWhenRunning(callable: Any, *args: Any, **kw: Any) -> Any:
        """Have `callable` called in the reactor's thread once it runs; at once if it does."""

    def addSystemEventTrigger(phase: str, event: str, callable: Any, *args: Any, **kw: Any) -> Any:
        """Have `callable` called at an event; asked for with 'before', 'shutdown' only."""


class IRetryPolicy(Interface):
    """Decides what happens to one job after an error, a failed commit or an interruption.

    The first three answer `True` (run again now), `False` (do not), or a `datetime` (aware)
    or `timedelta`: back to the queue, to be run then; an empty timedelta means first in line.
    `data_cache` is a dict that lives as long as the run, across the aborted transactions.
    """

    def jobError(failure: Any, data_cache: dict[str, Any]) -> Any:
        """The callable raised: `failure`.  Its transaction has been aborted."""

    def commitError(failure: Any, data_cache: dict[str, Any]) -> Any:
        """The commit of the result raised, and the database says that it did not happen."""

    def interrupted() -> Any:
        """The process that ran the job has gone away."""

    def updateData(data_cache: dict[str, Any]) -> None:
        """Take over what was noted in `data_cache`: called in the transaction that will commit."""


class IAbstractJob(Interface):
    """What a job and the proxy of a success/failure pair have in common."""

    parent = Attribute("The job, queue or agent that holds this, or None.")
    status = Attribute("One of the six statuses.")
    result = Attribute("The value, a Failure, or None while there is none yet.")

    def addCallbacks(
        success: Any = None,
        failure: Any = None,
        failure_log_level: int | None = None,
        retry_policy_factory: Any = None,
    ) -> Any:
        """Have `success` called with the result, or `failure` with the Failure.

        Answers an `ICallbackProxy`, on which further callbacks chain.
        """

    def addCallback(
        callback: Any, failure_log_level: int | None = None, retry_policy_factory: Any = None
    ) -> Any:
        """Have `callback` called with the result, whatever it is.  Answers the callback's job."""


class ICallbackProxy(IAbstractJob):
    """Stands for the job of a success/failure pair that has yet to be chosen."""

    success = Attribute("The job for a result that is no Failure, or None.")
    failure = Attribute("The job for a Failure, or None.")
    job = Attribute("The job that was chosen, or None until the result is there.")

    def getJob(result: Any) -> Any:
        """Choose by `result`, once; answers the job."""


class IJob(IAbstractJob):
    """A callable, its arguments, its state, its result and its callbacks."""

    callable = Attribute("What is called; kept as a name, resolved when asked.")
    args = Attribute("A list of the positional arguments; changes in place are kept.")
    kwargs = Attribute("A dict of the keyword arguments; changes in place are kept.")
    callbacks = Attribute("The callbacks, iterable, indexable, sized, in the order added.")
    annotations = Attribute("An OOBTree for metadata and progress.")
    queue = Attribute("The queue found through the parents, or None.")
    agent = Attribute("The agent found through the parents, or None.")
    begin_after = Attribute("Aware datetime in UTC: not to be started before.")
    begin_by = Attribute("timedelta after begin_after by which to start, or None.")
    run_limit = Attribute("timedelta: a run that takes longer is reported; or None.")
    timeout = Attribute("timedelta: a run that takes longer ends so; or None.")
    quota_names = Attribute("Tuple of the names of quotas of the queue.")
    retry_policy_factory = Attribute("None, a callable(job), or an adapter's name.")
    failure_log_level = Attribute("Level for a failing end, or None for the default.")
    assignerUUID = Attribute("The UUID of the instance that put the job, or None.")
    active_start = Attribute("When the (last) run began; datetime in UTC or None.")
    active_end = Attribute("When the result was there; datetime in UTC or None.")
    initial_callbacks_end = Attribute("When the callbacks known then were done, or None.")
    crash_limit = Attribute("After how many deaths of its process it is parked; None: the queue's.")
    crashes = Attribute("What is known of the last deaths: dicts of plain values, oldest first.")
    interrupted_cleanly = Attribute("Whether its last interruption was a clean stop; no policy's.")
    progress = Attribute("The last line that `zasync.local.set_progress` noted, or None.")
    progress_numbers = Attribute("How much is done and how much there is, noted with it; or None.")
    cancelled = Attribute("Whether its result is a CancelledError.")

    def __call__(*args: Any, **kwargs: Any) -> Any:
        """Run the job now, in its connection's transaction manager, and commit."""

    def fail(e: Any = None) -> Any:
        """End a job that has not begun with a Failure of `e` (a TimeoutError by default)."""

    def cancel(reason: str | None = None) -> bool:
        """End a job that has not come to its end with a CancelledError; False if it has."""

    def again() -> Any:
        """A new job with the same call and options, to be put."""

    def handleInterrupt() -> None:
        """Ask the retry policy what to do with a job whose dispatcher died, and do it."""

    def resumeCallbacks() -> None:
        """Finish the callbacks of a job whose dispatcher died during them."""

    def setUp() -> Any:
        """Called before each attempt, in its transaction; the answer is tearDown's argument."""

    def tearDown(setup_info: Any) -> None:
        """Called after each attempt's commit or abort."""


# The stored side


class IQueues(IEnumerableMapping):
    """The mapping of queues that lies in the database root under KEY."""

    def __setitem__(name: str, queue: Any) -> None:
        """Add a queue; sets its `name` and `parent`."""

    def __delitem__(name: str) -> None:
        """Take a queue out."""


class IQueue(Interface):
    """A persistent, ordered collection of jobs that nobody has claimed yet."""

    parent = Attribute("The Queues, or None.")
    name = Attribute("The name in the Queues, or None.")
    dispatchers = Attribute("IDispatchers: who works this queue.")
    quotas = Attribute("IQuotas: the named limits of this queue.")
    parked = Attribute("IParked: the jobs that have ended and that a person is to see to.")
    crash_limit = Attribute("After how many deaths a job is parked, unless it says otherwise.")

    def put(
        item: Any,
        begin_after: Any = None,
        begin_by: Any = None,
        failure_log_level: int | None = None,
        retry_policy_factory: Any = None,
    ) -> Any:
        """Have `item` (adapted to IJob) performed; answers the job.  The caller commits."""

    def put_many(
        items: Any,
        begin_after: Any = None,
        begin_by: Any = None,
        failure_log_level: int | None = None,
        retry_policy_factory: Any = None,
    ) -> list[Any]:
        """Have all `items` performed, or none if one is refused; answers the jobs."""

    def putBack(job: Any) -> None:
        """Put a claimed job first in line."""

    def pull(index: int = 0) -> Any:
        """Take out and answer the job at `index`; it is NEW again."""

    def remove(job: Any) -> None:
        """Take out `job`; it is NEW again.  LookupError('item not in queue', job)."""

    def claim(filter: Any = None, default: Any = None) -> Any:
        """Take out and answer the first due job that the filter and its quotas allow."""

    def __len__() -> int:
        """How many jobs wait."""

    def __iter__() -> Any:
        """The jobs in the order in which they would be claimed."""

    def __getitem__(index: int) -> Any:
        """The job at `index` in that order; negative counts from the end."""

    def __bool__() -> bool:
        """Whether any job waits."""


class IParked(Interface):
    """The parked jobs of a queue, newest first.  Nothing here commits."""

    def __len__() -> int:
        """How many there are."""

    def __iter__() -> Any:
        """All, newest first."""

    def __contains__(job: Any) -> bool:
        """Whether `job` is parked here."""

    def put_back(job: Any) -> Any:
        """Put a new job with the same call and options, and forget `job`; answers the new one."""

    def put_back_all(filter: Any = None, limit: int = 100) -> int:
        """Put back those that `filter(job)` allows, oldest first, at most `limit` of them.

        Answers how many those were; commit, and call again until it answers 0.
        """

    def discard(job: Any) -> None:
        """Forget `job`.  LookupError if it is not parked here."""


class IDispatchers(IEnumerableMapping):
    """The mapping of UUID to IDispatcherAgents of one queue."""

    ping_interval = Attribute("timedelta: for the records that have none of their own.")
    ping_death_interval = Attribute("The same for the time after which one is dead.")

    def register(uuid: Any) -> Any:
        """Make a record for `uuid`; ValueError if there is one."""

    def unregister(uuid: Any) -> Any:
        """Take the record of `uuid` out; ValueError while it is activated."""

    def ping(uuid: Any) -> None:
        """Say that `uuid` lives, and deactivate its next sibling if that one is dead."""


class IDispatcherAgents(IEnumerableMapping):
    """One dispatcher's record in one queue: a mapping of name to agent."""

    UUID = Attribute("The dispatcher's UUID.")
    parent = Attribute("The queue.")
    activated = Attribute("Aware datetime of the activation, or None.")
    last_ping = Attribute("An object whose `value` is the last ping's datetime, or None.")
    ping_interval = Attribute("timedelta: how often the dispatcher pings.")
    ping_death_interval = Attribute("timedelta: without a ping for so long it is dead.")
    dead = Attribute("Whether it is activated and its last ping is too old.")

    def activate() -> None:
        """Mark as working; fires IDispatcherActivated.  ValueError if it is already."""

    def deactivate(*, crashed: bool = False) -> None:
        """Mark as not working and hand back its jobs; fires IDispatcherDeactivated.

        `crashed` says that its process died, which counts against the jobs that it ran.
        """

    def reactivate() -> None:
        """Mark as working after others deactivated it; fires IDispatcherReactivated."""

    def __setitem__(name: str, agent: Any) -> None:
        """Add an agent; sets its `name` and `parent`."""

    def __delitem__(name: str) -> None:
        """Take an agent out; ValueError while it holds jobs."""


class IAgent(Interface):
    """One dispatcher's hand in one queue: picks jobs and holds the running ones."""

    size = Attribute("How many jobs may run at once.")
    batch = Attribute("How many short jobs a thread may commit together at the most; 1: none.")
    batch_time = Attribute("timedelta: how long they may wait for each other then; 50 ms.")
    name = Attribute("The name in the dispatcher's record.")
    parent = Attribute("The IDispatcherAgents, or None.")
    queue = Attribute("The queue, found through the parents, or None.")
    completed = Attribute("ICompletedCollection of jobs that have ended.")

    def claimJob() -> Any:
        """Claim and hold the next job, or answer None."""

    def pull(index: int = 0) -> Any:
        """Take out and answer the job at `index`."""

    def remove(item: Any) -> None:
        """Take out the job `item`.  LookupError if it is not held."""

    def index(item: Any) -> int:
        """The place of `item`.  LookupError if it is not held."""

    def jobCompleted(job: Any) -> None:
        """Move `job` to `completed`."""

    def __len__() -> int:
        """How many jobs are held."""

    def __iter__() -> Any:
        """The jobs in the order of their claims."""

    def __getitem__(index: int) -> Any:
        """The job at `index`."""

    def __delitem__(index: int) -> None:
        """Take out the job at `index`."""


class IFilterAgent(IAgent):
    """An agent that asks a filter, so that others can tell which jobs it would take."""

    def filter(job: Any) -> Any:
        """Whether the agent takes `job`."""


class ICompletedCollection(Interface):
    """The recently ended jobs, newest first; old ones drop out after about a week."""

    def __iter__() -> Any:
        """All, newest first."""

    def iter(start: Any = None, stop: Any = None) -> Any:
        """Those that ended at or before `start` and at or after `stop`, newest first.

        Each is an aware datetime, a timedelta (that long ago), or None (no bound).
        """

    def first(start: Any = None) -> Any:
        """The newest that ended at or before `start`.  ValueError if there is none."""

    def last(stop: Any = None) -> Any:
        """The oldest that ended at or after `stop`.  ValueError if there is none."""

    def __len__() -> int:
        """How many are kept."""

    def __bool__() -> bool:
        """Whether any is kept."""


class IQuotas(IEnumerableMapping):
    """The mapping of name to IQuota of one queue."""

    def create(name: str, size: int = 1) -> Any:
        """Make a quota.  ValueError if there is one of that name."""

    def remove(name: str) -> None:
        """Take a quota out; jobs that name it ignore it from then on."""


class IQuota(Interface):
    """A limit of how many jobs of a queue may run at once, over all dispatchers."""

    name = Attribute("The name.")
    parent = Attribute("The IQuotas.")
    size = Attribute("The limit; may be set at any time.")
    filled = Attribute("Whether no place is free.")

    def add(job: Any) -> None:
        """Give `job` a place.  FullError if there is none; ValueError if it may not have one."""

    def clean() -> None:
        """Forget the jobs that no longer hold their place."""

    def __len__() -> int:
        """How many places were taken at the last clean."""

    def __iter__() -> Any:
        """The jobs that hold places."""


class IUUID(Interface):
    """Marks the UUID that identifies this instance (a `uuid.UUID`); a utility."""


# Events


class IObjectAdded(IObjectEvent):
    """An object was put in a container of ours."""

    parent = Attribute("The container.")
    name = Attribute("The name under which it was put.")


@zope.interface.implementer(IObjectAdded)
class ObjectAdded(ObjectEvent):
    """`object` was put in `parent` as `name`."""

    def __init__(self, object: Any, parent: Any, name: Any) -> None:
        super().__init__(object)
        self.parent = parent
        self.name = name


class AbstractUUIDEvent(ObjectEvent):
    """The base of what happens to an IDispatcherAgents (the event's `object`)."""


class IDispatcherRegistered(IObjectEvent):
    """A dispatcher got its record in a queue."""


class IDispatcherUnregistered(IObjectEvent):
    """A dispatcher's record was taken out of a queue; `parent` is the queue it was in."""


class IDispatcherActivated(IObjectEvent):
    """A dispatcher began to work a queue: the moment to give it agents."""


class IDispatcherDeactivated(IObjectEvent):
    """A dispatcher stopped to work a queue, or was found dead."""


class IDispatcherReactivated(IObjectEvent):
    """A dispatcher that others had deactivated works again."""


@zope.interface.implementer(IDispatcherRegistered)
class DispatcherRegistered(AbstractUUIDEvent):
    """See IDispatcherRegistered."""


@zope.interface.implementer(IDispatcherUnregistered)
class DispatcherUnregistered(AbstractUUIDEvent):
    """See IDispatcherUnregistered."""

    def __init__(self, object: Any, parent: Any) -> None:
        super().__init__(object)
        self.parent = parent


@zope.interface.implementer(IDispatcherActivated)
class DispatcherActivated(AbstractUUIDEvent):
    """See IDispatcherActivated."""


@zope.interface.implementer(IDispatcherDeactivated)
class DispatcherDeactivated(AbstractUUIDEvent):
    """See IDispatcherDeactivated."""


@zope.interface.implementer(IDispatcherReactivated)
class DispatcherReactivated(AbstractUUIDEvent):
    """See IDispatcherReactivated."""


try:  # Zope fires its own event; using that one lets it start us
    from zope.processlifetime import DatabaseOpened as DatabaseOpened
    from zope.processlifetime import IDatabaseOpened

    IDatabaseOpenedEvent = IDatabaseOpened
except ImportError:  # pragma: no cover - the test environment has the package

    class IDatabaseOpenedEvent(Interface):  # type: ignore[no-redef]
        """The main database has been opened."""

        database = Attribute("The ZODB.DB.")

    @zope.interface.implementer(IDatabaseOpenedEvent)
    class DatabaseOpened:  # type: ignore[no-redef]
        """The main database has been opened; notify it so that the installers act."""

        def __init__(self, database: Any) -> None:
            self.database = database
