# SPDX-License-Identifier: ZPL-2.1
"""Reading the URIs that name databases, as far as zodburi does not do it.

zodburi takes the paths in `file://` and `zeo://` as they are written, without decoding
percent signs; so does this module.  Read `opening` next.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import zodburi

from zasync.storage.errors import BadConfiguration, UnknownScheme

# One letter before a colon is a drive of Windows, not a scheme.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
# How people write a scheme, and how zodburi knows it.
_ALIASES = {"postgresql": "postgres"}
# The schemes that RelStorage brings, and the extra of ours that brings RelStorage.
RELSTORAGE_EXTRAS = {
    "sqlite": "relstorage",
    "postgres": "postgresql",
    "mysql": "relstorage",
    "oracle": "relstorage",
}


def normalised(uri: str) -> str:
    """Answer `uri` as zodburi wants it; a plain path becomes a `file://` URI.

    Raises `UnknownScheme`, and `BadConfiguration` for what cannot be right.
    """
    if not uri:
        raise BadConfiguration("no database is named: give a path or a URI such as file://Data.fs")
    match = _SCHEME.match(uri)
    if match is None:
        return f"file://{uri}"
    written = match[1]
    scheme = _ALIASES.get(written.lower(), written.lower())
    uri = scheme + uri[len(written) :]
    _refuse_unknown(scheme, written)
    if scheme != "demo" and not uri.startswith(f"{scheme}://"):
        raise BadConfiguration(f"{redacted(uri)!r} lacks slashes: write {scheme}://...")
    if scheme == "zeo":
        _refuse_odd_address(uri)
    return uri


def scheme_of(uri: str) -> str:
    """The scheme of a `normalised` URI."""
    return uri.partition(":")[0]


def known_schemes() -> list[str]:
    """The schemes that the installed packages can open."""
    return sorted({point.name for point in entry_points(group="zodburi.resolvers")})


def redacted(uri: str) -> str:
    """Answer `uri` without its passwords, for messages."""
    uri = re.sub(r"(://[^:/?#]*):[^/?#]*@", r"\1:***@", uri)
    return re.sub(r"((?:password|passwd)=)[^&#]*", r"\1***", uri)


def with_default(uri: str, option: str, value: object) -> str:
    """Answer `uri`, which has no fragment, with `option` in its query if it was not there."""
    if re.search(rf"[?&]{option}=", uri):
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}{option}={value}"


def with_zeo_wait(uri: str, seconds: int) -> str:
    """Let each `zeo://` in a `normalised` URI give up connecting after `seconds`.

    There can be several in a `demo:`; a limit that is written in the URI stands.
    """
    if scheme_of(uri) not in ("zeo", "demo"):
        return uri
    return re.sub(
        r"zeo://[^()#]*", lambda found: with_default(found[0], "wait_timeout", seconds), uri
    )


def zeo_address(uri: str) -> str:
    """How to call the server of a `zeo://` URI in a message."""
    parts = urlsplit(uri.replace("zeo://", "http://", 1))
    return f"{parts.hostname}:{parts.port or 9991}" if parts.netloc else parts.path


def is_file_storage(uri: str) -> bool:
    """Whether `uri` (or plain path) names a FileStorage that a ZEO server could serve."""
    match = _SCHEME.match(uri)
    is_file = bool(uri) and (match is None or match[1].lower() == "file")
    return is_file and "demostorage" not in FileStorageURI.parse(uri).options


def file_storage_path(uri: str) -> Path:
    """The data file of a `file://` URI or plain path."""
    return FileStorageURI.parse(uri).path


@dataclass(frozen=True)
class FileStorageURI:
    """The parts of a `file://` URI: the file, and the options of storage and database."""

    path: Path
    options: dict[str, str] = field(default_factory=dict)
    database_options: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, uri: str) -> FileStorageURI:
        """Take a `file://` URI or plain path apart; raises `BadConfiguration`."""
        uri = normalised(uri)
        if scheme_of(uri) != "file":
            raise BadConfiguration(f"{redacted(uri)} is no file: only a FileStorage will do here")
        path, _, query = uri.removeprefix("file://").partition("?")
        if not path:
            raise BadConfiguration(f"{uri} names no file: write file:///path/to/Data.fs")
        given = dict(parse_qsl(query))
        # zodburi calls it so; ZODB's and ZEO's own name for it is accepted as well.
        if "blob_dir" in given:
            given.setdefault("blobstorage_dir", given.pop("blob_dir"))
        ours = {name: value for name, value in given.items() if name in zodburi.PARAMETERS}
        rest = {name: value for name, value in given.items() if name not in ours}
        return cls(Path(os.path.normpath(path)), rest, ours)

    @property
    def blob_dir(self) -> Path | None:
        """The directory of the blobs, or None for a storage without them."""
        directory = self.options.get("blobstorage_dir")
        return Path(directory) if directory else None

    def __str__(self) -> str:
        query = urlencode(self.options | self.database_options)
        return f"file://{self.path}{'?' if query else ''}{query}"


def _refuse_unknown(scheme: str, written: str) -> None:
    known = known_schemes()
    if scheme in known:
        return
    if scheme in RELSTORAGE_EXTRAS:
        raise UnknownScheme(
            f"{written}:// needs RelStorage, which is not installed: "
            f"pip install 'zasync[{RELSTORAGE_EXTRAS[scheme]}]'"
        )
    raise UnknownScheme(
        f"no storage is known for {written}://; known are {', '.join(known)}"
        " (a path with a colon in it is written ./like:this)"
    )


def _refuse_odd_address(uri: str) -> None:
    try:
        parts = urlsplit(uri.replace("zeo://", "http://", 1))
        proper = parts.port != 0
    except ValueError:
        proper = False
    if not proper:
        raise BadConfiguration(f"{redacted(uri)} has no proper address: write zeo://host:port")
    if not parts.netloc and not parts.path.strip("/"):
        raise BadConfiguration(
            f"{redacted(uri)} names no server: write zeo://host:port or zeo:///path/to/socket"
        )
    if parts.netloc and parts.path.strip("/"):
        raise BadConfiguration(
            f"{redacted(uri)} names a host and a path: write zeo://host:port, "
            "or zeo:///path/to/socket (three slashes) for a unix socket"
        )
