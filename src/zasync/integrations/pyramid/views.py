# SPDX-License-Identifier: ZPL-2.1
"""The view of a call, and what views that start something long answer."""

from __future__ import annotations

from typing import Any

from pyramid.httpexceptions import HTTPNotFound
from pyramid.response import Response

from zasync.calls import Call, CallNotFound
from zasync.calls.answer import answer

ROUTE = "zasync_call"


def put_call(request: Any, item: Any, /, *args: Any, label: str = "", **kwargs: Any) -> Call:
    """Ask for `item`, a job or a callable with its arguments, for the user of the request.

    It takes effect with the request's transaction.  See `zasync.calls.Calls.put`.
    """
    call: Call = request.zasync_calls.put(
        item, *args, owner=owner_of(request), label=label, **kwargs
    )
    return call


def owner_of(request: Any) -> str | None:
    """The user of the request, as the owner of calls; None for one who has not logged in."""
    user = request.authenticated_userid
    return None if user is None else str(user)


def call_url(request: Any, call: Call) -> str:
    """Where to ask how `call` is.  KeyError if the setting zasync.calls.path is empty."""
    return str(request.route_url(ROUTE, call_id=call.id))


def call_response(request: Any, call: Call) -> Response:
    """How `call` is: 202 while it waits or runs, then 200 with the result or the failure."""
    told = answer(call, url=call_url(request, call))
    response = Response(json_body=told.body, status=told.status)
    response.headers.update(told.headers)
    return response


def show_call(request: Any) -> Response:
    """GET: the call of that id, if it is the user's."""
    return call_response(request, find_call(request))


def cancel_call(request: Any) -> Response:
    """DELETE: cancel the call of that id, if it is the user's; answers how it is then."""
    call = find_call(request)
    call.cancel("by its owner")
    return call_response(request, call)


def find_call(request: Any) -> Call:
    """The call that the route names.  HTTPNotFound for any that is not the user's."""
    call_id = request.matchdict["call_id"]
    try:
        call: Call = request.zasync_calls.get(call_id, owner=owner_of(request))
    except CallNotFound:
        raise HTTPNotFound(json_body={"error": "there is no such call"}) from None
    return call
