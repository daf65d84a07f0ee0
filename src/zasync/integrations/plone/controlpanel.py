# SPDX-License-Identifier: ZPL-2.1
"""The control panel: queues, workers, what runs, what has failed, and how long calls are kept.

Queues and workers are those of the whole Zope; the jobs are those of this site only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from plone.protect import CheckAuthenticator, PostOnly
from Products.Five.browser import BrowserView
from Products.Five.browser.pagetemplatefile import ViewPageTemplateFile
from Products.statusmessages.interfaces import IStatusMessage

from zasync.calls import CallNotFound, CallOutcome, CallState
from zasync.foundation.text import printable
from zasync.integrations.plone import overview, retrying
from zasync.integrations.plone.putting import user_id_of
from zasync.integrations.plone.register import SiteJobs, find_jobs
from zasync.interfaces import ZasyncError

SHOWN = 50  # failed ones, and as many that run
LOOKED_AT = 2000  # of the newest ones
LONGEST_MESSAGE = 500
LONGEST_TRACEBACK = 20_000
LONGEST_RETENTION = 3650  # days
SECONDS_OF_DAY = 86_400


class NotPossible(ZasyncError):
    """What was asked for in the control panel cannot be done; the message is shown."""


@dataclass(frozen=True)
class CallLine:
    """One call, as the control panel shows it."""

    id: str
    label: str
    user: str
    put_at: str
    state: str
    progress: str
    percent: int | None
    message: str
    traceback: str


@dataclass
class Chosen:
    """Of the newest calls of the site, those that are shown, and how many there are."""

    unfinished: list[CallLine] = field(default_factory=list)
    failed: list[CallLine] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    looked_at: int = 0

    @property
    def has_looked_at_all(self) -> bool:
        """Whether there are no older ones."""
        return self.looked_at < LOOKED_AT


class JobsControlPanel(BrowserView):
    """`@@zasync-controlpanel`.  Each button is a form of its own, with its own token."""

    template = ViewPageTemplateFile("controlpanel.pt")

    def __call__(self) -> Any:
        """The page; after a button was pressed, a redirect to it."""
        if self.request.get("REQUEST_METHOD") == "GET" or "action" not in self.request.form:
            return self.template()
        PostOnly(self.request)
        CheckAuthenticator(self.request)
        self._press(self.request.form["action"])
        self.request.response.redirect(self.address, status=303)
        return ""

    @property
    def address(self) -> str:
        """Where this page is."""
        return f"{self.context.absolute_url()}/@@zasync-controlpanel"

    # Showing

    @property
    def jobs(self) -> SiteJobs | None:
        """The register of the site."""
        return find_jobs(self.context)

    def queues(self) -> list[overview.QueueLine]:
        """A line for each queue."""
        return overview.queue_lines(overview.queues_of(self.context._p_jar))

    def workers(self) -> list[overview.WorkerLine]:
        """A line for each worker."""
        return overview.worker_lines(overview.queues_of(self.context._p_jar))

    def calls(self) -> Chosen:
        """The newest calls, sorted by what is to be done about them."""
        return Chosen() if self.jobs is None else _choose(self.jobs.calls)

    def retention_days(self) -> str:
        """How long calls are kept after their end, in days."""
        if self.jobs is None:
            return ""
        return f"{self.jobs.calls.retention.total_seconds() / SECONDS_OF_DAY:g}"

    def age(self, span: timedelta | None) -> str:
        """A duration, for people."""
        if span is None:
            return "never"
        seconds = int(span.total_seconds())
        if seconds < 120:
            return f"{seconds} s ago"
        if seconds < 7200:
            return f"{seconds // 60} min ago"
        return f"{seconds // 3600} h ago"

    # Doing

    def _press(self, action: Any) -> None:
        say = IStatusMessage(self.request).add
        try:
            done = self._act(str(action))
        except (NotPossible, retrying.NotFailed) as error:
            say(str(error), type="error")
        except CallNotFound:
            say("There is no such job any more.", type="error")
        else:
            say(done, type="info")

    def _act(self, action: str) -> str:
        actions: dict[str, Callable[[SiteJobs], str]] = {
            "retry": self._retry,
            "discard": self._discard,
            "cancel": self._cancel,
            "retention": self._keep_for,
        }
        if action not in actions or self.jobs is None:
            raise NotPossible("There is no such action.")
        return actions[action](self.jobs)

    def _call(self, jobs: SiteJobs) -> Any:
        return jobs.calls.get(str(self.request.form.get("call", "")))

    def _retry(self, jobs: SiteJobs) -> str:
        retrying.retry(self._call(jobs))
        return "The job is done again, as the user who asked for it."

    def _discard(self, jobs: SiteJobs) -> str:
        retrying.discard(self._call(jobs), jobs)
        return "The job is forgotten."

    def _cancel(self, jobs: SiteJobs) -> str:
        if not retrying.cancel(self._call(jobs)):
            raise NotPossible("The job has ended already.")
        return "The job is cancelled."

    def _keep_for(self, jobs: SiteJobs) -> str:
        jobs.calls.retention = _retention(self.request.form.get("days", ""))
        return f"Jobs that have ended are kept for {self.retention_days()} days."


def _retention(text: Any) -> timedelta:
    try:
        days = float(text)
    except (TypeError, ValueError):
        days = -1.0
    if not 0 < days <= LONGEST_RETENTION:
        raise NotPossible(f"The days are a number above 0 and up to {LONGEST_RETENTION}.")
    return timedelta(days=days)


def _choose(calls: Any) -> Chosen:
    chosen = Chosen(counts=dict.fromkeys(("waiting", "running", *map(str, CallOutcome)), 0))
    for call in itertools.islice(calls, LOOKED_AT):
        chosen.looked_at += 1
        outcome = call.outcome
        running = "waiting" if call.state is CallState.NEW else "running"
        chosen.counts[running if outcome is None else str(outcome)] += 1
        if outcome is None and len(chosen.unfinished) < SHOWN:
            chosen.unfinished.append(_line(call))
        elif outcome is CallOutcome.FAILED and len(chosen.failed) < SHOWN:
            chosen.failed.append(_line(call))
    return chosen


def _line(call: Any) -> CallLine:
    progress, failure = call.progress, call.failure
    return CallLine(
        id=call.id,
        label=printable(call.label or call.job.callable_name, one_line=True),
        user=printable(user_id_of(call.owner), one_line=True) or "nobody",
        put_at=f"{call.put_at:%Y-%m-%d %H:%M:%S} UTC",
        state=str(call.outcome or call.state),
        progress=progress.text or "",
        percent=_percent(progress),
        message="" if failure is None else _message(failure),
        traceback="" if failure is None else printable(failure.getTraceback())[-LONGEST_TRACEBACK:],
    )


def _message(failure: Any) -> str:
    text = printable(failure.getErrorMessage(), one_line=True)[:LONGEST_MESSAGE]
    kind = failure.type if isinstance(failure.type, str) else failure.type.__name__
    return f"{kind.rpartition('.')[2]}: {text}"


def _percent(progress: Any) -> int | None:
    if not progress.total or progress.done is None:
        return None
    return min(100, int(100 * progress.done / progress.total))
