# SPDX-License-Identifier: ZPL-2.1
"""Stored: serial and parallel, jobs that stand for several others.

The group job starts its members in the queue it lies in and then waits, holding no thread, for
its conclusion: a job that is put once every member has a result, whatever that is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zasync.failure import Failure
from zasync.interfaces import CALLBACKS, COMPLETED, NEW, BadStatusError, IQueue
from zasync.job import callables, relations, values
from zasync.job.adapting import as_job, plain_job
from zasync.job.bookkeeping import put_resumption
from zasync.job.job import Job


class Group(Job):
    """A job that performs its arguments, which are jobs, one by one or all at once.

    Made by `serial` and `parallel`.  Jobs may be added to its `args` while it is running.
    """

    of_one_life = Job.of_one_life | {"_started", "_concluded", "_conclusion"}

    one_by_one = False
    _postprocess: Any = None
    _conclusion: Any = None
    _started = 0  # so many of the first args have been started
    _concluded = False  # the result is being made; no more jobs can be added

    _v_ended = 0  # so many of the first args are known to have ended

    def __init__(self, *jobs: Any, one_by_one: bool, postprocess: Any = None) -> None:
        super().__init__(self.perform_members, *map(as_job, jobs))
        if one_by_one:
            self.one_by_one = True
        if postprocess is not None:
            names, target = callables.describe(postprocess, self)
            self._postprocess = (names, values.boxed(target))

    def _store_args(self, args: list[Any]) -> None:
        """Take other members, which may be callables; the started ones must stay where they are."""
        if self._concluded or relations.has_result(self):
            raise BadStatusError(f"jobs cannot be added to {self!r}: all of its jobs have ended")
        if args[: self._started] != self._stored_args()[: self._started]:
            raise ValueError(f"jobs of {self!r} that have been started cannot be replaced", self)
        if self._p_jar is not None and self._p_oid is not None:
            self._p_jar.readCurrent(self)  # else it might be concluded at the same time
        super()._store_args(list(map(as_job, args)))

    def check_storable(self, connection: Any) -> None:
        super().check_storable(connection)
        if self._postprocess is not None:
            names, target = self._postprocess
            callables.check_nameable(names, values.unboxed(target))
        for member in self.args:
            member.check_storable(connection)

    def perform_members(self, *jobs: Any) -> Any:
        """The callable: start what can be started, and answer the job to wait for."""
        if self._home() is None:
            raise ValueError(f"{self!r} needs a queue to put its jobs in; put it in one")
        self._conclusion = Conclusion(self.conclude)
        self.advance()
        return self._conclusion

    @property
    def callable_name(self) -> str:
        return "zasync.job.serial" if self.one_by_one else "zasync.job.parallel"

    def _home(self) -> Any:
        """The queue for the members: its own, or (called by hand) that of its database."""
        queue = self.queue
        return IQueue(self, None) if queue is None else queue

    def place_inner(self, inner: Any) -> None:
        """The conclusion, the only inner job, is put when the members have ended, not before."""

    def performed_for_it(self) -> list[Any]:
        """The members that were started, and the conclusion."""
        return [*super().performed_for_it(), *self.args[: self._started]]

    def again(self) -> Any:
        """A NEW group of new jobs like its members."""
        made = super().again()
        made.args = [member.again() for member in self.args]
        return made

    def member_ended(self, result: Any) -> None:
        """Called as a callback of each member.  Does not commit."""
        if not relations.has_result(self):
            self.advance()

    def advance(self) -> None:
        """Start the members whose turn it is; put the conclusion once all have ended."""
        while self._started < len(self.args) and (not self.one_by_one or self._all_ended()):
            self._start_next()
        if self._started == len(self.args) and self._all_ended():
            conclusion = self._conclusion
            if conclusion.status == NEW and conclusion.parent is None:
                self._home().put(conclusion)

    def _all_ended(self) -> bool:
        """Whether every member that was started has ended."""
        ended = self._v_ended
        while ended < self._started and relations.has_result(self.args[ended]):
            ended += 1
        self._v_ended = ended
        return ended >= self._started

    def _start_next(self) -> None:
        member = self.args[self._started]
        self._started += 1
        if relations.has_result(member):
            return
        if member.status == NEW and member.parent is None:
            self._put_member(member)
        if member.status != COMPLETED:
            member.addCallback(plain_job(self.member_ended))

    def _put_member(self, member: Any) -> None:
        """Put a member; one that the queue refuses fails, and the others go on."""
        home = self._home()
        try:
            home.put(member)
        except ValueError as error:  # such as for a quota that is gone
            member.parent = home
            member.finish(Failure(error))
            if member.status == CALLBACKS:
                put_resumption(home, member.resumeCallbacks)

    @property
    def postprocess_code(self) -> callables.Names:
        """What names the code of the postprocess; empty if there is none."""
        return () if self._postprocess is None else self._postprocess[0]

    def check_postprocess(self) -> None:
        """UnresolvableError if this process does not have the code of the postprocess."""
        if self._postprocess is not None:
            names, target = self._postprocess
            callables.check_resolvable(names, self, lambda: values.unboxed(target))

    def conclude(self) -> Any:
        """The conclusion's callable: answers the result of the group."""
        if self._started < len(self.args) or not self._all_ended():
            self._conclusion = Conclusion(self.conclude)  # members were added after it was put
            self.advance()
            return self._conclusion
        self._concluded = True
        if self._payload is not None:
            self._p_jar.readCurrent(self._payload)  # where those lie that are added now
        if self._postprocess is None:
            return tuple(member.result for member in self.args)
        names, target = self._postprocess
        return callables.resolve(names, values.unboxed(target), self)(*self.args)


class Conclusion(Job):
    """Answers the result of a group, in a process that has the code of its postprocess."""

    @property
    def _group(self) -> Group:
        assert self._payload is not None
        return self._payload.target  # type: ignore[no-any-return]

    @property
    def code(self) -> callables.Names:
        return (*super().code, *self._group.postprocess_code)

    def check_resolvable(self) -> None:
        super().check_resolvable()
        self._group.check_postprocess()


def serial(*jobs: Any, postprocess: Callable[..., Any] | None = None) -> Group:
    """A job that performs `jobs` one after the other, in the queue that it is put in.

    Its result is that of `postprocess(*jobs)`, which gets the jobs, so that failures can be
    looked at; by default the tuple of their results.
    """
    return Group(*jobs, one_by_one=True, postprocess=postprocess)


def parallel(*jobs: Any, postprocess: Callable[..., Any] | None = None) -> Group:
    """A job that performs `jobs` all at once, as far as there are threads; else like `serial`."""
    return Group(*jobs, one_by_one=False, postprocess=postprocess)


Group.__module__ = Conclusion.__module__ = "zasync.job"
