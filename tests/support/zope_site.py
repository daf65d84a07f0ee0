# SPDX-License-Identifier: ZPL-2.1
"""A Zope over ZEO with a call manager in its root and a few users, for tests of its pages.

A test that needs a call in a certain state makes it in the database, through `transaction`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transaction

from tests.support.visitors import Visitor
from tests.support.zeo import ZeoServer
from tests.support.zope_instance import ADMIN, ROOT, ZopeInstance
from zasync.storage import close_database, open_database

MANAGER = "/asynchronous_call_manager"
ALICE = ("alice", "first-password")
BOB = ("bob", "second-password")

PLUGINS = """
  <include package="zasync.plugins" file="meta.zcml" />
  <configure xmlns:zasync="http://namespaces.zope.org/zasync">
    <zasync:plugin name="report" handler="reports:write_report" zope-aware="yes"
        description="Writes a report, and takes its time" />
    <zasync:plugin name="mail" handler="reports:send_mail" zope-aware="yes"
        description="Sends a mail" />
    <zasync:plugin name="add" handler="reports:add" description="Adds two numbers" />
    <zasync:plugin name="objects" handler="reports:needs_objects" description="For code only" />
  </configure>
"""


def documented(kind: str, marker: str) -> str:
    """The block of docs/zope.md that is in the language `kind` and has `marker` in it."""
    text = (ROOT / "docs" / "zope.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"^```{kind}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    [found] = [block for block in blocks if marker in block]
    return str(found)


class Site:
    """The running Zope, its database as this process sees it, and visitors."""

    def __init__(self, instance: ZopeInstance, server: ZeoServer, reports: Path) -> None:
        self.instance = instance
        self.server = server
        self.reports = reports
        self.address = instance.site

    def visitor(self, user: tuple[str, str] | None = None) -> Visitor:
        return self.instance.visitor(user)

    def manager(self) -> Visitor:
        return self.visitor(ADMIN)

    def let(self, *names: str) -> None:
        """Let work go on that waits for files of these names."""
        for name in names:
            (self.reports / name).touch()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Any]:
        """The call manager in a transaction of its own, which is committed."""
        db = open_database(self.server.uri)
        manager = transaction.TransactionManager()
        connection = db.open(transaction_manager=manager)
        try:
            yield connection.root()["Application"]._getOb(MANAGER[1:])
            manager.commit()
        finally:
            manager.abort()
            connection.close()
            close_database(db)
        # ZEO tells others a little later; to look for a call that is not there waits for it.
        assert self.visitor().get(f"{MANAGER}/calls/none").status == 404


@contextlib.contextmanager
def running_site(directory: Path, *, web: bool = True) -> Iterator[Site]:
    """A site in `directory`, made by the documented lines; it ends with the block."""
    reports = directory / "reports"
    reports.mkdir()
    before = os.environ.get("REPORTS")
    os.environ["REPORTS"] = str(reports)
    with ZeoServer(str(directory / "Data.fs")) as server:
        storage = f"<zeoclient>\n      server {server.address}\n    </zeoclient>"
        application = ROOT / "tests" / "support" / "zope_app"
        instance = ZopeInstance(directory / "home", storage, python_path=application)
        instance.add_to_zcml(documented("xml", "zasync.integrations.zope") + PLUGINS)
        instance.add_to_conf(documented("text", "%import zasync.integrations.zope"))
        try:
            instance.start_web()
            instance.add_user(*ALICE)
            instance.add_user(*BOB)
            yield Site(instance, server, reports)
        finally:
            instance.end()
            if before is None:
                del os.environ["REPORTS"]
            else:
                os.environ["REPORTS"] = before


def add_manager(site: Site, **fields: object) -> None:
    """Add the call manager by its form, and have it offer what the tests need."""
    manager = site.manager()
    answer = manager.fill_in("/+/addAsynchronousCallManager.html", {"poll_interval": 2, **fields})
    assert answer.status == 303, answer.body
    settings = {
        "title": "Calls",
        "poll_interval": 2,
        "rotation_period": 86400,
        "offered:list": ["report", "mail", "add"],
    }
    answer = manager.fill_in(f"{MANAGER}/manage_settings", settings)
    assert answer.status == 303, answer.body
