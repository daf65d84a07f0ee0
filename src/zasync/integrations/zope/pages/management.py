# SPDX-License-Identifier: ZPL-2.1
"""The pages for site managers, in the ZMI: overview, calls, one call, settings; and adding one."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import zope.component
from Acquisition import aq_inner, aq_parent
from App.interfaces import ICSSPaths
from Products.Five.browser.pagetemplatefile import ViewPageTemplateFile
from zExceptions import BadRequest

from zasync import plugins
from zasync.integrations.zope import offers
from zasync.integrations.zope.browsers import Browser
from zasync.integrations.zope.manager import (
    DEFAULT_ID,
    LEAST_POLL_INTERVAL,
    POLL_INTERVAL,
    AsynchronousCallManager,
)
from zasync.integrations.zope.pages import telling
from zasync.integrations.zope.pages.page import Page, moment
from zasync.integrations.zope.settings import find_settings

PAGE_SIZE = 50
LARGEST_PAGE = 200
FARTHEST = 100_000
SEARCHED = 2_000  # calls that are looked at to count them, or to find those of one state
LONGEST_POLL = 3600  # seconds
LONGEST_ROTATION = 366 * 86400  # seconds

MESSAGES = {
    "cancelled": "The call is cancelled.",
    "ended": "The call had come to its end before it could be cancelled.",
    "retried": "The call is done again.",
    "asked": "The question waits in the queue; a worker that lives answers it.",
    "saved": "Saved.",
}
"""What the page after a form says, by the word in its address."""


class ManagementPage(Page):
    """A page with the head and the tabs of the ZMI."""

    @property
    def css(self) -> list[str]:
        """The style sheets of the ZMI, and ours."""
        of_zmi = itertools.chain(*zope.component.subscribers((self.context,), ICSSPaths))
        return [*of_zmi, f"{self.resources}/zasync.css"]

    @property
    def tabs(self) -> list[dict[str, Any]]:
        """The tabs that the user may see."""
        here = self.request["URL"].rpartition("/")[2]
        current = {"manage_call": "manage_calls", "manage_workspace": "manage_main"}.get(here, here)
        return [
            {
                "label": option["label"],
                "url": f"{self.base}/{option['action']}",
                "active": option["action"] == current,
            }
            for option in self.context.filtered_manage_options()
        ]

    @property
    def path(self) -> list[dict[str, str]]:
        """The manager and the folders around it, outermost first."""
        found = []
        place = aq_inner(self.context)
        while hasattr(place, "absolute_url") and hasattr(place, "getPhysicalPath"):
            name = place.getId() if len(place.getPhysicalPath()) > 1 else "/"
            found.append({"title": name, "url": f"{place.absolute_url()}/manage_workspace"})
            place = aq_parent(place)
        return found[::-1]

    @property
    def message(self) -> str | None:
        """What became of the form that led here."""
        return MESSAGES.get(self.text("done"))

    def call_url(self, call_id: str) -> str:
        """The address of a call's page."""
        return f"{self.base}/manage_call?id={call_id}"


class Overview(ManagementPage):
    """How many calls there are, and who works on them."""

    index = ViewPageTemplateFile("templates/overview.pt")

    @property
    def counts(self) -> list[dict[str, Any]]:
        newest = telling.fetched(itertools.islice(self.context.register, SEARCHED))
        numbers = Counter(telling.state_of(call) for call in newest)
        return [{"name": n, "number": numbers[state]} for state, n in telling.STATES.items()]

    @property
    def not_counted(self) -> int:
        """How many older calls the counts leave out, so that the page does not take long."""
        return max(0, len(self.context.register) - SEARCHED)

    @property
    def workers(self) -> list[dict[str, Any]]:
        order = {"alive": 0, "dead": 1, "stopped": 2}
        told = [telling.worker(record) for record in self.context.workers()]
        return sorted(told, key=lambda each: (order[each["state"]], each["uuid"]))[:LARGEST_PAGE]

    @property
    def queue_missing(self) -> bool:
        return self.context.queue(None) is None

    @property
    def nobody_works(self) -> bool:
        return not self.context.live_workers()

    @property
    def last_ping(self) -> str | None:
        return moment(self.context.getLastPing())

    @property
    def last_pong(self) -> str | None:
        return moment(self.context.getLastPong())


