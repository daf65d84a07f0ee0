# SPDX-License-Identifier: ZPL-2.1
"""`calls` and `calls/ID`: one's own calls, and one of them: 202 while it runs, then its result.

Programs get JSON and people HTML, by the Accept header.  What is not one's own is not found.
"""

from __future__ import annotations

import itertools
from typing import Any

from Products.Five.browser.pagetemplatefile import ViewPageTemplateFile
from zExceptions import BadRequest, NotFound
from zope.interface import implementer
from zope.publisher.interfaces import IPublishTraverse

from zasync.calls.answer import answer
from zasync.calls.description import describe
from zasync.integrations.zope.browsers import check_method, check_origin
from zasync.integrations.zope.manager import HiddenCall
from zasync.integrations.zope.pages import telling
from zasync.integrations.zope.pages.page import Page, wants_json

MOST_LISTED = 100
ACTIONS = ("cancel", "retry")


@implementer(IPublishTraverse)
class Calls(Page):
    """The calls of whoever asks; `calls/ID` is one, `calls/ID/cancel` and `.../retry` change it."""

    mine = ViewPageTemplateFile("templates/mine.pt")
    status = ViewPageTemplateFile("templates/status.pt")

    def __init__(self, context: Any, request: Any) -> None:
        super().__init__(context, request)
        self.subpath: list[str] = []

    def publishTraverse(self, request: Any, name: str) -> Any:
        """Take an id, then an action."""
        if len(self.subpath) == 2 or (self.subpath and name not in ACTIONS):
            raise NotFound("There is no such page.")
        self.subpath.append(name)
        return self

    @property
    def steps(self) -> int:  # type: ignore[override]
        """`calls`, and what follows."""
        return 1 + len(self.subpath)

    def show(self) -> Any:
        if not self.subpath:
            return self._list()
        call = self._find(self.subpath[0])
        if len(self.subpath) == 2:
            return self._act(call, self.subpath[1])
        return self._tell(call)

    def _find(self, call_id: str) -> Any:
        try:
            return self.context.visible_call(call_id)
        except HiddenCall:
            if not self._catch_up():
                raise
            return self.context.visible_call(call_id)

    def _catch_up(self) -> bool:
        """See what others have committed a moment ago; answers whether that may be more.

        Another web process may have put the call, and ZEO may not have told this one yet.  Only
        where nothing is changed by this request: it begins a new transaction.
        """
        connection = self.context._p_jar
        ask_server = getattr(connection.db().storage, "ping", None)
        if ask_server is None or connection.transaction_manager.get()._resources:
            return False
        ask_server()  # answered after all that the server has said before
        connection.sync()
        return True

    # One's own calls

    def _list(self) -> Any:
        owner = self.context.current_owner()
        calls = () if owner is None else self.context.register.owned_by(owner)
        size = self.number("size", MOST_LISTED, 1, MOST_LISTED)
        calls = telling.fetched(itertools.islice(calls, size))
        if wants_json(self.request):
            return self.give_json({"calls": [self._summary(call) for call in calls]})
        self.rows = [telling.row(call, self._address(call)) for call in calls]
        return self.mine()

    def _summary(self, call: Any) -> dict[str, Any]:
        told = telling.row(call, self._address(call))
        return {name: told[name] for name in ("id", "url", "label", "state", "progress", "put_at")}

    def _address(self, call: Any) -> str:
        return f"{self.base}/calls/{call.id}"

    # One of them

    def _tell(self, call: Any) -> Any:
        told = answer(call, url=self._address(call))
        self.request.response.setStatus(told.status)
        for name, value in told.headers.items():
            self.request.response.setHeader(name, value)
        if wants_json(self.request):
            return self.give_json(telling.for_owner(told.body, call), told.status)
        self.pause = int(self.context.poll_interval.total_seconds())
        self.call = telling.whole(call, self._address(call), with_traceback=False)
        return self.status()

    def _act(self, call: Any, action: str) -> Any:
        check_method(self.request)
        if wants_json(self.request) and not self.text(self.token_field):
            self._check_program()
        else:
            self.check_form()
        if action == "cancel":
            call.cancel()
        elif telling.state_of(call) in ("failed", "cancelled"):
            call.retry()
        else:
            raise BadRequest("Only a call that has failed, or was cancelled, can be done again.")
        if wants_json(self.request):
            body = describe(call, url=self._address(call))
            return self.give_json(telling.for_owner(body, call))
        return self.go(self._address(call))

    def _check_program(self) -> None:
        """A program sends JSON, which no form of another site can send without asking us first."""
        check_origin(self.request)
        check_json_sent(self.request)


def check_json_sent(request: Any) -> None:
    """BadRequest unless the body is said to be JSON."""
    kind = (request.get("CONTENT_TYPE") or "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise BadRequest("Send it as application/json, or from the form of a page.")
