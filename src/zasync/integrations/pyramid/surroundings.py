# SPDX-License-Identifier: ZPL-2.1
"""What surrounds a job of the application: its registry, a request, the root for that.

The request is made anew for each attempt.  It is no user's: `authenticated_userid` says what the
application's policy says of a request without cookies and headers.  Its transaction manager and
its connections are those of the job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from pyramid.interfaces import IRequestFactory, IRootFactory
from pyramid.request import Request, apply_request_extensions
from pyramid.threadlocal import RequestContext
from pyramid.traversal import DefaultRootFactory


def around_job(registry: Any) -> Callable[[Any], AbstractContextManager[Any]]:
    """What sets the application of `registry` up around an attempt at a job."""

    root_factory = registry.queryUtility(IRootFactory, default=DefaultRootFactory)

    @contextmanager
    def around(job: Any) -> Iterator[Any]:
        request = request_for(job, registry)
        with RequestContext(request):
            try:
                apply_request_extensions(request)
                request.root = request.context = root_factory(request)
                yield request
            finally:
                request._process_finished_callbacks()

    return around


def request_for(job: Any, registry: Any) -> Any:
    """A request as from the address that users see, in the transaction of `job`."""
    factory = registry.queryUtility(IRequestFactory, default=Request)
    request = factory.blank("/", base_url=registry.zasync_settings.application_url)
    request.registry = registry
    connection = job._p_jar
    request.environ["tm.manager"] = connection.transaction_manager
    request.environ["tm.active"] = True  # whoever runs the job begins and commits
    # What pyramid_zodbconn answers and then leaves alone: it is not the request's to close.
    request._primary_zodb_conn = connection.get_connection("")
    return request
