# SPDX-License-Identifier: ZPL-2.1
"""Zope's application object in a database in memory, for tests in one process.

Zope itself is not started, since a process can do that once only; what is registered here is
forgotten after each test.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import transaction
import zope.component
from AccessControl.SecurityManagement import newSecurityManager, noSecurityManager
from OFS.Application import Application
from OFS.Folder import Folder
from Products.Five.component import enableSite
from ZODB.DB import DB
from ZODB.DemoStorage import DemoStorage
from zope.component.persistentregistry import PersistentComponents
from zope.i18n.interfaces import IUserPreferredLanguages
from zope.publisher.browser import BrowserLanguages
from zope.publisher.interfaces.http import IHTTPRequest
from zope.traversing.adapters import DefaultTraversable
from zope.traversing.interfaces import ITraversable

from tests.support.running import running, until
from zasync import configure
from zasync.integrations.zope.job import ZopeJob
from zasync.integrations.zope.surroundings import make_request
from zasync.interfaces import COMPLETED, KEY, IJob
from zasync.queue import Queue, Queues


class Place:
    """The database, and a connection of a web thread."""

    def __init__(self, queues_in: str | None = None) -> None:
        databases: dict[str, Any] = {}
        self.db = DB(DemoStorage(), databases=databases, database_name="main")
        if queues_in is not None:
            DB(DemoStorage(), databases=databases, database_name=queues_in)
        self.connection = self.db.open()
        root = self.connection.root()
        root["Application"] = Application()
        self._fill(root["Application"])
        self._add_queues(root, queues_in)
        transaction.commit()

    def _fill(self, app: Any) -> None:
        for name, roles in (("alice", ()), ("bob", ()), ("boss", ("Manager",))):
            app.acl_users._doAddUser(name, "secret", roles, [])
        app._setObject("news", Folder("news"))
        app.news.title = "The news"
        app._setObject("closed", Folder("closed"))
        app.closed.manage_permission("View", ["Manager"])
        app.closed.manage_permission("Access contents information", ["Manager"])

    def _add_queues(self, root: Any, queues_in: str | None) -> None:
        root[KEY] = Queues()
        if queues_in is not None:
            other = self.connection.get_connection(queues_in)
            other.add(root[KEY])
            other.root()[KEY] = root[KEY]
        root[KEY][""] = Queue()

    @property
    def app(self) -> Any:
        """The application object, with a request."""
        request = make_request(None, {})
        return request.app(self.connection.root()["Application"])

    @property
    def queue(self) -> Any:
        return self.connection.root()[KEY][""]

    def user(self, name: str) -> Any:
        folder = self.app.acl_users
        return folder.getUserById(name).__of__(folder)

    def make_site(self, name: str) -> Any:
        """Have the object `name` be a site, and answer it."""
        site = self.app[name]
        enableSite(site)
        site.setSiteManager(PersistentComponents(bases=(zope.component.getGlobalSiteManager(),)))
        transaction.commit()
        return site

    @contextlib.contextmanager
    def logged_in(self, name: str) -> Iterator[Any]:
        """As if a request of that user was served; commits at its end, as the publisher does."""
        newSecurityManager(None, self.user(name))
        try:
            yield self.app
            transaction.commit()
        except BaseException:
            transaction.abort()
            raise
        finally:
            noSecurityManager()

    def performed(self, *jobs: Any) -> None:
        """Have a dispatcher perform all jobs of the queue; then `jobs` have ended."""
        transaction.commit()
        with running(self.db):
            self._wait(jobs)
        transaction.begin()

    def _wait(self, jobs: tuple[Any, ...]) -> None:
        def ended() -> bool:
            transaction.abort()
            transaction.begin()
            return all(job.status == COMPLETED for job in jobs)

        until(ended, f"the end of {len(jobs)} jobs", 30)


@contextlib.contextmanager
def opened_place(queues_in: str | None = None) -> Iterator[Place]:
    """A place, with what configure.zcml registers."""
    configure.base()
    configure.provide_default_queue()
    for kind in configure.CALLABLES:
        zope.component.provideAdapter(ZopeJob, (kind,), IJob)
    zope.component.provideAdapter(DefaultTraversable, (None,), ITraversable)
    zope.component.provideAdapter(BrowserLanguages, (IHTTPRequest,), IUserPreferredLanguages)
    place = Place(queues_in)
    try:
        yield place
    finally:
        transaction.abort()
        place.connection.close()
        for db in place.db.databases.values():
            db.close()
