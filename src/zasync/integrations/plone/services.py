# SPDX-License-Identifier: ZPL-2.1
"""The services of Plone's REST API: `@jobs`, and `@bulk-transition`, which puts a job.

What runs is answered by 202 with a `Location`, a `Retry-After` and how far it is; what has ended
by 200.  What a user may not see is 404, as if there were none.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import zope.interface
from plone.protect.interfaces import IDisableCSRFProtection
from plone.restapi.batching import HypermediaBatch
from plone.restapi.deserializer import json_body
from plone.restapi.exceptions import DeserializationError
from plone.restapi.services import Service
from zope.publisher.interfaces import IPublishTraverse

from zasync.calls import CallNotFound, CallOutcome, CallState
from zasync.calls.answer import answer
from zasync.calls.description import describe
from zasync.integrations.plone.bulk import BadRequest, put_transition
from zasync.integrations.plone.putting import (
    find_call,
    is_manager,
    user_id_of,
    visible_calls,
)
from zasync.integrations.plone.register import NotInstalled, portal
from zasync.integrations.plone.retrying import NotFailed, cancel, retry

Document = dict[str, Any]


class Refused(Exception):
    """What is answered instead of what was asked for."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@zope.interface.implementer(IPublishTraverse)
class JobsService(Service):
    """What all of `@jobs` has in common: the id from the address, and errors as JSON."""

    def __init__(self, context: Any, request: Any) -> None:
        super().__init__(context, request)
        self.path: list[str] = []

    def publishTraverse(self, request: Any, name: str) -> JobsService:
        """Take what follows `@jobs/` in the address."""
        self.path.append(name)
        return self

    def reply(self) -> Any:
        """The document, or the error as one; with the status that fits."""
        try:
            return self.answer()
        except Refused as error:
            status = error.status
            message = str(error)
        except CallNotFound:
            status, message = 404, "There is no such job."
        except NotInstalled as error:
            status, message = 404, str(error)
        except BadRequest as error:
            status, message = 400, str(error)
        except NotFailed as error:
            status, message = 409, str(error)
        self.request.response.setStatus(status)
        return {"type": _KINDS[status], "message": message}

    def answer(self) -> Any:
        """What is asked for."""
        raise NotImplementedError

    def call(self, *rest: str) -> Any:
        """The call of the address, which ends with `rest` after the id; CallNotFound."""
        if len(self.path) != 1 + len(rest) or tuple(self.path[1:]) != rest:
            raise Refused(404, "There is no such job.")
        return find_call(self.path[0])

    def answered(self, call: Any) -> Document:
        """The call by the 202 pattern: status, headers and document."""
        found = answer(call, url=address_of(call))
        self.request.response.setStatus(found.status)
        for name, value in found.headers.items():
            self.request.response.setHeader(name, value)
        return completed(call, found.body)

    def writes(self) -> None:
        """This request changes something, as other services of the REST API do."""
        zope.interface.alsoProvides(self.request, IDisableCSRFProtection)


_KINDS = {400: "BadRequest", 404: "NotFound", 409: "Conflict"}


def address_of(call: Any) -> str:
    """Where the call is found in the REST API."""
    return f"{portal().absolute_url()}/@jobs/{call.id}"


def completed(call: Any, document: Document) -> Document:
    """The document of a call as the REST API has it: with its address, and who asked."""
    told = {name: value for name, value in document.items() if name not in ("owner", "url")}
    return {**told, "@id": address_of(call), "user": user_id_of(call.owner)}


class JobsGet(JobsService):
    """GET `@jobs`: my jobs, or for managers those of all; GET `@jobs/<id>`: one of them."""

    def answer(self) -> Document:
        """The list, or the one."""
        if self.path:
            return self.answered(self.call())
        batch = HypermediaBatch(self.request, list(self._chosen()))
        document = {
            "@id": batch.canonical_url,
            "items": [completed(call, describe(call)) for call in batch],
            "items_total": batch.items_total,
        }
        return document if batch.links is None else {**document, "batching": batch.links}

    def _chosen(self) -> Iterator[Any]:
        """The visible calls that the filters `state` and `user` let through."""
        state, user = self._filter("state"), self._filter("user")
        if state is not None and state not in STATES:
            raise BadRequest(f"state must be one of {', '.join(sorted(STATES))}")
        if user is not None and not is_manager():
            raise BadRequest("only a manager can ask for the jobs of a user")
        for call in itertools.islice(visible_calls(), MOST_LISTED):
            if state is not None and state not in (call.state, call.outcome):
                continue
            if user is not None and user != user_id_of(call.owner):
                continue
            yield call

    def _filter(self, name: str) -> str | None:
        value = self.request.form.get(name)
        if value is not None and not isinstance(value, str):
            raise BadRequest(f"{name} can be given once")
        return value or None


STATES = frozenset(str(each) for each in (*CallState, *CallOutcome))
MOST_LISTED = 2000  # of the newest calls, those that a list is chosen from


class JobsDelete(JobsService):
    """DELETE `@jobs/<id>`: cancel it; 409 if it has ended already."""

    def answer(self) -> Any:
        """Nothing, when it is cancelled."""
        call = self.call()
        self.writes()
        if not cancel(call):
            raise Refused(409, "The job has ended already.")
        return self.reply_no_content()


class JobsPost(JobsService):
    """POST `@jobs/<id>/retry`: have a failed or cancelled one done again; 409 if it is neither."""

    def answer(self) -> Document:
        """As GET would from now on."""
        call = self.call("retry")
        self.writes()
        retry(call)
        return self.answered(call)


class BulkTransitionPost(JobsService):
    """POST `@bulk-transition`: {"items": [...], "transition": "publish", "comment": "..."}."""

    def answer(self) -> Document:
        """202, and where to ask what became of it."""
        if self.path:
            raise Refused(404, "There is no such service.")
        wanted = self._body()
        self.writes()
        return self.answered(put_transition(**wanted))

    def _body(self) -> Document:
        try:
            body = json_body(self.request)
        except DeserializationError as error:
            raise BadRequest(str(error)) from error
        unknown = sorted(set(body) - {"items", "transition", "comment", "label"})
        if unknown:
            raise BadRequest(f"there is no option {', '.join(unknown)}")
        if not isinstance(body.get("items"), list):
            raise BadRequest("items must be a list of UIDs, paths or addresses")
        for name in ("transition", "comment", "label"):
            if not isinstance(body.get(name, ""), str):
                raise BadRequest(f"{name} must be a text")
        return dict(body)
