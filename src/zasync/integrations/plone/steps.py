# SPDX-License-Identifier: ZPL-2.1
"""Stored: a job that does a work in small steps, each a job of its own, one after the other.

A step that conflicts with what somebody else does at that moment is done again alone; what former
steps have done is committed.  No thread is held between two steps, so other jobs have their turn,
and a worker that is stopped in between loses nothing.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import zope.component
import zope.interface

from zasync.failure import Failure
from zasync.integrations.plone.job import PloneJob
from zasync.integrations.plone.work import Work
from zasync.interfaces import IJob, IRetryPolicy, ZasyncError
from zasync.job import RetryCommonFourTimes
from zasync.job.composition import Group
from zasync.job.retry import Decision

AT_ONCE = 5  # conflicts after which a step waits before it is tried again
LONGEST_PAUSE = timedelta(seconds=30)


class StoodStill(ZasyncError):
    """A step has noted nothing, so that there would be steps for ever."""


@zope.component.adapter(IJob)
@zope.interface.implementer(IRetryPolicy)
class RetryStep(RetryCommonFourTimes):
    """Tries a step again after conflicts for as long as an hour or so; else like the default.

    An editor who saves again and again is waited for longer each time.
    """

    conflict_limit = 120

    def _after_trouble(self, trouble: Any, data_cache: dict[str, Any]) -> Decision:
        decision = super()._after_trouble(trouble, data_cache)
        beyond = data_cache.get("conflicts", 0) - AT_ONCE
        if decision is True and beyond > 0:
            return min(timedelta(seconds=beyond), LONGEST_PAUSE)
        return decision


class Stepwise(Group):
    """Does `work` by jobs that each call `step(work, *args)` once, until it is done.

    As whom the steps run is settled when it is made: the present user.  Its result is the work's
    report, or the failure of the step that failed; then nothing goes on, and `again` goes on where
    it was.
    """

    _work: Any = None
    _done_before = -1  # how much was done when the last step was added

    def __init__(self, step: Any, work: Work, *args: Any) -> None:
        first = PloneJob(step, work, *args)
        first.retry_policy_factory = RetryStep
        super().__init__(first, one_by_one=True, postprocess=conclude)
        self._work = work

    @property
    def callable_name(self) -> str:
        """What it does, for people: what each step calls."""
        return str(self.args[0].callable_name)

    @property
    def work(self) -> Work:
        """What is to be done, and how far it is."""
        return self._work  # type: ignore[no-any-return]

    @property
    def progress(self) -> str:
        """How far the work is; it needs no step that tells."""
        return self.work.line()

    @property
    def progress_numbers(self) -> tuple[float, float]:
        """How many things are done, and how many there are."""
        return self.work.done, self.work.total

    def advance(self) -> None:
        """Start the first step, or have the next one follow the one that has ended."""
        if 0 < self._started == len(self.args) and self._all_ended():
            last, done = self.args[-1], self.work.done
            failed = isinstance(last.result, Failure)
            if not failed and not self.work.is_done and done > self._done_before:
                self._done_before = done
                self.args = [*self.args, last.again()]
        super().advance()

    def again(self) -> Any:
        """A NEW job that goes on with the same work."""
        made = super().again()
        made.args = made.args[:1]
        made._done_before = -1
        return made


def conclude(*steps: Any) -> Any:
    """The result of the whole: of the last step if that failed, else the report of the work."""
    last = steps[-1].result
    if isinstance(last, Failure):
        return last
    work: Work = steps[0].args[0]
    if not work.is_done:
        raise StoodStill(
            f"{steps[-1].callable_name} has seen to nothing, with {work.line()} done: a step notes"
            " what came of at least one of the next things"
        )
    return work.report()


for _stored in (RetryStep, Stepwise):
    _stored.__module__ = "zasync.integrations.plone.steps"
