# SPDX-License-Identifier: ZPL-2.1
"""Sessions in a database, as requests see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from BTrees.OOBTree import OOBTree

from tests.support import handlers
from tests.support.running import Site
from tests.support.servers import HttpServer, LineServer
from zasync.plugins.session import Session, Sessions, SessionStatus


class Chat:
    """Opens sessions, and looks at them and at what they have heard."""

    def __init__(self, site: Site) -> None:
        self.site = site
        site.commit(self._install)

    def _install(self) -> None:
        root = self.site.root
        if "sessions" not in root:
            root["sessions"] = Sessions()
            root["heard"] = OOBTree()

    @property
    def sessions(self) -> Sessions:
        return self.site.root["sessions"]  # type: ignore[no-any-return]

    def open(
        self,
        to: LineServer | HttpServer | Mapping[str, Any],
        driver: Any = "lines",
        handler: Any = handlers.hear,
        **options: Any,
    ) -> Session:
        """Open a session, in a transaction, with a server or with these options of a driver."""
        if isinstance(to, LineServer):
            to = {"host": "127.0.0.1", "port": to.port}
        elif isinstance(to, HttpServer):
            to = {"url": to.url("/events"), "send_url": to.url("/send")}
        options.setdefault("owner", "ada")
        return self.site.commit(  # type: ignore[no-any-return]
            lambda: self.sessions.open(
                driver, to, queue=self.site.queue, handler=handler, **options
            )
        )

    def send(self, session: Session, *texts: str) -> None:
        self.site.commit(lambda: [session.send(text) for text in texts])

    def close(self, session: Session, reason: str = "closed") -> Any:
        return self.site.commit(lambda: session.close(reason))

    def until(self, session: Session, status: SessionStatus, seconds: float = 30) -> None:
        def reached() -> bool:
            assert not session.has_ended or status == session.status, session.job.result
            return session.status is status

        self.site.until(reached, f"the session to be {status}", seconds)

    def heard(self, owner: str = "ada") -> list[str]:
        """What the handlers have kept, in the order in which it was heard."""
        kept = self.site.sees(lambda: list(self.site.root["heard"].items()))
        return [text for (whose, _), (text, _) in kept if whose == owner]

    def until_heard(self, *texts: str, owner: str = "ada", seconds: float = 30) -> None:
        self.site.until(
            lambda: self.heard(owner) == list(texts), f"{texts}, not {self.heard(owner)}", seconds
        )
