# SPDX-License-Identifier: ZPL-2.1
"""What a job of Zope needs around it: the application object, a request, paths of objects."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any, NoReturn

import Zope2
from Acquisition import aq_base
from zExceptions import NotFound
from zope.i18n.interfaces import IUserPreferredLanguages
from zope.publisher.skinnable import setDefaultSkin
from ZPublisher.BaseRequest import RequestContainer
from ZPublisher.HTTPRequest import HTTPRequest
from ZPublisher.HTTPResponse import HTTPResponse

from zasync.interfaces import ZasyncError

APPLICATION = "Application"  # the name of the application object in the root of its database


class NoApplication(ZasyncError, LookupError):
    """A job was to run in Zope, and none of its databases has Zope's application object."""


def find_app(connection: Any) -> Any:
    """Zope's application object, through `connection` or one that belongs to it; without request.

    The queues may lie in another database, whose root may have an object of that name, too.
    """
    if Zope2.DB is not None and Zope2.DB.database_name in connection.db().databases:
        return connection.get_connection(Zope2.DB.database_name).root()[APPLICATION]
    for name in (connection.db().database_name, *connection.db().databases):
        root = connection.get_connection(name).root()
        if APPLICATION in root:
            return root[APPLICATION]
    raise NoApplication(
        f"none of the databases {', '.join(map(repr, connection.db().databases))} has Zope's"
        " application object, so that no job can be run in it"
    )


def path_of(item: Any) -> str:
    """The physical path; '' is the application object.  LookupError if it is in no place."""
    path = item.getPhysicalPath() if hasattr(aq_base(item), "getPhysicalPath") else None
    if not path or path[0] != "":
        raise LookupError(
            f"{item!r} has no path from the application object: get it by traversal, with its"
            " acquisition context"
        )
    return "/".join(path)


def find_object(app: Any, path: str, *, restricted: bool = True) -> Any:
    """The object whose physical path is `path`.  LookupError; Unauthorized if restricted.

    Traversal alone would answer another object of the same name further up, by acquisition, when
    the one that is meant is gone.
    """
    traverse = app.restrictedTraverse if restricted else app.unrestrictedTraverse
    try:
        found = traverse(path)
        if path_of(found) == path:
            return found
    except (NotFound, LookupError, AttributeError) as error:
        raise LookupError(path) from error
    raise LookupError(path)


class JobRequest(HTTPRequest):
    """The request that code of Zope finds while a job runs: nobody has sent it."""

    def app(self, app: Any) -> Any:
        """`app`, from which this request is acquired."""
        wrapped = aq_base(app).__of__(RequestContainer(REQUEST=self))
        self["PARENTS"] = [wrapped]
        return wrapped

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be stored, in the result of a job for one: it could not be loaded again."""
        raise TypeError("a request cannot be stored")


def make_request(language: str | None, values: Mapping[str, Any]) -> JobRequest:
    """A request with those values in its form, from someone who prefers that language."""
    environ = {"SERVER_NAME": "zasync.invalid", "SERVER_PORT": "80", "REQUEST_METHOD": "GET"}
    if language:
        environ["HTTP_ACCEPT_LANGUAGE"] = language
    request = JobRequest(BytesIO(), environ, HTTPResponse(stdout=BytesIO()))
    request._steps = ["zasync"]  # as if an object had been published
    request["ACTUAL_URL"] = request.get("URL")
    if language:
        request["LANGUAGE"] = language  # where Plone looks
    setDefaultSkin(request)
    request.form.update(values)
    return request


def language_of(request: Any) -> str | None:
    """Which language the one who sent `request` likes best, if that can be told."""
    if request is None:
        return None
    chosen = request.get("LANGUAGE", None)
    if isinstance(chosen, str) and chosen:
        return chosen
    preferred = IUserPreferredLanguages(request, None)
    languages = [] if preferred is None else preferred.getPreferredLanguages()
    return str(languages[0]) if languages else None
