# SPDX-License-Identifier: ZPL-2.1
"""An application over a FileStorage, a dispatcher with it around the jobs, and a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import webtest
from pyramid.config import global_registries

from tests.integrations.pyramid import application
from tests.support.running import Site, running
from zasync.integrations.pyramid.surroundings import around_job
from zasync.storage import close_database


class Web:
    """The application, how users see it, and how a test does."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.app = application.configured(settings).make_wsgi_app()
        self.registry = self.app.registry
        self.db = self.registry._zodb_databases[""]
        self.site = Site(self.db)

    def user(self, name: str | None = None) -> webtest.TestApp:
        """The application as this user sees it; None for one who has not logged in."""
        headers = {} if name is None else {"HTTP_X_USER": name}
        return webtest.TestApp(self.app, extra_environ=headers)

    @property
    def shop(self) -> Any:
        self.site.manager.begin()
        return self.site.root["shop"]

    def working(self) -> Any:
        """A dispatcher that performs the jobs, with the application around them."""
        return running(self.db, poll_interval=0.05, around_job=around_job(self.registry))

    def close(self) -> None:
        self.site.close()
        close_database(self.db)


@pytest.fixture
def open_web(tmp_path: Path) -> Iterator[Callable[..., Web]]:
    """`open_web(**settings)`: dots in names are written as two underscores."""
    application.requests.clear()
    with ExitStack() as stack:

        def opened(**settings: Any) -> Web:
            named = {name.replace("__", "."): value for name, value in settings.items()}
            defaults = {"zodbconn.uri": f"file://{tmp_path}/Data.fs", "shop.name": "Ada's"}
            web = Web(defaults | named)
            stack.callback(web.close)
            return web

        yield opened
    global_registries.empty()


@pytest.fixture
def web(open_web: Callable[..., Web]) -> Web:
    return open_web()
