# SPDX-License-Identifier: ZPL-2.1
"""A small Pyramid application, as a user would write one, and what its jobs do.

It is imported by the tests, and by the worker processes that they start.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from persistent.mapping import PersistentMapping
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPBadRequest
from pyramid.threadlocal import get_current_registry, get_current_request
from pyramid_zodbconn import get_connection

from zasync import local
from zasync.integrations.pyramid import call_response, put_call
from zasync.job import Job

_tick = threading.Event()  # never set: waiting for it lets others run


class Shop(PersistentMapping):
    """The root of the application."""


def root_factory(request: Any) -> Any:
    root = get_connection(request).root()
    if "shop" not in root:
        root["shop"] = Shop()
    return root["shop"]


class HeaderPolicy:
    """Whoever says who he is, is it: for tests."""

    def identity(self, request: Any) -> Any:
        return request.headers.get("X-User")

    authenticated_userid = identity

    def permits(self, request: Any, context: Any, permission: str) -> bool:
        return True

    def remember(self, request: Any, userid: str, **options: Any) -> list[Any]:
        return []

    def forget(self, request: Any, **options: Any) -> list[Any]:
        return []


# Views


def make_report(request: Any) -> Any:
    call = put_call(request, count_orders, request.params["year"], label="Report")
    return call_response(request, call)


def put_and_fail(request: Any) -> Any:
    request.zasync_queue.put(Job(note, "never"))
    request.context["touched"] = True
    raise HTTPBadRequest


def put_slow(request: Any) -> Any:
    job = request.zasync_queues["slow"].put(Job(note, "slow"))
    return {"queue": job.queue.name, "same": job.queue is request.zasync_queues["slow"]}


def conflicting(request: Any) -> Any:
    """Its first attempt meets another transaction."""
    request.zasync_queue.put(Job(add_one, "conflicting"))
    request.context["attempts"] = request.context.get("attempts", 0) + 1
    meet = request.registry.settings.get("meet")
    if meet is not None:
        meet()
    return {"attempts": request.context["attempts"]}


# Jobs


def count_orders(year: str) -> dict[str, Any]:
    local.set_progress("counting", done=1, total=2)
    wait_for_file(os.environ.get("SHOP_GATE"))
    request = get_current_request()
    request.root["reports"] = request.root.get("reports", 0) + 1
    return {"year": year, "orders": 7, "url": request.route_url("report")}


def wait_for_file(name: str | None) -> None:
    for _ in range(6000):
        if name is None or Path(name).exists():
            return
        _tick.wait(0.01)
        local.check_cancelled()
    raise AssertionError(f"nobody made {name}")


def note(text: str) -> str:
    return text


def add_one(name: str) -> int:
    root = get_current_request().root
    root[name] = root.get(name, 0) + 1
    return int(root[name])


def look_around() -> dict[str, Any]:
    request = get_current_request()
    job = local.getJob()
    return {
        "registry": get_current_registry() is request.registry,
        "settings": request.registry.settings["shop.name"],
        "root": type(request.root).__name__,
        "context": request.context is request.root,
        "connection": get_connection(request) is job._p_jar.get_connection(""),
        "tm": request.tm is job._p_jar.transaction_manager,
        "queue": request.zasync_queue is job.queue,
        "user": request.authenticated_userid,
        "url": request.route_url("report"),
        "process": os.getpid(),
    }


requests: list[Any] = []


def fail_first() -> int:
    """Each attempt has a request of its own."""
    request = get_current_request()
    request.add_finished_callback(lambda request: requests.append("finished"))
    requests.append(id(request))
    request.root["failed"] = request.root.get("failed", 0) + 1
    if len(requests) == 1:
        raise_conflict()
    return int(request.root["failed"])


def raise_conflict() -> None:
    from ZODB.POSException import ConflictError

    raise ConflictError


def put_another() -> Any:
    """A job may put others, and calls, through its request."""
    request = get_current_request()
    request.zasync_queue.put(Job(note, "another"))
    return put_call(request, note, "a call").id


def has_request() -> bool:
    return get_current_request() is not None


def configured(settings: dict[str, Any]) -> Any:
    config = Configurator(settings=settings, root_factory=root_factory)
    config.set_security_policy(HeaderPolicy())
    if settings.get("shop.retry"):
        config.include("pyramid_retry")
    config.include("zasync.integrations.pyramid")
    config.include("pyramid_tm")
    config.include("pyramid_zodbconn")
    config.add_route("report", "/report")
    config.add_view(make_report, route_name="report")
    for view, options in [
        (put_and_fail, {}),
        (put_slow, {"renderer": "json"}),
        (conflicting, {"renderer": "json"}),
    ]:
        config.add_view(view, name=view.__name__, **options)
    return config


def main(global_config: Any, **settings: Any) -> Any:
    """The factory that development.ini names."""
    return configured(settings).make_wsgi_app()
