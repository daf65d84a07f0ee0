# SPDX-License-Identifier: ZPL-2.1
"""URLs that jobs are given: what is refused of them, and how they are shown."""

from __future__ import annotations

import urllib.parse
from typing import Any

from zasync.foundation.text import printable, safe_repr

LONGEST_URL = 4096


def check_url(url: Any) -> urllib.parse.SplitResult:
    """The parts of an http(s) URL; ValueError if it is none, or has a user or a password."""
    if not isinstance(url, str):
        raise TypeError(f"a URL is text, not {safe_repr(url)}")
    if len(url) > LONGEST_URL or url != url.strip() or url != printable(url, one_line=True):
        raise ValueError(f"{safe_repr(url)} is too long for a URL, or has control characters")
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{safe_repr(url)} is no URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{shown(parts)!r} is not fetched: only http and https are, from a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            f"the URL {shown(parts)!r} has a user or a password in it, which would be stored with"
            " the job: name a credential of the worker's instead"
        )
    if port == 0:
        raise ValueError(f"{shown(parts)!r} has the port 0")
    return parts


def shown(parts: urllib.parse.SplitResult) -> str:
    """The URL without what may be secret: user, password, query."""
    host = parts.netloc.rpartition("@")[2]
    return printable(f"{parts.scheme}://{host}{parts.path}", one_line=True)
