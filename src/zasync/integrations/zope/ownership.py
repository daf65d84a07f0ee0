# SPDX-License-Identifier: ZPL-2.1
"""To whom a session call belongs: the user who is logged in, else the browser.

A user is named by the path of his user folder and his id, since ids are unique in one folder
only.  A browser is named by the id of Products.Sessions where that is installed, else by a cookie
of our own.
"""

from __future__ import annotations

from typing import Any

from AccessControl.SecurityManagement import getSecurityManager
from Acquisition import aq_inner, aq_parent

from zasync.integrations.zope.browsers import Browser

USER = "user"
BROWSER = "browser"
COOKIE = "cookie"


def current_user() -> Any:
    """The user of the present request, or job."""
    return getSecurityManager().getUser()


def user_owner(user: Any) -> str | None:
    """The owner that `user` is; None for one who is not logged in, and for special users."""
    folder = aq_parent(aq_inner(user))
    user_id = None if user is None else user.getId()
    if user_id is None or folder is None:
        return None
    return f"{USER}:{'/'.join(folder.getPhysicalPath())}:{user_id}"


def is_anonymous(user: Any) -> bool:
    """Whether nobody is logged in."""
    return user is None or (user.getId() is None and user.getUserName() == "Anonymous User")


def browser_owner(context: Any, browser: Browser, *, create: bool = False) -> str | None:
    """The owner that the browser is; None if it is new to us, unless one is to be made now."""
    session_id = _session_id(context, create)
    if session_id is not None:
        return f"{BROWSER}:{session_id}"
    key = browser.need_key() if create else browser.key
    return None if key is None else f"{COOKIE}:{key}"


def _session_id(context: Any, create: bool) -> str | None:
    """What the browser id manager of Products.Sessions says, where there is one.

    An id that comes from a form or a URL is nobody's: whoever makes a link could choose it.
    """
    manager = getattr(context, "browser_id_manager", None)
    if manager is None or not hasattr(manager, "getBrowserId"):
        return None
    session_id = manager.getBrowserId(create=1 if create else 0)
    if session_id is None:
        return None
    if manager.isBrowserIdNew() or manager.isBrowserIdFromCookie():
        return str(session_id)
    return None


def title_of(owner: str | None) -> str:
    """The owner for people; a browser's key is not shown, since it is as good as a password."""
    if owner is None:
        return "the application"
    kind, _, name = owner.partition(":")
    if kind == USER:
        folder, _, user_id = name.partition(":")
        return f"{user_id} ({folder})"
    return "an anonymous visitor"
