# SPDX-License-Identifier: ZPL-2.1
"""A real Plone: a ZEO server, an instance over it, a site, users and documents.

The instance's files get the lines that docs/plone.md names, and nothing else.  The process of the
tests opens the same zope.conf, as a console would, to make the site and to look into it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.plone.page import block, write_examples
from tests.support.zope_instance import ADMIN, SCRIPTS, SECONDS, ZopeInstance, free_port

SITE = "Plone"
PATIENCE = 300  # seconds
EDITOR, ANNA, MEMBER, CHIEF = (
    (name, "a long secret") for name in ("editor", "anna", "member", "chief")
)
ROLES = {
    "editor": ["Member", "Contributor", "Editor", "Reviewer"],
    "anna": ["Member", "Contributor", "Editor", "Reviewer"],
    "member": ["Member"],
    "chief": ["Member", "Site Administrator"],
}
JSON = {"Accept": "application/json", "Content-Type": "application/json"}

# Instead of what docs/plone.md says: the queue in a database of its own.
JOBS_STORAGE = """
<filestorage 2>
  path {home}/jobs.fs
</filestorage>
"""
TWO_DATABASES_CONF = """
%import zasync.integrations.zope
<zodb_db async>
  <zeoclient>
    server 127.0.0.1:{port}
    storage 2
  </zeoclient>
  mount-point /async
</zodb_db>
<zasync jobs>
  database async
  size 2
  poll-interval 1s
