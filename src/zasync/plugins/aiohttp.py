# SPDX-License-Identifier: ZPL-2.1
"""HTTP for `http_fetch` and for sessions.  Of all of zasync, only this module imports aiohttp."""

from __future__ import annotations

import asyncio
import base64
import builtins
import contextlib
import socket
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

import aiohttp

from zasync.foundation.text import printable, safe_str
from zasync.interfaces import TimeoutError
from zasync.plugins import credentials
from zasync.plugins.addresses import RefusedAddress, check_address
from zasync.plugins.errors import FetchError, HttpStatusError
from zasync.plugins.urls import check_url, shown

CHUNK = 2**16
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LONGEST_VALUE = 200  # characters of a header that is kept


class Receiver(Protocol):
    """Where the data of a download goes."""

    def expect(self, total: int | None) -> None: ...

    def add(self, data: bytes) -> None: ...


class Client:
    """An HTTP client that connects to allowed addresses only, and takes nothing from the
    environment: no proxies, no cookies, no passwords.
    """

    def __init__(self, *, connect_timeout: float, read_timeout: float | None) -> None:
        self._refused: list[RefusedAddress] = []
        self._host = ""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(socket_factory=self._socket, force_close=True),
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=connect_timeout,
                sock_connect=connect_timeout,
                sock_read=read_timeout,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"User-Agent": "zasync", "Accept-Encoding": "identity"},
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._session.close()

    def _socket(self, info: Any) -> socket.socket:
        """Called for each address just before it is connected to."""
        family, kind, protocol, _, address = info
        try:
            check_address(address[0], self._host)
        except RefusedAddress as error:
            self._refused.append(error)
            raise
        return socket.socket(family, kind, protocol)

    @contextlib.asynccontextmanager
    async def request(
        self, url: str, *, method: str = "GET", headers: Mapping[str, str], data: str | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to one request, without redirects.  What goes wrong is a FetchError."""
        parts = urllib.parse.urlsplit(url)
        self._host = parts.hostname or ""
        self._refused.clear()
        try:
            async with self._session.request(
                method,
                url,
                headers=headers,
                data=None if data is None else data.encode(),
                allow_redirects=False,
            ) as response:
                yield response
        except (aiohttp.ClientError, builtins.TimeoutError, ValueError) as error:
            raise self._told(error, shown(parts)) from None

    def _told(self, error: Exception, url: str) -> Exception:
        """The error in our words."""
        if self._refused:
            return self._refused[0]
        if isinstance(error, aiohttp.ServerTimeoutError):
            return TimeoutError(f"{url} does not answer in the time allowed for that")
        if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
            return FetchError(f"the certificate of {url} is refused: {safe_str(error, 300)}")
        if isinstance(error, aiohttp.ClientPayloadError):
            return FetchError(f"{url} broke off: the answer is not complete")
        if isinstance(error, aiohttp.ClientConnectorError):
            return FetchError(f"{url} cannot be reached: {safe_str(error.os_error, 300)}")
        if isinstance(error, aiohttp.ClientError):
            kind = type(error).__name__
            return FetchError(f"{url}: {kind} {printable(safe_str(error, 300), one_line=True)}")
        return error


def authorization(name: str | None, url: str) -> dict[str, str]:
    """The header that the credential `name` is sent in; CredentialError if it must not go there."""
    if name is None:
        return {}
    parts = urllib.parse.urlsplit(url)
    encrypted = parts.scheme == "https"
    credential = credentials.find(name)
    credential.check_host(
        name, parts.hostname or "", parts.port or (443 if encrypted else 80), encrypted=encrypted
    )
    if not credential.user:
        return {"Authorization": f"Bearer {credential.secret}"}
    pair = f"{credential.user}:{credential.secret}".encode()
    return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}


async def fetch(
    url: str,
    receiver: Receiver,
    *,
    timeout: float,
    connect_timeout: float,
    redirects: int,
    headers: Mapping[str, str],
    credential: str | None,
) -> dict[str, Any]:
    """Download `url` into `receiver`; answers what the server says about it."""
    try:
        async with (
            asyncio.timeout(timeout) as limit,
            Client(connect_timeout=connect_timeout, read_timeout=connect_timeout) as client,
        ):
            secret = authorization(credential, url)
            return await _follow(client, url, receiver, redirects, headers, secret)
    except builtins.TimeoutError:
        if not limit.expired():
            raise
        raise TimeoutError(
            f"the download of {shown(check_url(url))} took longer than {timeout:g} s"
        ) from None


async def _follow(
    client: Client,
    url: str,
    receiver: Receiver,
    redirects: int,
    headers: Mapping[str, str],
    secret: Mapping[str, str],
) -> dict[str, Any]:
    """Request `url`, and what that redirects to."""
    sent = {**headers, **secret}
    for _ in range(redirects + 1):
        async with client.request(url, headers=sent) as response:
            if response.status not in _REDIRECTS:
                return await _receive(response, url, receiver)
            target = _target(url, response.headers.get("Location"))
        if _origin(target) != _origin(url):
            sent = {}  # what is meant for one server is not sent to another
        url = target
    raise FetchError(f"more than {redirects} redirects, the last to {shown(check_url(url))}")


def _target(url: str, location: str | None) -> str:
    """Where a redirect leads.  FetchError if that is nowhere, or somewhere it must not."""
    origin = shown(urllib.parse.urlsplit(url))
    if location is None:
        raise FetchError(f"{origin} redirects, and does not say where to")
    try:
        target = urllib.parse.urldefrag(urllib.parse.urljoin(url, location)).url
        check_url(target)
    except ValueError as error:
        raise FetchError(f"{origin} redirects to what is not followed: {error}") from None
    if url.startswith("https:") and not target.startswith("https:"):
        raise FetchError(f"{origin} redirects from https to http, which is not followed")
    return target


def _origin(url: str) -> tuple[Any, ...]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


async def _receive(
    response: aiohttp.ClientResponse, url: str, receiver: Receiver
) -> dict[str, Any]:
    where = shown(urllib.parse.urlsplit(url))
    if not 200 <= response.status < 300:
        raise HttpStatusError(f"{where} answered with {response.status}", response.status)
    receiver.expect(response.content_length)
    async for data in response.content.iter_chunked(CHUNK):
        receiver.add(data)

    def told(name: str) -> str:
        return printable(response.headers.get(name, ""), one_line=True)[:_LONGEST_VALUE]

    return {
        "url": where,
        "status": response.status,
        "content_type": told("Content-Type"),
        "content_encoding": told("Content-Encoding"),
        "etag": told("ETag"),
        "last_modified": told("Last-Modified"),
    }