class SendPing(ManagementPage):
    """Asks whether anybody works."""

    def show(self) -> Any:
        self.check_form()
        self.context.ping()
        return self.go(f"{self.base}/manage_main?done=asked")


class CallList(ManagementPage):
    """All calls, newest first, a page at a time."""

    index = ViewPageTemplateFile("templates/calls.pt")

    @property
    def state(self) -> str:
        """The state that is looked for, or nothing."""
        state = self.text("state")
        return state if state in telling.STATES else ""

    @property
    def states(self) -> list[dict[str, Any]]:
        named = [("", "all"), *telling.STATES.items()]
        return [{"value": key, "name": n, "chosen": key == self.state} for key, n in named]

    @property
    def start(self) -> int:
        return self.number("start", 0, 0, FARTHEST)

    @property
    def size(self) -> int:
        return self.number("size", PAGE_SIZE, 1, LARGEST_PAGE)

    def show(self) -> Any:
        start, size = self.start, self.size
        calls = telling.fetched(itertools.islice(self._wanted(), start, start + size + 1))
        self.more = len(calls) > size
        self.rows = [telling.row(call, self.call_url(call.id)) for call in calls[:size]]
        return self.index()

    def _wanted(self) -> Iterator[Any]:
        if not self.state:
            return iter(self.context.register)
        looked_at = telling.fetched(itertools.islice(self.context.register, SEARCHED))
        return (call for call in looked_at if telling.state_of(call) == self.state)

    @property
    def newer(self) -> str | None:
        """The address of the page before this one."""
        return self._page(max(0, self.start - self.size)) if self.start else None

    @property
    def older(self) -> str | None:
        """The address of the page after this one."""
        following = self.start + self.size
        return self._page(following) if self.more and following <= FARTHEST else None

    def _page(self, start: int) -> str:
        state = f"&state={self.state}" if self.state else ""
        return f"{self.base}/manage_calls?start={start}&size={self.size}{state}"


class OneCall(ManagementPage):
    """A call with all that is known of it."""

    index = ViewPageTemplateFile("templates/call.pt")

    def show(self) -> Any:
        call = self.context.visible_call(self.text("id"))
        self.status_url = f"{self.base}/calls/{call.id}"
        self.call = telling.whole(call, self.call_url(call.id), with_traceback=True)
        return self.index()


class CancelCall(ManagementPage):
    """Ends a call."""

    def show(self) -> Any:
        self.check_form()
        call = self.context.visible_call(self.text("id"))
        done = "cancelled" if call.cancel() else "ended"
        return self.go(f"{self.call_url(call.id)}&done={done}")


class RetryCall(ManagementPage):
    """Does a call again that has failed or was cancelled."""

    def show(self) -> Any:
        self.check_form()
        call = self.context.visible_call(self.text("id"))
        if telling.state_of(call) not in ("failed", "cancelled"):
            raise BadRequest("Only a call that has failed, or was cancelled, can be done again.")
        call.retry()
        return self.go(f"{self.call_url(call.id)}&done=retried")


class SettingsForm(ManagementPage):
    """What the add form and the settings have in common: the fields, and what is wrong in them."""

    _fields = ViewPageTemplateFile("templates/fields.pt")

    @property
    def fields(self) -> Any:
        """The fields, for the templates."""
        return self._fields.macros

    def show(self) -> Any:
        self.errors: dict[str, str] = {}
        if self.request.get("REQUEST_METHOD") == "POST":
            self.check_form()
            seconds = {name: self._seconds(name, *SECONDS[name]) for name in SECONDS}
            if not self.errors:
                spans = {name: timedelta(seconds=n) for name, n in seconds.items()}
                address = self.save(**spans)
                if not self.errors:
                    return self.go(address)
        return self.index()

    def save(self, *, poll_interval: timedelta, rotation_period: timedelta) -> str:
        """Do what the form says; the address to go on to.  Notes what is wrong in `errors`."""
        raise NotImplementedError

    def _seconds(self, name: str, least: int, most: int) -> int:
        text = self.text(name).strip()
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            self.errors[name] = "A whole number of seconds, please."
            return 0
        if int(text) > most:
            self.errors[name] = f"At most {most} seconds."
        return max(least, int(text))

    def given(self, name: str, default: Any) -> str:
        """What the field shows: what was sent, else what is the case."""
        return self.text(name, str(default))[:100]


