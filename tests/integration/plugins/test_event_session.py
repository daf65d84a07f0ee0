# SPDX-License-Identifier: ZPL-2.1
"""Sessions with server-sent events, against a real HTTP server on the loopback."""

from __future__ import annotations

import queue
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import handlers
from tests.support.chat import Chat
from tests.support.running import Runner, Site
from tests.support.servers import HttpServer
from zasync.plugins import addresses, credentials
from zasync.plugins.addresses import RefusedAddress
from zasync.plugins.credentials import Credential, CredentialError
from zasync.plugins.errors import ExtraMissing
from zasync.plugins.session import SessionStatus, holder
from zasync.plugins.session.events import EndedByServer

pytestmark = pytest.mark.usefixtures("loopback", "quick")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost connection is made again at once; the outbox is looked at after hints only."""
    monkeypatch.setattr(holder, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(holder, "LONGEST_PAUSE", 0.1)
    monkeypatch.setattr(holder, "LOOK_EVERY", 3600.0)


class EventServer(HttpServer):
    """Streams what a test puts in `say`; an empty text cuts the connection."""

    def __init__(self) -> None:
        super().__init__()
        self.say: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.type = "text/event-stream; charset=utf-8"
        self.posted: list[tuple[str, Any]] = []
        self.status: list[int] = []  # of the next answers to what is posted
        self.answers |= {"/events": self._stream, "/send": self._take}

    def _stream(self, handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", self.type)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.flush()
        while text := self.say.get():
            handler.wfile.write(text.encode())
        handler.close_connection = True

    def _take(self, handler: Any) -> None:
        _, headers, body = self.requests[-1]
        self.posted.append((body.decode(), headers["Content-Type"]))
        handler.reply(b"", status=self.status.pop(0) if self.status else 204)

    def stop(self) -> None:
        for _ in range(10):
            self.say.put("")
        super().stop()

    def streams(self) -> list[dict[str, str]]:
        """The headers of the requests for events."""
        return [headers for path, headers, _ in self.requests if path == "/events"]


@pytest.fixture
def server() -> Iterator[EventServer]:
    server = EventServer()
    yield server
    server.stop()


@pytest.fixture
def chat(site: Site, runner: Runner) -> Iterator[Chat]:
    chat = Chat(site)
    yield chat
    for session in site.sees(lambda: list(chat.sessions)):
        chat.close(session)


def test_events_become_jobs_and_what_is_put_is_posted(chat: Chat, server: EventServer) -> None:
    session = chat.open(server, "events")
    server.say.put(": a comment\n\ndata: hello\n\nid: 7\nevent: news\ndata: two\ndata: lines\n\n")
    chat.send(session, "Ähem", "more")

    chat.until_heard("hello", "two\nlines")
    chat.site.until(lambda: len(server.posted) == 2, "the messages")
    assert [about for _, about in dict(chat.site.root["heard"].items()).values()] == [
        {"number": 1, "event": "message"},
        {"number": 2, "event": "news", "id": "7"},
    ]
    assert server.posted == [
        ("Ähem", "text/plain; charset=utf-8"),
        ("more", "text/plain; charset=utf-8"),
    ]
    assert server.streams()[0]["Accept"] == "text/event-stream"
    assert "Last-Event-ID" not in server.streams()[0]


def test_a_stream_that_is_cut_goes_on_after_the_last_event(chat: Chat, server: EventServer) -> None:
    chat.open(server, "events")
    server.say.put("id: 41\ndata: one\n\nid: 42\ndata: two\n\ndata: half of")
    chat.until_heard("one", "two")
    server.say.put("")
    chat.site.until(lambda: len(server.streams()) == 2, "the next request")
    server.say.put("id: 43\ndata: three\n\n")

    chat.until_heard("one", "two", "three")
    assert server.streams()[1]["Last-Event-ID"] == "42"


def test_a_message_that_is_refused_for_good_is_counted_and_the_next_one_sent(
    chat: Chat, server: EventServer
) -> None:
    server.status = [400, 200]
    session = chat.open(server, "events")
    chat.send(session, "bad", "good")

    chat.site.until(lambda: session.state.sent == 1, "the good one")
    assert [text for text, _ in server.posted] == ["bad", "good"]
    assert session.state.refused == 1
    assert session.state.error == f"{server.url('/send')} answered with 400"


def test_a_message_that_is_refused_for_now_is_sent_again(chat: Chat, server: EventServer) -> None:
    server.status = [503, 429, 200]
    session = chat.open(server, "events")
    chat.send(session, "patience")

    server.say.put("")
    chat.site.until(lambda: session.state.sent == 1, "it")
    assert [text for text, _ in server.posted] == ["patience"] * 3
    assert session.state.refused == 0


@pytest.mark.parametrize("status", [204, 401, 403, 404, 410])
def test_a_server_that_says_no_for_good_is_not_asked_again(
    chat: Chat, server: EventServer, status: int
) -> None:
    server.answers["/events"] = lambda handler: handler.reply(b"", status=status)
    session = chat.open(server, "events")
    chat.until(session, SessionStatus.FAILED)

    assert session.job.result.type is EndedByServer
    assert len(server.streams()) == 1


@pytest.mark.parametrize("status", [500, 302, 429])
def test_a_server_that_says_no_for_now_is_asked_again(
    chat: Chat, server: EventServer, status: int
) -> None:
    stream = server.answers["/events"]
    server.answers["/events"] = lambda handler: handler.reply(b"", status=status)
    session = chat.open(server, "events")
    chat.site.until(lambda: session.state.attempts > 2, "several attempts")
    assert session.state.error == f"{server.url('/events')} answered with {status}"

    server.answers["/events"] = stream
    server.say.put("data: at last\n\n")
    chat.until_heard("at last")


def test_what_are_no_events_is_told(chat: Chat, server: EventServer) -> None:
    server.type = "text/html"
    session = chat.open(server, "events")

    chat.site.until(lambda: "sends text/html, and no events" in session.state.error, "the error")


def test_one_that_only_listens_cannot_send(chat: Chat, server: EventServer) -> None:
    session = chat.open({"url": server.url("/events")}, "events")

    with pytest.raises(ValueError, match="only listens"):
        session.send("hello")


def test_credentials_and_headers_are_sent_to_their_hosts(chat: Chat, server: EventServer) -> None:
    credentials.provide("feed", Credential("", "hush", ("127.0.0.1",), plain=True))
    session = chat.open(
        {
            "url": server.url("/events"),
            "send_url": server.url("/send", "localhost"),
            "credential": "feed",
            "headers": {"X-Room": "7"},
            "content_type": "application/json",
        },
        "events",
    )
    server.say.put("data: x\n\n")
    chat.until_heard("x")
    assert server.streams()[0]["Authorization"] == "Bearer hush"
    assert server.streams()[0]["X-Room"] == "7"

    chat.send(session, "{}")  # to a host that the credential is not for
    chat.until(session, SessionStatus.FAILED)
    assert session.job.result.type is CredentialError
    assert server.posted == []


def test_a_private_address_is_refused(chat: Chat, server: EventServer) -> None:
    addresses.forbid_all()
    session = chat.open(server, "events")
    chat.until(session, SessionStatus.FAILED)

    assert session.job.result.type is RefusedAddress
    assert server.requests == []


def test_a_worker_without_the_package_says_how_to_get_it(
    chat: Chat, server: EventServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zasync.plugins

    monkeypatch.delitem(sys.modules, "zasync.plugins.aiohttp", raising=False)
    monkeypatch.delattr(zasync.plugins, "aiohttp", raising=False)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    session = chat.open(server, "events")
    chat.until(session, SessionStatus.FAILED)

    assert session.job.result.type is ExtraMissing
    assert "install 'zasync[http]' there" in session.job.result.getErrorMessage()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "ftp://example.com/"}, "only http and https"),
        ({}, "a URL is text"),
        ({"url": "http://a/", "send_url": "http://x:y@a/"}, "a user or a password"),
        ({"url": "http://a/", "headers": {"Authorization": "x"}}, "name a credential instead"),
        ({"url": "http://a/", "content_type": "a\r\nb"}, "characters that none may have"),
        ({"url": "http://a/", "idle_timeout": 0}, "idle_timeout is more than 0"),
        ({"url": "http://a/", "token": "hush"}, "no option 'token'"),
    ],
)
def test_options_must_make_sense(site: Site, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Chat(site).open(options, "events", handlers.hear)
