# SPDX-License-Identifier: ZPL-2.1
"""The plugin `http_fetch`: download something, however big, into a blob.

It is a coroutine: while it waits for the network there is neither a transaction nor a thread.
The data goes to a file, and into a blob in the transaction in which the job ends.  What speaks
HTTP is in `zasync.plugins.aiohttp`, which needs the extra `http`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

from ZODB.blob import Blob

from zasync import local
from zasync.foundation import clock
from zasync.foundation.text import printable, safe_repr
from zasync.job import Landing
from zasync.plugins.backstage import backstage
from zasync.plugins.errors import ExtraMissing, TooLarge
from zasync.plugins.fetched import Fetched
from zasync.plugins.files import Download
from zasync.plugins.noting import Progress
from zasync.plugins.registry import Plugin
from zasync.plugins.urls import check_url

MEGABYTE = 2**20
LIMIT = 100 * MEGABYTE
TIMEOUT = 3600.0  # seconds for all of it
CONNECT_TIMEOUT = 30.0  # seconds to connect, and without any data
REDIRECTS = 5

_FORBIDDEN_HEADERS = frozenset({"authorization", "cookie", "host", "proxy-authorization"})


async def http_fetch(
    url: str,
    *,
    limit: int = LIMIT,
    timeout: float = TIMEOUT,
    connect_timeout: float = CONNECT_TIMEOUT,
    redirects: int = REDIRECTS,
    headers: Mapping[str, str] | None = None,
    credential: str | None = None,
    sha256: str | None = None,
) -> Any:
    """Download `url` into a blob; the job's result is a `zasync.plugins.fetched.Fetched`.

    At most `limit` bytes, in `timeout` seconds, with `connect_timeout` for a connection and for
    each wait for data.  Up to `redirects` redirects are followed.  `credential` names one of the
    worker's (see `zasync.plugins.credentials`), and is sent to its hosts only.  The data must have
    the checksum `sha256`, if that is given.

    FetchError, HttpStatusError, TooLarge, TimeoutError, RefusedAddress, CredentialError, NoBlobs,
    ExtraMissing.
    """
    check(
        url,
        limit=limit,
        timeout=timeout,
        connect_timeout=connect_timeout,
        redirects=redirects,
        headers=headers,
        credential=credential,
        sha256=sha256,
    )
    job = local.getJob()
    db = job._p_jar.db()
    download = Download(db)
    try:
        fetch = _client()
        async with backstage(db) as stage:
            progress = Progress(stage, job)
            counter = _Counter(download, limit, progress)
            answer = await fetch(
                url,
                counter,
                timeout=timeout,
                connect_timeout=connect_timeout,
                redirects=redirects,
                headers=dict(headers or {}),
                credential=credential,
            )
        counter.check(sha256)
        download.close()
    except BaseException:
        download.discard()
        raise
    known = {**answer, "size": counter.size, "sha256": counter.digest, "fetched_at": clock.now()}
    return Landing(_keep, download, known)


def _keep(download: Download, known: dict[str, Any]) -> Fetched:
    """Called in the transaction in which the job ends, again after a conflict."""
    connection = local.getJob()._p_jar
    blob = Blob()
    connection.add(blob)  # so that its file is made on the storage's own disk
    blob.consumeFile(download.copy())
    ending = connection.transaction_manager.get()
    ending.addAfterCommitHook(lambda committed: download.discard() if committed else None)
    return Fetched(blob, **known)


def _client() -> Any:
    try:
        from zasync.plugins.aiohttp import fetch
    except ImportError as error:
        raise ExtraMissing(
            f"http_fetch needs a package that this worker lacks ({error}):"
            " install 'zasync[http]' there"
        ) from None
    return fetch


class _Counter:
    """Takes what arrives: into the file, into the checksum, and against the limit."""

    def __init__(self, download: Download, limit: int, progress: Progress) -> None:
        self.size = 0
        self.total: int | None = None
        self._download = download
        self._limit = limit
        self._progress = progress
        self._hash = hashlib.sha256()

    def expect(self, total: int | None) -> None:
        """The server says how many bytes there are, or does not."""
        if total is not None and total > self._limit:
            raise TooLarge(
                f"the server has {total:,} bytes for us, and the limit is {self._limit:,}"
            )
        self.total = total

    def add(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self._limit:
            raise TooLarge(f"more than {self._limit:,} bytes have come, which is the limit")
        self._download.write(data)
        self._hash.update(data)
        self._progress.note(self._text(), self.size, self.total)

    def _text(self) -> str:
        if self.total:
            return f"{self.size / MEGABYTE:.1f} of {self.total / MEGABYTE:.1f} MiB"
        return f"{self.size / MEGABYTE:.1f} MiB"

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def check(self, sha256: str | None) -> None:
        if sha256 is not None and sha256.lower() != self.digest:
            raise ValueError(f"the data has the SHA-256 {self.digest}, and not {sha256.lower()}")


def check(
    url: str,
    *,
    limit: int = LIMIT,
    timeout: float = TIMEOUT,
    connect_timeout: float = CONNECT_TIMEOUT,
    redirects: int = REDIRECTS,
    headers: Mapping[str, str] | None = None,
    credential: str | None = None,
    sha256: str | None = None,
) -> None:
    """What is wrong with the arguments is said where the job is made: ValueError, TypeError."""
    check_url(url)
    _check_number("limit", limit, 0, 2**50, whole=True)
    _check_number("timeout", timeout, 0, 7 * 86400)
    _check_number("connect_timeout", connect_timeout, 0, 86400)
    _check_number("redirects", redirects, -1, 20, whole=True)
    if credential is not None and not isinstance(credential, str):
        raise TypeError(f"credential is the name of one, not {type(credential).__name__}")
    if sha256 is not None and (
        not isinstance(sha256, str)
        or len(sha256) != 64
        or not set(sha256.lower()) <= set("0123456789abcdef")
    ):
        raise ValueError(f"sha256 is 64 hexadecimal digits, not {safe_repr(sha256)}")
    check_headers(headers or {})


def _check_number(name: str, value: Any, above: float, most: float, *, whole: bool = False) -> None:
    kind = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(f"{name} is a {'whole ' if whole else ''}number, not {safe_repr(value)}")
    if not math.isfinite(value) or not above < value <= most:
        raise ValueError(f"{name} is above {above} and at most {most}, not {value!r}")


def check_headers(headers: Any) -> None:
    """ValueError or TypeError for headers that cannot be sent, or that would store a secret."""
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers are a mapping, not {safe_repr(headers)}")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError("names and values of headers are text")
        if f"{name}{value}" != printable(f"{name}{value}", one_line=True) or not name.isascii():
            raise ValueError(f"the header {safe_repr(name)} has characters that none may have")
        if name.lower() in _FORBIDDEN_HEADERS:
            raise ValueError(
                f"the header {name!r} would be stored with the job; name a credential instead"
            )


PLUGIN = Plugin(
    "http_fetch", http_fetch, "Download something, however big, into a blob", check=check
)
