# SPDX-License-Identifier: ZPL-2.1
"""Put a job for the present user of the present site, and find it again.  Nothing here commits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from AccessControl import getSecurityManager

from zasync.calls import CallNotFound
from zasync.integrations.plone.job import PloneJob
from zasync.integrations.plone.register import jobs_of, portal
from zasync.integrations.zope.ownership import current_user, user_owner

MANAGE = "zasync: Manage jobs"
VIEW_OWN = "zasync: View own jobs"
BULK = "zasync: Change many items"


def put(callable: Callable[..., Any], *args: Any, label: str = "", **kwargs: Any) -> Any:
    """Have `callable(*args, **kwargs)` done as the present user, in the present site.

    Answers the call (`zasync.calls.Call`), which the user finds under `@jobs`.  Objects of the
    site among the arguments are looked up as that user when the job runs.  NotInstalled if zasync
    is not installed in the site.
    """
    return put_job(PloneJob(callable, *args, **kwargs), label=label)


def put_job(job: Any, *, label: str = "") -> Any:
    """The same for a job that was made already."""
    return jobs_of(portal()).calls.put(job, owner=present_owner(), label=label)


def present_owner() -> str | None:
    """Whose calls those are that are put now; None for one who is not logged in."""
    return user_owner(current_user())


def user_id_of(owner: str | None) -> str:
    """The id of the user in an owner, for people."""
    return (owner or "").split(":", 2)[-1]


def is_manager() -> bool:
    """Whether the present user may see and change all jobs of the site."""
    return bool(getSecurityManager().checkPermission(MANAGE, portal()))


def find_call(call_id: str) -> Any:
    """The call of that id, if the present user may see it.

    CallNotFound (a LookupError) if there is none, or it is somebody else's.
    """
    calls = jobs_of(portal()).calls
    if is_manager():
        return calls.get(call_id)
    owner = present_owner()
    if owner is None:
        raise CallNotFound("one who is not logged in has no calls")
    return calls.get(call_id, owner=owner)


def visible_calls() -> Iterator[Any]:
    """The calls that the present user may see, the newest first."""
    calls = jobs_of(portal()).calls
    if is_manager():
        return iter(calls)
    owner = present_owner()
    return iter(()) if owner is None else calls.owned_by(owner)
