# SPDX-License-Identifier: ZPL-2.1
"""LDAP servers by reference: a job names a directory, and its worker knows where that is.

So nobody who asks for a search can send the worker, and its credentials, to another server.
Directories come from the process (`provide`), or from the same file as the credentials.
"""

from __future__ import annotations

import dataclasses
import urllib.parse
from collections.abc import Mapping
from typing import Any

from zasync.foundation.text import safe_repr
from zasync.interfaces import ZasyncError
from zasync.plugins import credentials

PORTS = {"ldap": 389, "ldaps": 636}


class UnknownDirectory(ZasyncError, LookupError):
    """The worker knows no LDAP server of that name, or what it knows of it is wrong."""


@dataclasses.dataclass(frozen=True)
class Directory:
    """An LDAP server, how to speak with it, and what may be searched there.

    `url` is ldaps://host[:port], or ldap://host[:port], with `start_tls` or without TLS.
    `ca_file` has the certificates that are trusted; by default the system's are.  `credential`
    names that of the worker to bind with; without one it searches anonymously.  A search may not
    leave `base`, ask for more than `size_limit` entries, or take more than `time_limit` seconds.
    """

    url: str
    start_tls: bool = False
    ca_file: str | None = None
    credential: str | None = None
    base: str = ""
    size_limit: int = 1000
    time_limit: float = 60.0
    connect_timeout: float = 10.0
    page_size: int = 500

    def __post_init__(self) -> None:
        try:
            parts = urllib.parse.urlsplit(self.url)
            host, port = parts.hostname, parts.port
        except (ValueError, AttributeError) as error:
            raise ValueError(
                f"{safe_repr(self.url)} is no URL of an LDAP server: {error}"
            ) from None
        if parts.scheme not in PORTS or not host or port == 0 or "@" in parts.netloc:
            raise ValueError(
                f"{safe_repr(self.url)} is no URL of an LDAP server: write ldaps://host[:port] or"
                " ldap://host[:port]"
            )
        if self.start_tls and parts.scheme == "ldaps":
            raise ValueError(f"{self.url} is encrypted from the start; start_tls is for ldap://")
        for name in ("size_limit", "page_size", "time_limit", "connect_timeout"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise ValueError(f"{name} of a directory is more than 0, not {safe_repr(value)}")

    @property
    def host(self) -> str:
        return urllib.parse.urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        parts = urllib.parse.urlsplit(self.url)
        return parts.port or PORTS[parts.scheme]

    @property
    def uses_ldaps(self) -> bool:
        return self.url.startswith("ldaps:")

    def bind_with(self) -> credentials.Credential | None:
        """The credential to bind with, None for an anonymous search.  CredentialError."""
        if self.credential is None:
            return None
        found = credentials.find(self.credential)
        found.check_host(
            self.credential, self.host, self.port, encrypted=self.uses_ldaps or self.start_tls
        )
        if not found.user or not found.secret:  # a server takes that for an anonymous one
            raise credentials.CredentialError(
                f"the credential {self.credential!r} needs a user, which is a DN, and a secret"
            )
        return found


_provided: dict[str, Directory] = {}


def provide(name: str, directory: Directory) -> None:
    """Have `directory` found under `name` in this process."""
    _provided[name] = directory


def forget(name: str | None = None) -> None:
    """Forget what was provided as `name`; all of it by default."""
    if name is None:
        _provided.clear()
    else:
        _provided.pop(name, None)


def find(name: str) -> Directory:
    """The directory of that name.  UnknownDirectory, or CredentialError if the file is no good."""
    found = _provided.get(name)
    if found is not None:
        return found
    options = credentials.section("directory", name)
    if options is None:
        raise UnknownDirectory(
            f"this worker knows no directory {safe_repr(name)}: give it a table"
            f" [directory.NAME] in the file that {credentials.VARIABLE} names"
        )
    return _read(name, options)


def _read(name: str, options: Mapping[str, Any]) -> Directory:
    known = {field.name: field for field in dataclasses.fields(Directory)}
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise UnknownDirectory(
            f"the directory {name!r} has no option {unknown[0]!r}; there are {sorted(known)}"
        )
    for text in ("url", "ca_file", "credential", "base"):
        if not isinstance(options.get(text, ""), str):
            raise UnknownDirectory(f"{text} of the directory {name!r} is a text")
    if not isinstance(options.get("start_tls", False), bool):
        raise UnknownDirectory(f"start_tls of the directory {name!r} is true or false")
    try:
        return Directory(**options)
    except (TypeError, ValueError) as error:
        raise UnknownDirectory(f"the directory {name!r}: {error}") from None
