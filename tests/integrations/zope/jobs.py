# SPDX-License-Identifier: ZPL-2.1
"""What the jobs of these tests do."""

from __future__ import annotations

from typing import Any

from AccessControl.SecurityManagement import getSecurityManager
from Acquisition import aq_parent
from zope.component.hooks import getSite
from zope.globalrequest import getRequest
from zope.i18n.interfaces import IUserPreferredLanguages
from zope.security.management import queryInteraction


def who_am_i(*args: Any) -> dict[str, Any]:
    """What Zope's code sees around it."""
    user, site, request = getSecurityManager().getUser(), getSite(), getRequest()
    return {
        "user": user.getId(),
        "name": user.getUserName(),
        "roles": tuple(user.getRoles()),
        "site": None if site is None else "/".join(site.getPhysicalPath()),
        "languages": IUserPreferredLanguages(request).getPreferredLanguages(),
        "interaction": queryInteraction() is not None,
        "authenticated": request["AUTHENTICATED_USER"].getUserName(),
    }


def what_is_around() -> dict[str, Any]:
    """The same for a plain job, which has nothing."""
    return {
        "user": getSecurityManager().getUser().getUserName(),
        "site": getSite(),
        "request": getRequest(),
        "interaction": queryInteraction(),
    }


def title_of(item: Any) -> str:
    return str(item.title)


def url_of(item: Any) -> str:
    return str(item.absolute_url())


def rename(item: Any, title: str) -> None:
    item.title = title


def parent_of(item: Any) -> Any:
    return aq_parent(item)


def nothing() -> None:
    pass


def break_down() -> None:
    raise ValueError("it broke")


async def later(item: Any) -> str:
    return str(item.title)
