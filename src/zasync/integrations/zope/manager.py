# SPDX-License-Identifier: ZPL-2.1
"""Stored: the asynchronous call manager, the object in the ZMI that users' calls go through.

It holds a register of calls (`zasync.calls`), knows whose a call is, and keeps the few settings
that a site manager may change.  It shows nothing itself: its pages are in
`zasync.integrations.zope.pages`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, TypeVar

from AccessControl.class_init import InitializeClass
from AccessControl.SecurityInfo import ClassSecurityInfo
from OFS.SimpleItem import SimpleItem
from persistent import Persistent
from zExceptions import NotFound
from zope.interface import implementer
from ZPublisher import zpublish

from zasync import plugins
from zasync.calls import Call, CallNotFound, Calls
from zasync.foundation import clock
from zasync.integrations.zope import ownership
from zasync.integrations.zope.browsers import Browser
from zasync.integrations.zope.handles import CallHandle
from zasync.integrations.zope.interfaces import IAsynchronousCallManager
from zasync.integrations.zope.job import ZopeJob
from zasync.integrations.zope.permissions import (
    MAKE_APPLICATION_CALLS,
    MAKE_SESSION_CALLS,
    MANAGE_CALLS,
)
from zasync.interfaces import KEY, IJob, ZasyncError
from zasync.job import Job

DEFAULT_ID = "asynchronous_call_manager"
POLL_INTERVAL = timedelta(seconds=5)
LEAST_POLL_INTERVAL = timedelta(seconds=2)
ROTATION_PERIOD = timedelta(days=1)


_Method = TypeVar("_Method", bound=Callable[..., Any])


def not_published(method: _Method) -> _Method:
    """Mark a method as no page: nobody calls it by its name in a URL or a form."""
    return zpublish(False)(method)  # type: ignore[no-any-return]


class NobodyAsks(ZasyncError, ValueError):
    """A session call was made where there is neither a user nor a browser that it belongs to."""


class HiddenCall(CallNotFound, NotFound):
    """There is no such call, or it is somebody else's: who asks is not told which (404)."""


class Ping(Persistent):
    """The last question whether anybody works, and when one was answered last."""

    asked: datetime | None = None
    answered: datetime | None = None  # to an earlier question
    job: Any = None

    @property
    def waiting(self) -> bool:
        """Whether the last question has no answer yet."""
        return self.job is not None and self.job.active_end is None

    @property
    def last_answer(self) -> datetime | None:
        """When a question was answered last."""
        end: datetime | None = None
        if self.job is not None and not self.job.failed:
            end = self.job.active_end
        return self.answered if end is None else end

    def ask(self, queue: Any) -> None:
        """Put a job that a living worker answers by ending it; none while one waits."""
        if self.waiting:
            return
        self.answered = self.last_answer
        self.asked = clock.now()
        self.job = queue.put(Job(clock.now))  # nobody's: whoever asks may be gone by then


