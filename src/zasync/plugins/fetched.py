# SPDX-License-Identifier: ZPL-2.1
"""Stored: what `http_fetch` has downloaded."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from persistent import Persistent
from ZODB.blob import Blob


class Fetched(Persistent):
    """A download: its data in a blob, and what is known of it."""

    url = ""
    """Where it came from in the end, without user, password and query."""
    status = 200
    content_type = ""
    """As the server said, such as 'text/html; charset=utf-8'; '' if it said nothing."""
    content_encoding = ""
    """'' or, such as 'gzip', how the server has encoded the data, which is kept like that."""
    etag = ""
    last_modified = ""
    size = 0
    """Bytes."""
    sha256 = ""
    """Of the data, in hexadecimal digits."""
    fetched_at: datetime | None = None

    def __init__(self, blob: Blob, **known: Any) -> None:
        self.blob = blob
        for name, value in known.items():
            setattr(self, name, value)

    def open(self) -> Any:
        """The data, as a binary file that is open for reading."""
        return self.blob.open("r")


Fetched.__module__ = "zasync.plugins"
