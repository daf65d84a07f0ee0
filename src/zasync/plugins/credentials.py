# SPDX-License-Identifier: ZPL-2.1
"""Secrets by reference: a job names a credential, and the worker's own configuration has it.

So no secret lies in a job, and a job cannot send one to where it does not belong: each credential
says to which hosts it may be sent.  They come from the process (`provide`), or from the TOML file
that the environment variable ZASYNC_CREDENTIALS names, which only its owner may be able to read.
"""

from __future__ import annotations

import dataclasses
import os
import stat
import tomllib
from collections.abc import Mapping
from typing import Any

from zasync.foundation.text import safe_repr
from zasync.interfaces import ZasyncError

VARIABLE = "ZASYNC_CREDENTIALS"
LARGEST_FILE = 2**20  # bytes

_OPTIONS = frozenset({"user", "secret", "secret_file", "hosts", "plain"})


class CredentialError(ZasyncError, LookupError):
    """A credential is not there, cannot be read safely, or must not be sent to that host."""


@dataclasses.dataclass(frozen=True)
class Credential:
    """A secret, the user that it belongs to, and the hosts that may get it.

    A host is a name, or `name:port`.  `plain` allows to send it without TLS.
    """

    user: str = ""
    secret: str = dataclasses.field(default="", repr=False)
    hosts: tuple[str, ...] = ()
    plain: bool = False

    def __reduce__(self) -> Any:
        raise TypeError("a Credential is not stored; name it where it is needed")

    def check_host(self, name: str, host: str, port: int, *, encrypted: bool) -> None:
        """CredentialError if it must not be sent to `host`, or not without encryption."""
        known = [each.lower() for each in self.hosts]
        if host.lower() not in known and f"{host.lower()}:{port}" not in known:
            raise CredentialError(
                f"the credential {name!r} must not be sent to {host}:{port}: its hosts do not name"
                " that one"
            )
        if not encrypted and not self.plain:
            raise CredentialError(
                f"the credential {name!r} must not be sent to {host}:{port} without TLS; it says"
                " so itself if that is wanted (plain = true)"
            )


_provided: dict[str, Credential] = {}


def provide(name: str, credential: Credential) -> None:
    """Have `credential` found under `name` in this process."""
    _provided[name] = credential


def forget(name: str | None = None) -> None:
    """Forget what was provided as `name`; all of it by default."""
    if name is None:
        _provided.clear()
    else:
        _provided.pop(name, None)


def find(name: str) -> Credential:
    """The credential of that name.  CredentialError."""
    found = _provided.get(name)
    if found is not None:
        return found
    options = section("credential", name)
    if options is None:
        where = os.environ.get(VARIABLE)
        place = f"in {where}" if where else f"({VARIABLE} names no file)"
        raise CredentialError(f"this process has no credential {safe_repr(name)} {place}")
    return _read(name, options)


def _read(name: str, options: Mapping[str, Any]) -> Credential:
    unknown = set(options) - _OPTIONS
    if unknown:
        raise CredentialError(f"the credential {name!r} has no option {sorted(unknown)[0]!r}")
    hosts = options.get("hosts")
    if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
        raise CredentialError(f"the credential {name!r} needs hosts = [...], a list of names")
    if ("secret" in options) == ("secret_file" in options):
        raise CredentialError(f"the credential {name!r} needs secret or secret_file, one of them")
    secret = options.get("secret")
    if secret is None:
        secret = private_text(str(options["secret_file"])).removesuffix("\n")
    if not isinstance(secret, str) or not isinstance(options.get("user", ""), str):
        raise CredentialError(f"user and secret of the credential {name!r} are texts")
    return Credential(
        options.get("user", ""), secret, tuple(hosts), plain=options.get("plain") is True
    )


def section(kind: str, name: str) -> Mapping[str, Any] | None:
    """The table [kind.name] of the file of credentials; None if there is none."""
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    text = private_text(path)
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:  # tells line and column, and no text of the file
        raise CredentialError(f"{path} is not TOML: {error}") from None
    found = tables.get(kind, {})
    found = found.get(name) if isinstance(found, dict) else None
    if found is not None and not isinstance(found, dict):
        raise CredentialError(f"{kind}.{name} in {path} is no table: write [{kind}.{name}]")
    return found


def private_text(path: str) -> str:
    """The text of a file that nobody but its owner, who is this user or root, can read or write.

    CredentialError, which says what is wrong with it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise CredentialError(
            f"{path}, a file with secrets, cannot be read: {error.strerror}"
        ) from None
    try:
        _check_private(path, os.fstat(descriptor))
        data = _read_all(descriptor)
    finally:
        os.close(descriptor)
    if len(data) > LARGEST_FILE:
        raise CredentialError(f"{path} is larger than {LARGEST_FILE} bytes, too large for secrets")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise CredentialError(f"{path} is not UTF-8") from None


def _read_all(descriptor: int) -> bytes:
    """What is in the file, or a little more than LARGEST_FILE of it."""
    data = b""
    while len(data) <= LARGEST_FILE and (more := os.read(descriptor, LARGEST_FILE + 1)):
        data += more
    return data


def _check_private(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise CredentialError(f"{path} is no plain file")
    if status.st_uid not in (os.geteuid(), 0):
        raise CredentialError(f"{path} belongs to another user than the one of this process")
    if status.st_mode & 0o077:
        raise CredentialError(
            f"{path} has secrets, and others than its owner may use it (mode"
            f" {stat.S_IMODE(status.st_mode):04o}): chmod 600 {path}"
        )