</zasync>
"""
# The tests' own code in the worker; see `meddling`.
MEDDLING_ZCML = f'<include file="{Path(__file__).with_name("meddling.zcml")}" />'


@dataclass(frozen=True)
class Answer:
    """What the server has answered."""

    status: int
    headers: Any
    body: str


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects)


def _answer(response: Any) -> Answer:
    body = response.read().decode("utf-8", "replace")
    return Answer(response.status, response.headers, body)


class ZeoProcess:
    """A ZEO server over a FileStorage, as a process of its own."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self.port = free_port()
        self.home = home
        conf = home / "zeo.conf"
        conf.write_text(self.placed(block("zeo.conf")) + JOBS_STORAGE.format(home=home))
        self._log = (home / "zeo.log").open("wb")
        self._process = subprocess.Popen(
            [str(SCRIPTS / "runzeo"), "-C", str(conf)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=home,
        )

    def placed(self, text: str) -> str:
        """A text of the documentation, with our port and our directory."""
        return text.replace("8100", str(self.port)).replace("instance/var", str(self.home))

    def end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(SECONDS)
        self._log.close()


class PloneInstance(ZopeInstance):
    """An instance of Zope with the site `Plone` in it."""

    def __init__(self, home: Path, zeo: ZeoProcess, *, two_databases: bool = False) -> None:
        examples = home.parent / "examples"
        write_examples(examples)
        sys.path.append(str(examples))  # this process opens the instance, too
        paths = os.pathsep.join([str(Path(__file__).parents[2]), str(examples)])
        storage = zeo.placed(block("in <zodb_db main> of zope.conf"))
        super().__init__(home, storage, python_path=Path(paths))
        self.edit("zope.conf", lambda text: f"%import ZEO\n{text}")
        conf = block("at the end of zope.conf")
        if two_databases:
            conf = TWO_DATABASES_CONF.format(port=zeo.port)
        self.add_to_conf(conf)
        self.add_to_zcml(MEDDLING_ZCML)
        self.add_to_zcml(f'<include file="{examples / "words.zcml"}" />')
        self._changes = 0
        self.signs = home / "signs"
        self.signs.mkdir()

    @property
    def conf(self) -> Path:
        return self.home / "etc" / "zope.conf"

    @property
    def plone(self) -> str:
        """The address of the site."""
        return f"{self.site}/{SITE}"

    @property
    def themed(self) -> str:
        """The address for browsers: Plone shows pages without a theme at 127.0.0.1."""
        return self.site.replace("127.0.0.1", "localhost")

    def open_here(self) -> None:
        """Have this process be a client of the database, too.  Once only."""
        from Zope2.Startup.run import make_wsgi_app

        make_wsgi_app({}, str(self.conf))

    @contextlib.contextmanager
    def changed(self) -> Iterator[Any]:
        """The site, to be changed by its manager; then committed, and known to the web process."""
        with site_here(as_admin=True) as site:
            yield site
            self._changes += 1
            site.setDescription(f"change {self._changes}")
            commit()
        self.wait_until(self._is_known, "the web process has heard of the change")

    def _is_known(self) -> bool:
        _, document = self.rest("", CHIEF)
        return bool(document.get("description") == f"change {self._changes}")

    def wait_until(self, condition: Callable[[], Any], what: str) -> None:
        """Look again and again; Plone is slow to start where much else is going on."""
        pause = threading.Event()
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"in vain: {what}\n{self.logs()}"
            pause.wait(0.1)

    # Requests, as a program sends them

    def get(
        self,
        path: str,
        user: tuple[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        data: bytes | None = None,
        method: str | None = None,
    ) -> Answer:
        """Send a request; redirects are not followed, and errors are answers too."""
        url = path if path.startswith("http") else f"{self.plone}/{path}"
        request = urllib.request.Request(url, data, dict(headers or {}), method=method)
        if user is not None:
            given = base64.b64encode(":".join(user).encode()).decode()
            request.add_header("Authorization", f"Basic {given}")
        try:
            with _opener.open(request, timeout=SECONDS) as answer:
                return _answer(answer)
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error)

    def post(self, path: str, fields: Mapping[str, Any], user: tuple[str, str] | None) -> Answer:
        """Send a form."""
        return self.get(path, user, data=urllib.parse.urlencode(fields).encode())

    def rest(
        self,
        path: str,
        user: tuple[str, str] | None,
        body: Any = None,
        *,
        method: str | None = None,
    ) -> tuple[Answer, Any]:
        """Send a request to the REST API of the site; the answer, and its document."""
        data = None if body is None else json.dumps(body).encode()
        answer = self.get(path, user, JSON, data=data, method=method)
        document = json.loads(answer.body) if answer.body else None
        return answer, document

    def finished(self, url: str, user: tuple[str, str]) -> dict[str, Any]:
        """Ask until the job has ended, as a client does; its document then."""
        found: list[Any] = []

        def has_ended() -> bool:
            answer, document = self.rest(url, user)
            found[:] = [document]
            assert answer.status in (200, 202), answer.body
            return answer.status == 200

        self.wait_until(has_ended, f"the job at {url} has ended")
        return dict(found[0])


@contextlib.contextmanager
def plone_instance(directory: Path, *, two_databases: bool = False) -> Iterator[PloneInstance]:
    """An instance with a site in it; this process is a client of its database."""
    zeo = ZeoProcess(directory / "zeo")
    instance = None
    try:
        instance = PloneInstance(directory / "instance", zeo, two_databases=two_databases)
        instance.open_here()
        with site_here(as_admin=True, make=True) as site:
            add_users(site)
        yield instance
    finally:
        if instance is not None:
            instance.end()
        close_here()
        zeo.end()


@contextlib.contextmanager
def site_here(*, as_admin: bool = False, make: bool = False) -> Iterator[Any]:
    """The site, in a connection of this process; what is not committed is aborted."""
    import transaction
    import Zope2
    from AccessControl.SecurityManagement import newSecurityManager, noSecurityManager
    from Testing.makerequest import makerequest
    from zope.component.hooks import setSite
    from zope.globalrequest import clearRequest, setRequest

    transaction.abort()
    app = makerequest(Zope2.app())
    setRequest(app.REQUEST)
    try:
        if as_admin:
            newSecurityManager(None, app.acl_users.getUser(ADMIN[0]).__of__(app.acl_users))
        if make:
            make_site(app)
        setSite(app[SITE])
        yield app[SITE]
    finally:
        transaction.abort()
        noSecurityManager()
        setSite(None)
        clearRequest()
        app._p_jar.close()


def make_site(app: Any, name: str = SITE) -> None:
    """A site with zasync installed in it.  Commits."""
    from Products.CMFPlone.factory import addPloneSite

    addPloneSite(
        app,
        name,
        title="Example",
        extension_ids=(
            "plone.app.contenttypes:default",
            "plonetheme.barceloneta:default",
            "zasync.integrations.plone:default",
        ),
    )
    commit()


def commit() -> None:
    import transaction

    transaction.commit()


def add_users(site: Any) -> None:
    """The users of ROLES.  Commits."""
    for name, password in (EDITOR, ANNA, MEMBER, CHIEF):
        site.acl_users.userFolderAddUser(name, password, ROLES[name], [])
    commit()


def add_documents(site: Any, folder_id: str, count: int) -> list[str]:
    """A folder with `count` private documents; their paths in the site.  Commits."""
    from plone.dexterity.utils import createContentInContainer

    versioned = site.portal_repository.getVersionableContentTypes()
    site.portal_repository.setVersionableContentTypes([])  # a first version costs as much again
    folder = createContentInContainer(site, "Folder", checkConstraints=False, id=folder_id)
    for number in range(count):
        createContentInContainer(
            folder,
            "Document",
            checkConstraints=False,
            id=f"d{number}",
            title=f"Document {number}",
        )
        if number % 100 == 99:
            commit()
    site.portal_repository.setVersionableContentTypes(versioned)
    commit()
    return [f"/{folder_id}/d{number}" for number in range(count)]


def close_here() -> None:
    """Let go of the database."""
    import Zope2

    if getattr(Zope2, "DB", None) is not None:
        for db in set(Zope2.DB.databases.values()):
            db.close()
