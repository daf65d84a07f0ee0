# SPDX-License-Identifier: ZPL-2.1
"""Stored: the job, one record that is written by one hand at a time.

Whoever puts it writes it first, then the dispatcher that claims it, then the thread that runs it.
What is rarely needed (payload, callbacks, annotations, retry policy) lies in records beside it,
made when first needed.  How a run goes is in `zasync.job.performance`, what a status may become
in `zasync.job.states`.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

import zope.component
import zope.interface
from BTrees.OOBTree import OOBTree
from persistent import Persistent

from zasync.failure import Failure
from zasync.foundation import clock
from zasync.foundation.ghosts import Copy, copied
from zasync.foundation.reporting import events
from zasync.foundation.text import REDACTED, looks_secret, persistent_name, safe_repr
from zasync.interfaces import (
    ACTIVE,
    ASSIGNED,
    COMPLETED,
    NEW,
    PENDING,
    BadStatusError,
    CancelledError,
    IAgent,
    IJob,
    IQueue,
    IRetryPolicy,
    ReassignedError,
    TimeoutError,
)
from zasync.job import (
    by_hand,
    callables,
    cancelling,
    crashes,
    interruption,
    progress,
    record,
    relations,
    renewal,
    retry,
    run,
    values,
)
from zasync.job.adapting import plain_job
from zasync.job.callbacks import Chaining, Extras
from zasync.job.states import Move

MICROSECOND = timedelta(microseconds=1)
JOB_LOG_LEVEL = logging.ERROR  # for failing ends, where a job does not say otherwise
CALLBACK_LOG_LEVEL = logging.CRITICAL
ARGUMENTS_SHOWN = 20  # positional ones, and as many named ones, in a repr


def _moment(attribute: str, text: str) -> Any:
    """A read-only property: the datetime of what is stored in microseconds."""

    def getter(self: Any) -> datetime | None:
        micros = getattr(self, attribute)
        return None if micros is None else clock.from_micros(micros)

    return property(getter, doc=text)


@zope.interface.implementer(IJob)
class Job(Chaining, Persistent):
    """A callable, its arguments, its state, its result and its callbacks.

    `Job(callable, *args, **kwargs)`; `Job.bind` puts the job itself before the arguments.
    Arguments are looked at when the job is put.  See `zasync.interfaces.IJob`.
    """

    largest_argument: ClassVar[int | None] = 16 * 2**20
    """Bytes that one argument may take, when the job is put; None: any number."""

    of_one_life: ClassVar[frozenset[str]] = renewal.OF_ONE_LIFE
    """The stored attributes that `again` leaves out; what a subclass adds is asked for again."""

    # What is stored, each with its default, so that only what differs lies in the record.
    _status = NEW
    _parent: Any = None
    _names: callables.Names = ()
    _args: tuple[Any, ...] = ()
    _kwargs: ClassVar[dict[str, Any]] = {}
    _payload: values.Payload | None = None
    _begin_after: int | None = None
    _begin_by: int | None = None
    _run_limit: int | None = None
    _timeout: int | None = None
    _deadline: int | None = None  # fixed when first put; later runs do not move it
    _place: Any = None  # where it lies among the waiting, or its key in its agent
    _quota_names: tuple[str, ...] = ()
    _quota_hold: int | None = None  # token of the places it holds in quotas
    _token: int | None = None  # names the present (or last) attempt
    _again: int | None = None  # when to run again, until its dispatcher has put it back
    _result: Any = None
    _policy: Any = None
    _retry_policy_factory: Any = None
    _failure_log_level: int | None = None
    _assigner: int | None = None
    _only_for: int | None = None  # the one dispatcher that may run it (a broadcast copy)
    _suspension: int | None = None  # names the latest wait for a Deferred or coroutine
    _starter: tuple[int, int] | None = None  # oid and token of the job that ran this callback
    _active_start: int | None = None
    _active_end: int | None = None
    _callbacks_end: int | None = None
    _extras: Extras | None = None
    _interrupted: tuple[tuple[int | None, tuple[str, ...]], ...] = ()  # token, other databases
    _own_commits = 0  # how often its code committed by itself
    _interruption: crashes.Cause = None  # why its last run was interrupted
    _crashes: tuple[dict[str, Any], ...] = ()  # the evidence of the last deaths under it
    _crash_count = 0
    _crash_limit: int | None = None
    _progress: progress.Line | None = None  # the last line, once its agent has let go of it
    _cancelled: str | None = None  # why it is to end, until it is known what its run has committed
    _alone = False  # was interrupted once, so it is not committed together with others

    _v_args: values.WatchedList | None = None
    _v_kwargs: values.WatchedDict | None = None

    def __init__(self, callable: Any, /, *args: Any, **kwargs: Any) -> None:
        self._names, target = callables.describe(callable, self)
        if target is None and values.weight(args) + values.weight(kwargs) <= values.INLINE_LIMIT:
            if args:
                self._args = args
            if kwargs:
                self._kwargs = kwargs  # type: ignore[misc]
        else:
            self._payload = values.Payload(target, list(args), kwargs)

    @classmethod
    def bind(cls, callable: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Make a job whose callable gets the job itself as its first argument."""
        job = cls(callable, *args, **kwargs)
        job.args.insert(0, job)
        return job

    # What is called

    @property
    def callable(self) -> Callable[..., Any]:
        """What is called.  UnresolvableError if this process does not have its code."""
        target = None if self._payload is None else self._payload.target
        return callables.resolve(self._names, target, self)

    @callable.setter
    def callable(self, callable: Any) -> None:
        if self.status not in (NEW, PENDING, ASSIGNED):
            raise BadStatusError(
                f"the callable of {self!r} can be set until it is started only:"
                f" its status is {self.status}"
            )
        args, kwargs = list(self.args), dict(self.kwargs)
        self._names, target = callables.describe(callable, self)
        if target is not None or self._payload is not None:
            self._payload = values.Payload(target, args, kwargs)
            self._args, self._kwargs = (), {}  # type: ignore[misc]

    def check_resolvable(self) -> None:
        """UnresolvableError if this process does not have the callable's code; loads little."""
        callables.check_resolvable(
            self._names, self, lambda: self._payload and self._payload.target
        )

    @property
    def code(self) -> callables.Names:
        """What names the callable's code."""
        return self._names

    @property
    def is_named_only(self) -> bool:
        """Whether class and `code` alone say what is called."""
        return self._payload is None

    @property
    def callable_name(self) -> str:
        """The callable for people: dotted, without loading or importing anything."""
        return callables.title(self._names)

    @property
    def args(self) -> list[Any]:
        """The positional arguments; changes in place are kept."""
        if self._v_args is None:
            self._v_args = values.WatchedList(self._stored_args, self._store_args)
        return self._v_args

    @args.setter
    def args(self, args: Any) -> None:
        self._store_args(list(args))
        self._v_args = None

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments; changes in place are kept."""
        if self._v_kwargs is None:
            self._v_kwargs = values.WatchedDict(self._stored_kwargs, self._store_kwargs)
        return self._v_kwargs

    @kwargs.setter
    def kwargs(self, kwargs: dict[str, Any]) -> None:
        self._store_kwargs(dict(kwargs))
        self._v_kwargs = None

    def _stored_args(self) -> list[Any]:
        return list(self._args if self._payload is None else self._payload.args)

    def _stored_kwargs(self) -> dict[str, Any]:
        return dict(self._kwargs if self._payload is None else self._payload.kwargs)

    def given(self) -> tuple[list[Any], dict[str, Any]]:
        """Copies of the arguments; what is changed in them is not stored."""
        return self._stored_args(), self._stored_kwargs()

    def _store_args(self, args: list[Any]) -> None:
        self._store_arguments(args, self._stored_kwargs())

    def _store_kwargs(self, kwargs: dict[str, Any]) -> None:
        self._store_arguments(self._stored_args(), kwargs)

    def _store_arguments(self, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Store arguments: in the job's record while they fit, else in the payload."""
        if self._payload is not None:
            self._payload.args = args
            self._payload.kwargs = kwargs
        elif values.weight(args) + values.weight(kwargs) <= values.INLINE_LIMIT:
            self._args = tuple(args)
            self._kwargs = kwargs  # type: ignore[misc]
        else:
            self._payload = values.Payload(None, args, kwargs)
            self._args, self._kwargs = (), {}  # type: ignore[misc]

    def forget_values(self) -> None:
        """Read arguments and result anew when next asked for.

        Code that was given them may have changed them in place, in a transaction that was
        aborted.  To be called at the beginning of a transaction.
        """
        for each in (self._payload, self._result, self):
            if each is self or isinstance(each, values.Payload | values.Box):
                each._p_invalidate()

    def check_storable(self, connection: Any) -> None:
        """NotStorableError, naming the thing, if callable or arguments cannot be committed.

        Also if one of the arguments is larger than `largest_argument`.
        """
        payload = self._payload
        target = None if payload is None else payload.target
        callables.check_nameable(self._names, target)
        name = self.callable_name
        if target is not None:
            values.check_storable(f"the callable {name}", target, connection)
        for index, value in enumerate(self._args if payload is None else payload.args):
            if not values.is_plain(value):
                values.check_argument(
                    f"argument {index} of {name}", value, connection, self.largest_argument
                )
        for key, value in (self._kwargs if payload is None else payload.kwargs).items():
            if not values.is_plain(value):
                values.check_argument(
                    f"argument {key!r} of {name}", value, connection, self.largest_argument
                )

    # Where it is, and how far

    @property
    def status(self) -> str:
        """One of the six statuses of `zasync.interfaces`."""
        return self._status

    def move(self, move: Move) -> None:
        """Change the status by `move`; BadStatusError if the table does not have it."""
        move.check(self)
        self._status = move.target

    @property
    def result(self) -> Any:
        """The value, a Failure, the job that is waited for, or None while there is none."""
        return values.unboxed(self._result)

    @property
    def parent(self) -> Any:
        """The job, queue or agent that holds this, or None."""
        return self._parent

    @parent.setter
    def parent(self, parent: Any) -> None:
        self._parent = parent

    @property
    def queue(self) -> Any:
        """The queue found through the parents, or None."""
        return self._ancestor(IQueue)

    @property
    def agent(self) -> Any:
        """The agent found through the parents, or None."""
        return self._ancestor(IAgent)

    def _ancestor(self, interface: Any) -> Any:
        parent = self._parent
        while parent is not None and not interface.providedBy(parent):
            parent = getattr(parent, "parent", None)
        return parent

    active_start = _moment("_active_start", "When the last run began (UTC), or None.")
    active_end = _moment("_active_end", "When the result was there (UTC), or None.")
    initial_callbacks_end = _moment("_callbacks_end", "When the callbacks were done, or None.")

    @property
    def assignerUUID(self) -> Any:
        """The UUID of the instance that put the job, or None."""
        return None if self._assigner is None else UUID(int=self._assigner)

    @assignerUUID.setter
    def assignerUUID(self, uuid: UUID | None) -> None:
        self._assigner = None if uuid is None else uuid.int

    # When and how it may run

    @property
    def begin_after(self) -> datetime | None:
        """Not to be started before: aware, in UTC; None until it is put or set."""
        return None if self._begin_after is None else clock.from_micros(self._begin_after)

    @begin_after.setter
    def begin_after(self, moment: datetime | None) -> None:
        if self.status != NEW:
            raise BadStatusError(f"begin_after of {self!r} can be set while it is new only")
        if moment is None:
            self._begin_after = None
        elif not isinstance(moment, datetime):
            raise TypeError(f"begin_after must be a datetime, not {safe_repr(moment)}")
        else:
            self._begin_after = clock.to_micros(clock.aware(moment, "begin_after"))

    @property
    def begin_by(self) -> timedelta | None:
        """To be started within this time after `begin_after`; None: whenever."""
        return None if self._begin_by is None else timedelta(microseconds=self._begin_by)

    @begin_by.setter
    def begin_by(self, span: timedelta | None) -> None:
        if self.status not in (NEW, PENDING):
            raise BadStatusError(f"begin_by of {self!r} can be set while it is new or pending only")
        if span is not None and not isinstance(span, timedelta):
            raise TypeError(f"begin_by must be a timedelta, not {safe_repr(span)}")
        if span is not None and span < timedelta():
            raise ValueError(f"begin_by must not be negative: {span!r}")
        self._begin_by = None if span is None else span // MICROSECOND
        if self.status == PENDING:
            self.set_deadline()

    def set_deadline(self) -> None:
        """Fix the moment by which the job must have begun, from begin_after and begin_by."""
        if self._begin_by is None:
            self._deadline = None
        else:
            self._deadline = (self._begin_after or clock.now_micros()) + self._begin_by

    @property
    def run_limit(self) -> timedelta | None:
        """A run that takes longer is reported, with where it is; None: however long it takes.

        It is not ended: a thread cannot be.
        """
        return None if self._run_limit is None else timedelta(microseconds=self._run_limit)

    @run_limit.setter
    def run_limit(self, span: timedelta | None) -> None:
        if self.status not in (NEW, PENDING):
            raise BadStatusError(
                f"run_limit of {self!r} can be set while it is new or pending only"
            )
        if span is not None and not isinstance(span, timedelta):
            raise TypeError(f"run_limit must be a timedelta, not {safe_repr(span)}")
        if span is not None and span <= timedelta():
            raise ValueError(f"run_limit must be more than nothing: {span!r}")
        self._run_limit = None if span is None else span // MICROSECOND

    @property
    def timeout(self) -> timedelta | None:
        """A run that takes longer ends with a TimeoutError; None: however long it takes.

        A coroutine or a Deferred is cancelled.  A thread cannot be ended: it goes on, and commits
        nothing any more (`zasync.local.is_cancelled` tells it so).
        """
        return None if self._timeout is None else timedelta(microseconds=self._timeout)

    @timeout.setter
    def timeout(self, span: timedelta | None) -> None:
        if self.status not in (NEW, PENDING):
            raise BadStatusError(f"timeout of {self!r} can be set while it is new or pending only")
        if span is not None and not isinstance(span, timedelta):
            raise TypeError(f"timeout must be a timedelta, not {safe_repr(span)}")
        if span is not None and span <= timedelta():
            raise ValueError(f"timeout must be more than nothing: {span!r}")
        self._timeout = None if span is None else span // MICROSECOND

    @property
    def quota_names(self) -> tuple[str, ...]:
        """The quotas of the queue in which the job needs a place."""
        return self._quota_names

    @quota_names.setter
    def quota_names(self, names: Any) -> None:
        if isinstance(names, str | bytes):
            raise TypeError(f"quota_names is a sequence of names, not the single string {names!r}")
        names = tuple(names)
        if self.status not in (NEW, PENDING):
            raise BadStatusError(
                f"quota_names of {self!r} can be set while it is new or pending only"
            )
        if self.status == PENDING:
            self.queue.requeue(self, names)
        self._quota_names = names

    @property
    def failure_log_level(self) -> int | None:
        """The logging level for a failing end; None means the default of `effective_log_level`."""
        return self._failure_log_level

    @failure_log_level.setter
    def failure_log_level(self, level: int | None) -> None:
        self._failure_log_level = level

    @property
    def retry_policy_factory(self) -> Any:
        """None, a callable that makes the policy of a job, or the name of an adapter."""
        stored = self._retry_policy_factory
        if stored is None or isinstance(stored, str):
            return stored
        names, target = stored
        return callables.resolve(names, values.unboxed(target), self)

    @retry_policy_factory.setter
    def retry_policy_factory(self, factory: Any) -> None:
        if factory is None or isinstance(factory, str):
            self._retry_policy_factory = factory
        else:
            names, target = callables.describe(factory, self)
            callables.check_nameable(names, target)
            self._retry_policy_factory = (names, values.boxed(target))

    def getRetryPolicy(self) -> retry.Policy:
        """The job's policy, made when first asked for; it stays with the job.

        LookupError if the factory's name has no adapter, UnresolvableError if its code is not
        in this process.
        """
        if self._policy is None:
            self._policy = values.boxed(self._make_policy())
        policy: retry.Policy = values.unboxed(self._policy)
        return policy

    def _make_policy(self) -> retry.Policy:
        factory = self.retry_policy_factory
        if factory is not None and not isinstance(factory, str):
            return factory(self)  # type: ignore[no-any-return]
        name = factory or ("callback" if self.is_callback else "")
        policy = zope.component.queryAdapter(self, IRetryPolicy, name=name)
        if policy is not None:
            return policy  # type: ignore[no-any-return]
        if factory:
            raise LookupError(
                f"no IRetryPolicy adapter is registered under the name {factory!r},"
                f" which {self!r} asks for as its retry_policy_factory"
            )
        return (
            retry.RetryCommonForever(self) if self.is_callback else retry.RetryCommonFourTimes(self)
        )

    def policy_changed(self) -> None:
        """See to it that what the policy remembers is stored, also if it is a plain object."""
        if isinstance(self._policy, values.Box):
            self._policy._p_changed = True

    @property
    def crash_limit(self) -> int | None:
        """After how many deaths of its process the job is parked; None: as its queue says."""
        return self._crash_limit

    @crash_limit.setter
    def crash_limit(self, limit: int | None) -> None:
        self._crash_limit = None if limit is None else crashes.checked_limit(limit)

    @property
    def crashes(self) -> tuple[dict[str, Any], ...]:
        """What is known of the last few deaths of its process, oldest first.

        Each has `at` (aware datetime), `host`, `pid`, `dispatcher` (its UUID as text), `queue`,
        `agent`, `progress`, `held` (how many jobs that dispatcher held) and `others` (oids).
        """
        return self._crashes

    @property
    def interrupted_cleanly(self) -> bool:
        """Whether its last interruption was the clean stop of its dispatcher: nobody's fault."""
        return self._interruption == crashes.STOPPED

    @property
    def is_callback(self) -> bool:
        """Whether this job is a callback of another."""
        return relations.parent_job(self) is not None

    # Hooks for subclasses

    def setUp(self) -> Any:
        """Called before each attempt, in its transaction; an error counts as the job's."""
        return None

    def load_arguments(
        self, callable: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Called after `setUp`: answers what the callable is really to be called with."""
        return args, kwargs

    def tearDown(self, setup_info: Any) -> None:
        """Called after each attempt's commit or abort with what `setUp` answered."""

    @property
    def has_hooks(self) -> bool:
        """Whether there is anything around its attempts."""
        kind = type(self)
        return kind.setUp is not Job.setUp or kind.tearDown is not Job.tearDown

    # Callbacks and annotations

    @property
    def callbacks(self) -> tuple[Any, ...]:
        """The callbacks in the order in which they were added."""
        extras = self.find_extras()
        return () if extras is None else extras.callbacks

    @property
    def annotations(self) -> OOBTree:
        """An OOBTree for metadata and progress, made when first asked for."""
        extras = self.need_extras()
        if extras.annotations is None:
            extras.annotations = OOBTree()
        return extras.annotations

    @property
    def progress(self) -> str | None:
        """What `zasync.local.set_progress` noted last in its present, or last, run; or None."""
        return progress.progress_of(self)

    @property
    def progress_numbers(self) -> tuple[float, float] | None:
        """How much was done, and how much there is to do, when `progress` was noted; or None."""
        return progress.numbers_of(self)

    def note_progress(
        self, text: str, done: float | None = None, total: float | None = None
    ) -> None:
        """Keep `text` as the line of progress of this run, without writing the job's record."""
        progress.note_progress(self, text, progress.checked_numbers(done, total))

    def find_extras(self) -> Extras | None:
        """The extras if there are any; until its dispatcher tidies they may lie with its agent."""
        if self._extras is not None:
            return self._extras
        mailbox = self._mailbox()
        return None if mailbox is None else mailbox.get(self.oid)

    def need_extras(self) -> Extras:
        """The extras, made if need be.

        While a job is held by an agent, others must not write its record: that would make the
        work of the running callable conflict.  So new extras are left in the agent's mailbox;
        the dispatcher attaches them when it lets go of the job.
        """
        extras = self.find_extras()
        if extras is None:
            extras = Extras()
            mailbox = None if self._status == COMPLETED else self._mailbox()
            if mailbox is None:
                self._extras = extras
            else:
                mailbox[self.oid] = extras
        return extras

    def _mailbox(self) -> Any:
        if self._status in (NEW, PENDING) or self._p_oid is None:
            return None
        return getattr(self._parent, "mailbox", None) if IAgent.providedBy(self._parent) else None

    def collect_extras(self, mailbox: Any) -> None:
        """Take what `mailbox` holds for this job into its own record."""
        extras = mailbox.pop(self.oid, None)
        if extras is None:
            return
        if self._extras is None:
            self._extras = extras
        else:  # made when the job had ended already
            self._extras.take_in(extras)

    @property
    def oid(self) -> int:
        """The object id as an integer; 0 while it is not stored."""
        return int.from_bytes(self._p_oid or b"", "big")

    # Running and ending

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the job now and commit; answers its result.  See `zasync.job.performance`."""
        return by_hand.run_by_hand(self, args, kwargs)

    @run.commits_by_itself
    def fail(self, e: Any = None) -> Any:
        """End a job that has not begun with a Failure of `e`, and run its callbacks."""
        return by_hand.fail_by_hand(self, TimeoutError() if e is None else e)

    def cancel(self, reason: str | None = None) -> bool:
        """End the job, whether it waits or runs, with a CancelledError; its callbacks are run.

        False if it has come to its end already.  The caller commits; that conflicts if the job
        ends at this moment.  A run that is under way commits nothing any more, and frees its
        quotas at once, but a thread cannot be stopped: see `zasync.local.is_cancelled`.  Jobs that
        only this one waits for, such as the members of a group, are cancelled too.  ValueError in
        the job's own code, for one that lies in no queue and has callbacks, and for a callback
        that may never be chosen.
        """
        return cancelling.cancel(self, reason)

    def again(self) -> Any:
        """A NEW job with the same call and options, to be put; it has no callbacks.

        Of a callback it is one with the result that the callback was to get.
        """
        return renewal.again(self)

    @run.commits_by_itself
    def handleInterrupt(self) -> None:
        """Ask the policy what to do with a job whose dispatcher died, do it, and commit."""
        interruption.handle_interrupt(self)

    @run.commits_by_itself
    def resumeCallbacks(self) -> None:
        """Finish the callbacks of a job whose dispatcher died during them, and commit."""
        interruption.resume_callbacks(self)

    @run.commits_by_itself
    def continue_callbacks(self, result: Any = None) -> None:
        """Run the callbacks that are not done yet, if it is time for them, and commit."""
        interruption.continue_callbacks(self)

    def take_inner_result(self, result: Any) -> None:
        """Called as a callback of the inner job that this one waits for.  Does not commit."""
        if self.awaited is None:
            return
        self.finish(result)
        now = self._p_jar.transaction_manager.get()
        now.addAfterCommitHook(lambda committed: self.report_end() if committed else None)

    # What the steps of a run write; none of these commits

    def start(self, token: int) -> None:
        """Mark the job ACTIVE under the attempt `token`."""
        self.move(Move.START)
        self._token = token
        self._active_start = clock.now_micros()
        state = self.__dict__
        for name in _OF_THE_RUN_BEFORE:
            if state.get(name) is not None:
                delattr(self, name)
        # A repair that is run again has yet to tell the callback that it ran why it was.
        if self._interruption is not None and not crashes.is_repair(self):
            self._interruption = None

    def finish(self, result: Any) -> None:
        """Set the result; without extras the job is COMPLETED at once.

        Extras that are there may be given a callback at this moment, unseen by this transaction.
        Completing such a job is a step of its own, which sees that: `performance.call_back`.
        """
        self._result = values.boxed(result)
        self._active_end = clock.now_micros()
        if self._quota_hold is not None:
            self._quota_hold = None
        if self._again is not None:
            self._again = None
        self.move(Move.FINISH if self._status == ACTIVE else Move.FAIL)
        if self.find_extras() is None:
            self.complete()

    def wait_for(self, inner: Any) -> None:
        """Stay ACTIVE with the job `inner` as the result until that one has ended."""
        self._result = inner
        told = inner.addCallback(plain_job(self.take_inner_result))
        told.addCallback(plain_job(self.continue_callbacks))

    def place_inner(self, inner: Any) -> None:
        """See to it that the job `inner`, which was returned, will be run: put it if nobody did."""
        if inner.status == NEW and inner.parent is None and self.queue is not None:
            self.queue.put(inner)

    def loss_of(self, token: int | None) -> ReassignedError | None:
        """The error that says that the attempt `token` has lost this job; None if it has not."""
        return None if self._status == ACTIVE and self._token == token else self.loss()

    def loss(self) -> ReassignedError:
        """The error that says that this job was taken away from a run, or cancelled."""
        error = ReassignedError(f"{self!r} is no longer this run's")
        ended = self.failed and self._result.check(CancelledError, TimeoutError)
        error.cancelled = bool(ended) or self._cancelled is not None
        return error

    def complete(self) -> None:
        """The callbacks are done."""
        self.move(Move.COMPLETE)
        self._callbacks_end = clock.now_micros()

    @property
    def awaited(self) -> Any:
        """The inner job whose result this ACTIVE job waits for, or None."""
        if self._status == ACTIVE and IJob.providedBy(self._result):
            return self._result
        return None

    def performed_for_it(self) -> list[Any]:
        """The jobs whose end this one waits for."""
        return [] if self.awaited is None else [self.awaited]

    @property
    def failed(self) -> bool:
        """Whether the result is a Failure."""
        return isinstance(self._result, Failure)

    @property
    def cancelled(self) -> bool:
        """Whether the result is a CancelledError."""
        return self.failed and bool(self._result.check(CancelledError))

    def report_end(self) -> None:
        """Log how the job ended."""
        if not self.failed:
            events.job_succeeded(self)
            return
        if self.cancelled:
            events.job_cancelled(self, self._result)
            return
        level = self._failure_log_level
        if level is None:
            level = CALLBACK_LOG_LEVEL if self.is_callback else JOB_LOG_LEVEL
        events.job_failed(self, self._result, level)

    def __getstate__(self) -> Any:
        """What is stored: without what says no more than the default does."""
        return record.packed(super().__getstate__(), _NONE_BY_DEFAULT)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(record.unpacked(state) if type(state) is tuple else state)

    def copied(self) -> Copy | None:
        """What is known of it just after its commit, for a run with another connection.

        None if that is more than small values.
        """
        state = dict(self.__dict__)
        if state.keys() <= _SMALL_PARTS and record.ATOMS.issuperset(map(type, self._args)):
            return copied(self, state)
        return None

    def __repr__(self) -> str:
        try:
            return self._describe()
        except Exception as error:  # whatever a half-loaded or broken job may raise
            return f"<{persistent_name(self)}, which cannot be read ({type(error).__name__})>"

    def described_later(self) -> Callable[[], str]:
        """Answer a function that answers the repr, and needs nothing of the database for it."""
        args, kwargs = self._args, self._kwargs
        if self._payload is not None or any(
            type(value) not in record.ATOMS for value in (*args, *kwargs.values())
        ):
            text = repr(self)
            return lambda: text
        where, name = self._where(), self.callable_name
        return functools.partial(_described, type(self), where, name, args, kwargs)

    def _describe(self) -> str:
        args, kwargs = self._stored_args(), self._stored_kwargs()
        return _described(type(self), self._where(), self.callable_name, args, kwargs)

    def _where(self) -> tuple[int, str] | None:
        if self._p_jar is None or self._p_oid is None:
            return None
        return self.oid, self._p_jar.db().database_name


def _described(
    cls: type, where: tuple[int, str] | None, name: str, args: Any, kwargs: dict[str, Any]
) -> str:
    """The repr of a job of class `cls`."""
    shown = [safe_repr(arg) for arg in args[:ARGUMENTS_SHOWN]]
    shown += [
        f"{name}={REDACTED if looks_secret(name) else safe_repr(value)}"
        for name, value in itertools.islice(kwargs.items(), ARGUMENTS_SHOWN)
    ]
    if len(args) > ARGUMENTS_SHOWN or len(kwargs) > ARGUMENTS_SHOWN:
        shown.append(f"... ({len(args) + len(kwargs)} in all)")
    place = "not stored" if where is None else f"oid {where[0]}, db {where[1]!r}"
    return f"<{cls.__module__}.{cls.__qualname__} ({place}) ``{name}({', '.join(shown)})``>"


_SMALL_PARTS = frozenset(
    {"_status", "_names", "_args", "_parent", "_place", "_result", "_token", "_assigner"}
    | {"_begin_after", "_active_start", "_active_end", "_callbacks_end"}
    | {"_run_limit", "_timeout", "_failure_log_level", "_again", "_suspension"}
)
"""Attributes of a job that is about to run and holds nothing but small values and its parent."""

_OF_THE_RUN_BEFORE = frozenset({"_active_end", "_again", "_suspension"})
_NONE_BY_DEFAULT = frozenset(name for name, value in vars(Job).items() if value is None)

Job.__module__ = "zasync.job"