@implementer(IAsynchronousCallManager)
class AsynchronousCallManager(SimpleItem):
    """Takes calls, tells their callers what became of them, and shows all to a site manager."""

    meta_type = "Asynchronous Call Manager"
    zmi_icon = "fas fa-tasks"
    zmi_show_add_dialog = False  # the add form is a page of its own, with its own policy
    security = ClassSecurityInfo()
    security.declareObjectProtected("View")
    security.declareProtected(MAKE_APPLICATION_CALLS, "putCall")
    security.declareProtected(MAKE_SESSION_CALLS, "putSessionCall")
    security.declarePublic("getCall")  # looks itself whose the call is
    security.declareProtected(MANAGE_CALLS, "lenNewCalls", "lenAcceptedCalls", "lenResolvedCalls")
    security.declareProtected(MANAGE_CALLS, "ping", "getLastPing", "getLastPong")
    security.declarePrivate("visible_call", "may_manage", "current_owner", "browser", "register")
    security.declarePrivate("workers", "live_workers", "queue")

    manage_options = (
        {"label": "Overview", "action": "manage_main"},
        {"label": "Calls", "action": "manage_calls"},
        {"label": "Settings", "action": "manage_settings"},
        {"label": "Security", "action": "manage_access"},
    )

    title = ""
    offered: tuple[str, ...] = ()
    """Names of the plugins that the form for users offers."""

    def __init__(
        self,
        id: str = DEFAULT_ID,
        title: str = "",
        *,
        queue: str = "",
        poll_interval: timedelta = POLL_INTERVAL,
        rotation_period: timedelta = ROTATION_PERIOD,
    ) -> None:
        self.id = id
        self.title = title
        self._queue_name = queue
        self._calls = Calls(queue=queue, retention=rotation_period, poll_interval=poll_interval)
        self._ping = Ping()
        self._secret = secrets.token_bytes(32)
        self._name = secrets.token_hex(4)

    def cb_isCopyable(self) -> bool:
        """It cannot be copied: calls, and the jobs in the queue that they name, are there once."""
        return False

    # Making calls.  None of these commits; the job is put with the caller's transaction.

    @not_published
    def putCall(self, what: Any, /, *args: Any, **kw: Any) -> CallHandle:
        """Have `what` done for the application: the name of a plugin, a callable, or a job.

        UnknownPlugin, or what else is wrong with it, is raised here and now.
        """
        return self._handle(self._put(None, what, args, kw))

    @not_published
    def putSessionCall(self, what: Any, /, *args: Any, **kw: Any) -> CallHandle:
        """The same for whoever asks: the user, or the browser if nobody is logged in.

        NobodyAsks where there is neither.
        """
        owner = self.current_owner(create=True)
        if owner is None:
            raise NobodyAsks(
                "a session call belongs to a user or to a browser, and here is neither;"
                " use putCall for what the application asks for"
            )
        return self._handle(self._put(owner, what, args, kw))

    def _put(self, owner: str | None, what: Any, args: tuple[Any, ...], kw: dict[str, Any]) -> Call:
        job: Any
        if isinstance(what, str):
            label, job = what, plugins.job_for(what, *args, **kw)
        elif IJob.providedBy(what):
            if args or kw:
                raise TypeError("a job has its arguments already")
            job = what
            label = job.callable_name
        else:
            job = ZopeJob(what, *args, **kw)
            label = job.callable_name
        return self._calls.put(job, owner=owner, label=label)

    # Asking for them

    @not_published
    def getCall(self, call_id: str) -> CallHandle:
        """The call of that id, if it is one's own; a manager gets any.

        HiddenCall, which is a LookupError and answers 404, if there is none or it is not.
        """
        return self._handle(self.visible_call(call_id))

    def visible_call(self, call_id: str) -> Call:
        """What `getCall` answers, for trusted code: the call itself."""
        try:
            call = self._calls.get(call_id)
        except CallNotFound:
            call = None
        if call is None or not self._may_see(call):
            raise HiddenCall("There is no such call of yours.")  # Zope shows it, not escaped
        return call

    def _may_see(self, call: Call) -> bool:
        is_own = call.owner is not None and call.owner == self.current_owner()
        return is_own or self.may_manage()

    def may_manage(self) -> bool:
        """Whether the present user may see and change all calls."""
        return bool(ownership.current_user().has_permission(MANAGE_CALLS, self))

    def current_owner(self, *, create: bool = False) -> str | None:
        """The owner that whoever asks is; a browser is given a name of its own with `create`."""
        user = ownership.current_user()
        if not ownership.is_anonymous(user):
            return ownership.user_owner(user)
        request = getattr(self, "REQUEST", None)
        if request is None or not hasattr(request, "cookies"):
            return None
        return ownership.browser_owner(self, self.browser(request), create=create)

    def browser(self, request: Any) -> Browser:
        """The browser behind `request`, as this manager knows it."""
        return Browser(request, self._secret, f"zasync_{self._name}")

    def _handle(self, call: Call) -> CallHandle:
        return CallHandle(call)

    @property
    def register(self) -> Calls:
        """The register of calls, for trusted code."""
        return self._calls

    # How many, and who works

    @not_published
    def lenNewCalls(self) -> int:
        """How many calls wait for a worker."""
        return int(self._calls.counts().new)

    @not_published
    def lenAcceptedCalls(self) -> int:
        """How many calls a worker has taken and not ended."""
        return int(self._calls.counts().accepted)

    @not_published
    def lenResolvedCalls(self) -> int:
        """How many calls have ended and are not rotated out yet."""
        return int(self._calls.counts().resolved)

    @not_published
    def ping(self) -> datetime | None:
        """Ask whether anybody works; answers when that was asked.  Does not commit.

        While an earlier question is unanswered there is no second one.
        """
        self._ping.ask(self.queue())
        return self._ping.asked

    @not_published
    def getLastPing(self) -> datetime | None:
        """When `ping` asked last; None if it never did."""
        return self._ping.asked

    @not_published
    def getLastPong(self) -> datetime | None:
        """The last sign of life: an answer to `ping`, or what a dispatcher says by itself."""
        signs = [record.last_ping.value for record in self.workers() if record.activated]
        return max((sign for sign in [*signs, self._ping.last_answer] if sign), default=None)

    def workers(self) -> Iterator[Any]:
        """The records of the dispatchers that work, or have worked, the queue."""
        queue = self.queue(None)
        return iter(() if queue is None else list(queue.dispatchers.values()))

    def live_workers(self) -> int:
        """How many dispatchers are alive, by their own pings."""
        return sum(1 for record in self.workers() if record.activated and not record.dead)

    _required: Any = object()

    def queue(self, default: Any = _required) -> Any:
        """The queue that calls are put in; LookupError, or `default`, if there is none."""
        queues = {} if self._p_jar is None else self._p_jar.root().get(KEY, {})
        found = queues.get(self._queue_name, default)
        if found is self._required:
            raise LookupError(
                f"there is no queue {self._queue_name!r} in this database; the <zasync> section"
                " of zope.conf names those that are to be there"
            )
        return found

    # Settings

    @property
    def queue_name(self) -> str:
        """The name of the queue that calls are put in."""
        return self._queue_name

    @property
    def poll_interval(self) -> timedelta:
        """How long a page or client should wait between two looks at a call."""
        return self._calls.poll_interval

    @poll_interval.setter
    def poll_interval(self, span: timedelta) -> None:
        self._calls.poll_interval = max(span, LEAST_POLL_INTERVAL)

    @property
    def rotation_period(self) -> timedelta:
        """How long calls that have ended are kept."""
        return self._calls.retention

    @rotation_period.setter
    def rotation_period(self, span: timedelta) -> None:
        self._calls.retention = span


InitializeClass(AsynchronousCallManager)
