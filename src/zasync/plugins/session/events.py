# SPDX-License-Identifier: ZPL-2.1
"""Server-sent events over HTTP; what is sent goes by POST.  The extra `http` is needed.

The format is that of the HTML standard, section 9.2.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from zasync.plugins.errors import ExtraMissing, FetchError, HttpStatusError
from zasync.plugins.http_fetch import check_headers
from zasync.plugins.session.drivers import CONNECT_TIMEOUT, Connection, Heard, check_known
from zasync.plugins.urls import check_url, shown

LARGEST_EVENT = 2**20  # characters
LARGEST_MESSAGE = 2**20  # bytes
SEND_TIMEOUT = 60.0  # seconds


class EventDriver:
    """A stream of server-sent events, taken up again after the last one that was heard.

    Options: `url`; `send_url`, to which messages are posted, without which nothing can be sent;
    `content_type` of these (text/plain; charset=utf-8); `headers`; `credential`, the name of one
    of the worker's; `connect_timeout` (30 s); `idle_timeout`: after so many seconds without a byte
    the connection counts as lost (never).
    """

    OPTIONS: Mapping[str, Any] = {
        "url": str,
        "send_url": str,
        "content_type": str,
        "headers": Mapping,
        "credential": str,
        "connect_timeout": (int, float),
        "idle_timeout": (int, float),
    }

    def check_options(self, options: Mapping[str, Any]) -> None:
        check_known(options, self.OPTIONS)
        check_url(options.get("url"))
        if "send_url" in options:
            check_url(options["send_url"])
        check_headers(options.get("headers", {}))
        check_headers({"Content-Type": options.get("content_type", "")})
        for name in ("connect_timeout", "idle_timeout"):
            if not options.get(name, 1) > 0:
                raise ValueError(f"{name} is more than 0 seconds, not {options[name]!r}")

    def check_message(self, options: Mapping[str, Any], text: str) -> None:
        if "send_url" not in options:
            raise ValueError("this session only listens: it was opened without a send_url")
        if len(text.encode()) > LARGEST_MESSAGE:
            raise ValueError(f"a message has at most {LARGEST_MESSAGE} bytes")

    async def connect(self, options: Mapping[str, Any], resume: str) -> Connection:
        try:
            from zasync.plugins import aiohttp
        except ImportError as error:
            raise ExtraMissing(
                f"a session with events needs a package that this worker lacks ({error}):"
                " install 'zasync[http]' there"
            ) from None
        url = options["url"]
        headers = {
            **options.get("headers", {}),
            **aiohttp.authorization(options.get("credential"), url),
            "Accept": "text/event-stream",
            "Cache-Control": "no-store",
        }
        if resume:
            headers["Last-Event-ID"] = resume.encode().decode("latin-1")
        stack = contextlib.AsyncExitStack()
        try:
            client = await stack.enter_async_context(_client(aiohttp, options))
            response = await stack.enter_async_context(client.request(url, headers=headers))
            _check_response(response, url)
        except BaseException:
            await stack.aclose()
            raise
        return _Events(options, stack, response, aiohttp)


def _client(aiohttp: Any, options: Mapping[str, Any]) -> Any:
    return aiohttp.Client(
        connect_timeout=options.get("connect_timeout", CONNECT_TIMEOUT),
        read_timeout=options.get("idle_timeout"),
    )


def _check_response(response: Any, url: str) -> None:
    where = shown(check_url(url))
    if response.status in (204, 401, 403, 404, 410):  # asking again would not help
        raise EndedByServer(f"{where} answered with {response.status}")
    if response.status != 200:
        raise HttpStatusError(f"{where} answered with {response.status}", response.status)
    if response.content_type != "text/event-stream":
        raise FetchError(f"{where} sends {response.content_type}, and no events")


class EndedByServer(FetchError, PermissionError):
    """The server says that there is nothing to be heard, now or later."""


class Refused(ValueError):
    """The other side does not take this message, and would not take it later."""


class _Events:
    """An open stream."""

    def __init__(
        self, options: Mapping[str, Any], stack: contextlib.AsyncExitStack, response: Any, http: Any
    ) -> None:
        self._options = options
        self._stack = stack
        self._http = http
        self._events = self._read(response)

    async def _read(self, response: Any) -> AsyncIterator[Heard]:
        parser = EventParser()
        async for data in response.content.iter_any():
            for heard in parser.feed(data):
                yield heard

    async def receive(self) -> Heard | None:
        return await anext(self._events, None)

    async def send(self, text: str) -> None:
        url = self._options["send_url"]
        headers = {
            "Content-Type": self._options.get("content_type", "text/plain; charset=utf-8"),
            **self._options.get("headers", {}),
            **self._http.authorization(self._options.get("credential"), url),
        }
        client = self._http.Client(
            connect_timeout=self._options.get("connect_timeout", CONNECT_TIMEOUT),
            read_timeout=SEND_TIMEOUT,
        )
        async with client, client.request(url, method="POST", headers=headers, data=text) as answer:
            where = f"{shown(check_url(url))} answered with {answer.status}"
            if 400 <= answer.status < 500 and answer.status not in (408, 425, 429):
                raise Refused(where)
            if not 200 <= answer.status < 300:
                raise HttpStatusError(where, answer.status)

    async def close(self) -> None:
        await self._events.aclose()  # type: ignore[attr-defined]
        await self._stack.aclose()


class EventParser:
    """Makes events of the bytes of a stream, however they are cut."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []
        self._event = ""
        self._id = ""
        self._size = 0
        self._first = True

    def feed(self, data: bytes) -> list[Heard]:
        """The events that `data` completes.  ConnectionError if one is too large."""
        found = []
        for line in self._lines(data):
            if line == "":
                if self._data:
                    found.append(Heard("\n".join(self._data), self._event or "message", self._id))
                self._data, self._event, self._size = [], "", 0
            else:
                self._field(line)
        return found

    def _lines(self, data: bytes) -> list[str]:
        self._rest += data
        held_back = b""
        if self._rest.endswith(b"\r"):  # a line feed may follow, which belongs to it
            self._rest, held_back = self._rest[:-1], b"\r"
        normal = self._rest.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = normal.split(b"\n")
        self._rest = rest + held_back
        if len(self._rest) > LARGEST_EVENT:
            raise ConnectionError(f"an event of more than {LARGEST_EVENT} bytes has come")
        texts = [line.decode(errors="replace") for line in lines]
        if texts and self._first:
            texts[0] = texts[0].removeprefix("\ufeff")
            self._first = False
        return texts

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        self._size += len(line)
        if self._size > LARGEST_EVENT:
            raise ConnectionError(f"an event of more than {LARGEST_EVENT} bytes has come")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