SECONDS = {
    "poll_interval": (int(LEAST_POLL_INTERVAL.total_seconds()), LONGEST_POLL),
    "rotation_period": (60, LONGEST_ROTATION),
}
"""The least (smaller ones are raised to it) and the most of each setting."""


class Settings(SettingsForm):
    """The settings of a manager."""

    index = ViewPageTemplateFile("templates/settings.pt")

    @property
    def poll_interval(self) -> str:
        return self.given("poll_interval", _seconds_of(self.context.poll_interval))

    @property
    def rotation_period(self) -> str:
        return self.given("rotation_period", _seconds_of(self.context.rotation_period))

    @property
    def title(self) -> str:
        return self.given("title", self.context.title)

    @property
    def choices(self) -> list[dict[str, Any]]:
        """The plugins that can be offered to users."""
        found = []
        for name in sorted({*plugins.names(), *self.context.offered}):
            problem = offers.problem_with(name)
            chosen = name in self.context.offered
            if problem is None or chosen:
                found.append(
                    {
                        "name": name,
                        "description": offers.description_of(name),
                        "problem": problem,
                        "chosen": chosen,
                    }
                )
        return found

    def save(self, *, poll_interval: timedelta, rotation_period: timedelta) -> str:
        wanted = self.request.form.get("offered", ())
        wanted = [wanted] if isinstance(wanted, str) else wanted
        names = {name for name in wanted if isinstance(name, str)}
        for name in sorted(names):
            problem = offers.problem_with(name)
            if problem is not None:
                self.errors["offered"] = problem
                return ""
        self.context.title = self.text("title")[:200]
        self.context.poll_interval = poll_interval
        self.context.rotation_period = rotation_period
        self.context.offered = tuple(sorted(names))
        return f"{self.base}/manage_settings?done=saved"


class AddForm(SettingsForm):
    """Makes a call manager in the folder `context.context`; `context` is its adding view."""

    index = ViewPageTemplateFile("templates/add.pt")

    @property
    def browser(self) -> Browser:
        """As no manager is there that could have a secret, the cookie's key alone is one."""
        return Browser(self.request, b"", "zasync_adding")

    @property
    def css(self) -> list[str]:
        folder = self.context.context
        of_zmi = itertools.chain(*zope.component.subscribers((folder,), ICSSPaths))
        return [*of_zmi, f"{self.resources}/zasync.css"]

    tabs: list[dict[str, Any]] = []  # noqa: RUF012
    is_manager = True

    @property
    def path(self) -> list[dict[str, str]]:
        folder = self.context.context
        return [{"title": folder.getId() or "/", "url": f"{folder.absolute_url()}/manage_main"}]

    @property
    def id(self) -> str:
        return self.given("id", DEFAULT_ID)

    @property
    def title(self) -> str:
        return self.given("title", "")

    @property
    def poll_interval(self) -> str:
        return self.given("poll_interval", _seconds_of(POLL_INTERVAL))

    @property
    def rotation_period(self) -> str:
        """By default what zope.conf says, which says a day by default."""
        return self.given("rotation_period", _seconds_of(find_settings().retention))

    def save(self, *, poll_interval: timedelta, rotation_period: timedelta) -> str:
        folder = self.context.context
        new_id = self.text("id").strip()
        manager = AsynchronousCallManager(
            new_id,
            self.text("title")[:200],
            poll_interval=poll_interval,
            rotation_period=rotation_period,
        )
        try:
            folder._setObject(new_id, manager)
        except BadRequest as error:
            self.errors["id"] = str(error) or "That id cannot be taken."
            return ""
        return f"{folder.absolute_url()}/{new_id}/manage_main"


def _seconds_of(length: timedelta) -> int:
    return int(length.total_seconds())
