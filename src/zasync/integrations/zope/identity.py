# SPDX-License-Identifier: ZPL-2.1
"""Who a job is run as: the user who asked for it, by user folder and id, looked up when it runs.

Never the user object, and never its roles: what counts is what that user may do at the moment
of the run.  A user who is not there any more is an error; nobody takes that place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from AccessControl import SpecialUsers
from AccessControl.SecurityManagement import (
    getSecurityManager,
    newSecurityManager,
    noSecurityManager,
    setSecurityManager,
)
from AccessControl.unauthorized import Unauthorized
from Acquisition import aq_base, aq_inner, aq_parent
from zope.component.hooks import getSite, setSite
from zope.component.interfaces import ISite
from zope.globalrequest import clearRequest, getRequest, setRequest
from zope.security.management import endInteraction, newInteraction, queryInteraction, thread_local

from zasync.integrations.zope.surroundings import find_object, language_of, make_request, path_of
from zasync.interfaces import ParkedError, ZasyncError

_SYSTEM = "system"


class UserGone(ParkedError):
    """The user as whom a job was to run is not in that user folder any more.

    The job is parked.  It can be put back once there is such a user again, or be discarded.
    """


class SpecialUser(ZasyncError):
    """A job is to run as the system, the emergency user, or one that belongs to no user folder.

    Such a user is never taken over silently.  In trusted code give the job another identity:
    `job.identity = SYSTEM`, or that of a user.  The emergency user can run no jobs.
    """


class NotTrusted(Unauthorized, ZasyncError):
    """What only code in the file system may ask for was asked for by a script or template."""


@dataclass(frozen=True)
class Identity:
    """A user, by the path of the user folder and the id; and the site and language of the request.

    Without a user folder it is nobody (`ANONYMOUS`), or Zope itself (`SYSTEM`).
    """

    user_folder_path: str | None
    user_id: str | None
    site_path: str | None = None
    language: str | None = None

    def as_tuple(self) -> tuple[str | None, ...]:
        """The plain value that is stored."""
        return self.user_folder_path, self.user_id, self.site_path, self.language

    @classmethod
    def from_tuple(cls, stored: tuple[str | None, ...]) -> Identity:
        """What `as_tuple` answered."""
        return cls(*stored)

    @property
    def user(self) -> tuple[str | None, str | None]:
        """Who it is, wherever and in whatever language."""
        return self.user_folder_path, self.user_id

    @property
    def is_system(self) -> bool:
        """Whether it may do anything."""
        return self.user == SYSTEM.user

    def __str__(self) -> str:
        if self.user_folder_path is None:
            return "Zope itself" if self.is_system else "nobody"
        return f"user {self.user_id!r} of {self.user_folder_path}"


ANONYMOUS = Identity(None, None)
SYSTEM = Identity(None, _SYSTEM)


def current_identity(context: Any = None) -> Identity:
    """Who is logged in here, and the site and language of the request.

    `context` is an object in whose site it is to be, if not in the present one.  SpecialUser if
    nobody may act as this user without saying so.
    """
    here = Identity(*_user_now(), site_path=_site_path(context), language=language_of(getRequest()))
    if here.is_system:
        raise SpecialUser(
            "a job would run as Zope itself, which may do anything: trusted code has to ask for"
            " that (job.identity = SYSTEM), or name a user"
        )
    return here


def _user_now() -> tuple[str | None, str | None]:
    user = getSecurityManager().getUser()
    base = aq_base(user)
    if user is None or base is SpecialUsers.nobody:
        return ANONYMOUS.user
    if base is SpecialUsers.system:
        return SYSTEM.user
    folder, user_id = aq_parent(aq_inner(user)), user.getId()
    if user_id is None or folder is None:
        if user.getUserName() == "Anonymous User":  # a user folder may have one of its own
            return ANONYMOUS.user
        raise SpecialUser(
            f"a job cannot run as {user.getUserName()!r}, who is in no user folder (the emergency"
            " user, or one made for the moment): log in as a real user, or name one"
            " (job.identity) in trusted code"
        )
    return path_of(folder), str(user_id)


def _site_path(context: Any) -> str | None:
    site = getSite() if context is None else context
    if context is not None:
        while site is not None and not ISite.providedBy(site):
            site = aq_parent(aq_inner(site))
    return None if site is None else path_of(site)


def check_trusted_code(what: str) -> None:
    """NotTrusted, naming `what`, if a script or template of the database is what calls."""
    if getSecurityManager()._context.stack:
        raise NotTrusted(f"{what} can be asked for by code in the file system only")


def check_may_become(identity: Identity) -> None:
    """NotTrusted if another user than the present one is asked for by code of the database."""
    try:
        if identity.user == _user_now():
            return
    except SpecialUser:
        pass
    check_trusted_code(f"to run a job as {identity}")


def find_user(app: Any, identity: Identity) -> Any:
    """The user, wrapped in the user folder, as they are now.  UserGone if there is none."""
    if identity.user == ANONYMOUS.user:
        return SpecialUsers.nobody
    if identity.is_system:
        return SpecialUsers.system
    if identity.user_folder_path is None or identity.user_id is None:
        raise UserGone(f"{identity!r} names nobody")
    try:
        folder = find_object(app, identity.user_folder_path, restricted=False)
        find = folder.getUserById
    except (LookupError, AttributeError) as error:
        raise UserGone(
            f"there is no user folder {identity.user_folder_path} any more, to which"
            f" {identity.user_id!r} belonged"
        ) from error
    user = find(identity.user_id, None)
    if user is None or str(user.getId()) != identity.user_id:
        raise UserGone(
            f"{identity} is not there any more; nobody else runs the job instead.  It can be put"
            " back once the user is there again (zasync parked)"
        )
    return user if aq_parent(user) is not None else user.__of__(folder)


@contextmanager
def acting_as(app: Any, identity: Identity, *, form: dict[str, Any] | None = None) -> Iterator[Any]:
    """As long as the block this thread acts as `identity`: user, site, request, language.

    Answers `app` with a new request, whose form has the values of `form`.  Whatever the thread
    had of these before is not seen in the block, and is there again after it.
    """
    with ExitStack() as stack:
        stack.callback(_state_restored())
        _forget_state()
        request = make_request(identity.language, form or {})
        stack.callback(request.close)
        app = request.app(app)
        setRequest(request)
        newInteraction()
        user = find_user(app, identity)
        newSecurityManager(None, user)
        request["AUTHENTICATED_USER"] = user
        if identity.site_path is not None:
            setSite(_find_site(app, identity.site_path))
        yield app


def _find_site(app: Any, path: str) -> Any:
    """The site at `path`; LookupError if there is none any more."""
    try:
        return find_object(app, path, restricted=False)
    except LookupError:
        raise LookupError(
            f"there is no site {path} any more, in which the job was asked for"
        ) from None


def _forget_state() -> None:
    noSecurityManager()
    setSite(None)
    clearRequest()
    if queryInteraction() is not None:
        endInteraction()


def _state_restored() -> Any:
    """A function that gives this thread the user, site, request and interaction of now again."""
    manager, site, request = getSecurityManager(), getSite(), getRequest()
    interaction = queryInteraction()
    of_nobody = aq_base(manager.getUser()) is SpecialUsers.nobody

    def restore() -> None:
        _forget_state()
        if not of_nobody:
            setSecurityManager(manager)
        if site is not None:
            setSite(site)
        if request is not None:
            setRequest(request)
        if interaction is not None:
            thread_local.interaction = interaction

    return restore


def in_site(identity: Identity, site: Any) -> Identity:
    """The same user in another site, which is given as a path or an object."""
    return replace(identity, site_path=site if isinstance(site, str) else path_of(site))
