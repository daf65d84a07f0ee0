# SPDX-License-Identifier: ZPL-2.1
"""What the Zope of these tests has: jobs, and pages that put them and tell what became of them."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import transaction
from AccessControl.SecurityManagement import getSecurityManager
from OFS.Folder import Folder
from Products.Five.browser import BrowserView
from Products.Five.component import enableSite
from zope.component import getGlobalSiteManager
from zope.component.hooks import getSite
from zope.component.persistentregistry import PersistentComponents

from zasync.interfaces import KEY

_never = threading.Event()


def directory() -> Path:
    return Path(os.environ["ZOPE_WORK"])


def who_am_i() -> str:
    """The id of the user."""
    return str(getSecurityManager().getUser().getId())


def where_am_i() -> str:
    """The path of the site."""
    return "/".join(getSite().getPhysicalPath())


def hold(item: Any, name: str) -> str:
    """Count a run in the title of `item`; go on until the file `name` is there."""
    item.title = f"{item.title}|{name}"
    with (directory() / "began").open("a") as file:
        file.write(f"{name} {os.getpid()}\n")
    while not (directory() / name).exists():
        _never.wait(0.02)
    return name


def count(number: int) -> int:
    return number


class Pages(BrowserView):  # type: ignore[misc]
    """Each page commits with its request, as any."""

    @property
    def root(self) -> Any:
        return self.context._p_jar.root()

    @property
    def queue(self) -> Any:
        return self.root[KEY][""]

    def put(self) -> str:
        """Put what the form says; answers the oid."""
        form = self.request.form
        if form["what"] == "hold":
            from zasync.integrations.zope.job import ZopeJob

            job = self.queue.put(ZopeJob(hold, self.context, form["name"]))
        else:
            job = self.queue.put({"who": who_am_i, "where": where_am_i}[form["what"]])
        transaction.savepoint()
        return str(job.oid)

    def make_site(self) -> str:
        """A folder that is a site, as Plone's is."""
        self.context._setObject("branch", Folder("branch"))
        enableSite(self.context.branch)
        self.context.branch.setSiteManager(PersistentComponents(bases=(getGlobalSiteManager(),)))
        return "made"

    def look(self) -> str:
        """What has become of a job."""
        job = self.queue._p_jar.get(int(self.request.form["oid"]).to_bytes(8, "big"))
        result = job.result
        failed = job.failed
        told = {"status": job.status, "failed": failed, "title": self.context.title}
        told["database"] = job._p_jar.db().database_name
        told["result"] = result.getErrorMessage() if failed else result
        return json.dumps(told)

    def collide(self) -> str:
        """Put a job and change what every other request changes, too."""
        root = self.root
        root["requests"] = root.get("requests", 0) + 1
        self.queue.put(count, retry_policy_factory=None)
        return "put"
