# SPDX-License-Identifier: ZPL-2.1
"""`ask`: the form in which a user asks for one of the plugins that the site manager offers.

It leads to the call's own page, which shows how far it is and, in the end, the result.  Programs
post JSON: `{"plugin": name, "arguments": {...}}`.
"""

from __future__ import annotations

import json
from typing import Any

from Products.Five.browser.pagetemplatefile import ViewPageTemplateFile

from zasync.calls.answer import answer
from zasync.integrations.zope import offers
from zasync.integrations.zope.browsers import check_origin
from zasync.integrations.zope.offers import WrongArguments
from zasync.integrations.zope.pages import telling
from zasync.integrations.zope.pages.page import Page
from zasync.interfaces import ZasyncError

_PREFIX = "argument_"  # so that no argument has the name of a field of ours


class Ask(Page):
    """What can be asked for, and the form for one of them."""

    index = ViewPageTemplateFile("templates/ask.pt")

    def show(self) -> Any:
        self.errors: dict[str, str] = {}
        if self.request.get("REQUEST_METHOD") != "POST":
            return self.index()
        if _sends_json(self.request):
            return self._ask_for_program()
        self.check_form()
        form = {
            name.removeprefix(_PREFIX): value
            for name, value in self.request.form.items()
            if name.startswith(_PREFIX)
        }
        try:
            call = self._put(self.text("plugin"), form)
        except WrongArguments as error:
            self.errors = error.errors
        except (ZasyncError, LookupError, TypeError, ValueError) as error:
            self.errors = {"": str(error)[:1000]}
        else:
            return self.go(f"{self.base}/calls/{call.id}")
        self.request.response.setStatus(400)
        return self.index()

    def _put(self, name: str, form: dict[str, Any]) -> Any:
        """Make the call.  NotOffered, WrongArguments, or what the plugin has against it."""
        fields = offers.offered_fields(self.context, name)
        return self.context.putSessionCall(name, **offers.arguments(fields, form))

    def _ask_for_program(self) -> Any:
        check_origin(self.request)
        try:
            sent = json.loads(self.request.get("BODY") or b"")
            if not isinstance(sent, dict) or not isinstance(sent.get("arguments", {}), dict):
                raise ValueError('the body is to be {"plugin": name, "arguments": {...}}')
            call = self._put(str(sent.get("plugin")), sent.get("arguments", {}))
        except WrongArguments as error:
            return self.give_json({"error": str(error), "arguments": error.errors}, 400)
        except (ZasyncError, LookupError, TypeError, ValueError) as error:
            return self.give_json({"error": str(error)[:1000]}, 400)
        told = answer(call.call, url=f"{self.base}/calls/{call.id}")
        for name, value in told.headers.items():
            self.request.response.setHeader(name, value)
        return self.give_json(telling.for_owner(told.body, call.call), told.status)

    # What the template shows

    @property
    def choices(self) -> list[dict[str, Any]]:
        """What can be asked for."""
        return [
            {
                "name": name,
                "description": offers.description_of(name),
                "url": f"{self.base}/ask?plugin={name}",
            }
            for name in self.context.offered
            if offers.problem_with(name) is None
        ]

    @property
    def chosen(self) -> dict[str, Any] | None:
        """The one that the form is for: the one that was chosen, or the only one."""
        choices = self.choices
        named = [each for each in choices if each["name"] == self.text("plugin")]
        if not named and len(choices) == 1:
            named = choices
        return named[0] if named else None

    @property
    def fields(self) -> list[dict[str, Any]]:
        """The fields of the form, with what was sent, and what is wrong with it."""
        chosen = self.chosen
        if chosen is None:
            return []
        return [
            {
                "name": f"{_PREFIX}{field.name}",
                "label": field.label,
                "kind": field.kind,
                "type": "number" if field.kind in ("integer", "number") else "text",
                "step": {"integer": "1", "number": "any"}.get(field.kind),
                "value": self.text(f"{_PREFIX}{field.name}", field.shown_default),
                "checked": self.text(f"{_PREFIX}{field.name}", field.shown_default) != "",
                "required": field.required,
                "error": self.errors.get(field.name),
            }
            for field in offers.offered_fields(self.context, chosen["name"])
        ]


def _sends_json(request: Any) -> bool:
    kind = (request.get("CONTENT_TYPE") or "").partition(";")[0].strip().lower()
    return kind == "application/json"
