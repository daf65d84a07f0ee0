# SPDX-License-Identifier: ZPL-2.1
"""One LDAP search, done in a thread.  Of all of zasync, only this module imports ldap3."""

from __future__ import annotations

import contextlib
import math
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import Any

import ldap3
from ldap3.core.exceptions import (
    LDAPException,
    LDAPInvalidDnError,
    LDAPSocketOpenError,
    LDAPSocketReceiveError,
    LDAPStartTLSError,
)
from ldap3.utils.dn import parse_dn

from zasync.foundation.text import printable, safe_str
from zasync.interfaces import TimeoutError
from zasync.plugins.credentials import Credential
from zasync.plugins.directories import Directory
from zasync.plugins.errors import DirectoryError, TooLarge
from zasync.plugins.ldap_search import LARGEST_RESULT

_SCOPES = {"base": ldap3.BASE, "one": ldap3.LEVEL, "subtree": ldap3.SUBTREE}
_PAGED = "1.2.840.113556.1.4.319"  # the control of paged results
_SUCCESS, _TIME_LIMIT, _SIZE_LIMIT = 0, 3, 4


class _Tls(ldap3.Tls):
    """TLS as Python does it by default, with the name of the server checked in the handshake."""

    def __init__(self, directory: Directory) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED)
        self._host = directory.host
        try:
            self._context = ssl.create_default_context(cafile=directory.ca_file)
        except OSError as error:  # SSLError is one
            raise DirectoryError(
                f"the certificates in {directory.ca_file} cannot be read: {error}", "certificate"
            ) from None
        self.refused: ssl.SSLCertVerificationError | None = None

    def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:
        try:
            connection.socket = self._context.wrap_socket(
                connection.socket, server_hostname=self._host, do_handshake_on_connect=True
            )
        except ssl.SSLCertVerificationError as error:
            self.refused = error
            raise


class Search:
    """Connects, binds, searches page by page; `abort`, from another thread, breaks it off."""

    def __init__(
        self,
        directory: Directory,
        credential: Credential | None,
        *,
        filter: str,
        base: str | None,
        scope: str,
        attributes: Sequence[str],
        size_limit: int,
        seconds: float,
        truncate: bool,
    ) -> None:
        self._directory = directory
        self._credential = credential
        self._filter = filter
        self._base = _within(directory, base)
        self._scope = _SCOPES[scope]
        self._attributes = list(attributes)
        self._size_limit = size_limit
        self._seconds = math.ceil(seconds)
        self._truncate = truncate
        self._connection: Any = None
        self._size = 0

    def abort(self) -> None:
        with contextlib.suppress(Exception):  # it may be gone, or not there yet
            self._connection.socket.shutdown(socket.SHUT_RDWR)

    def __call__(self) -> list[dict[str, Any]]:
        tls = _Tls(self._directory) if self._is_encrypted else None
        try:
            self._connection = self._made(tls)
            self._open()
            entries: list[dict[str, Any]] = []
            for entry in self._entries():
                if len(entries) == self._size_limit:
                    return self._truncated(entries)
                entries.append(entry)
            return entries
        except LDAPException as error:
            raise self._told(error, tls) from None
        finally:
            self._close()

    def _close(self) -> None:
        with contextlib.suppress(Exception):  # all is read; the server may be gone
            self._connection.unbind()
        with contextlib.suppress(Exception):
            self._connection.socket.close()

    @property
    def _is_encrypted(self) -> bool:
        return self._directory.uses_ldaps or self._directory.start_tls

    def _made(self, tls: _Tls | None) -> Any:
        directory, credential = self._directory, self._credential
        server = ldap3.Server(
            directory.host,
            directory.port,
            use_ssl=directory.uses_ldaps,
            tls=tls,
            get_info=ldap3.NONE,
            connect_timeout=directory.connect_timeout,
        )
        return ldap3.Connection(
            server,
            user=None if credential is None else credential.user,
            password=None if credential is None else credential.secret,
            authentication=ldap3.ANONYMOUS if credential is None else ldap3.SIMPLE,
            receive_timeout=self._seconds,
            read_only=True,
            auto_referrals=False,  # they would take the credential elsewhere
            check_names=False,
        )

    def _open(self) -> None:
        connection = self._connection
        connection.open(read_server_info=False)
        if self._directory.start_tls and not connection.start_tls(read_server_info=False):
            raise LDAPStartTLSError("the server did not begin TLS")
        if not connection.bind(read_server_info=False):
            raise self._answer(connection.result)

    def _entries(self) -> Iterator[dict[str, Any]]:
        """The entries that the server sends, which may be one more than the limit."""
        connection, cookie, missing = self._connection, None, self._size_limit + 1
        while missing > 0:
            connection.search(
                self._base,
                self._filter,
                search_scope=self._scope,
                attributes=self._attributes,
                size_limit=self._size_limit + 1,
                time_limit=self._seconds,
                paged_size=min(self._directory.page_size, missing),
                paged_criticality=False,
                paged_cookie=cookie,
            )
            result = connection.result
            for found in connection.response or ():
                if found.get("type") == "searchResEntry":
                    missing -= 1
                    yield self._entry(found)
            if result["result"] == _SIZE_LIMIT and (missing <= 0 or self._truncate):
                return
            if result["result"] != _SUCCESS:
                raise self._answer(result)
            control = (result.get("controls") or {}).get(_PAGED)
            cookie = control["value"]["cookie"] if control else None
            if not cookie:
                return

    def _entry(self, found: dict[str, Any]) -> dict[str, Any]:
        values = {
            name: [_text_or_bytes(value) for value in raw]
            for name, raw in found["raw_attributes"].items()
        }
        self._size += sum(len(value) for raw in values.values() for value in raw)
        if self._size > LARGEST_RESULT:
            raise TooLarge(
                f"the entries have more than {LARGEST_RESULT:,} bytes; ask for fewer attributes"
            )
        return {"dn": found["dn"], "attributes": values}

    def _truncated(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if self._truncate:
            return entries
        raise DirectoryError(
            f"more than {self._size_limit} entries match: narrow the filter, raise size_limit, or"
            " say truncate",
            "sizeLimitExceeded",
        )

    def _answer(self, result: dict[str, Any]) -> Exception:
        """The server's answer, which is no success, as an error."""
        url, code = self._directory.url, str(result["description"])
        said = printable(safe_str(result.get("message") or "", 200), one_line=True)
        said = f" ({said})" if said else ""
        if result["result"] == _TIME_LIMIT:
            return TimeoutError(f"{url} gave up the search after {self._seconds} s{said}")
        if code == "invalidCredentials":
            text = f"refuses the credential {self._directory.credential!r}: {code}"
        elif code == "noSuchObject":
            text = f"has no entry {self._base!r}: {code}"
        elif code == "sizeLimitExceeded":
            text = f"does not answer that many entries: {code}"
        else:
            text = f"answers {code}"
        return DirectoryError(f"{url} {text}{said}", code)

    def _told(self, error: LDAPException, tls: _Tls | None) -> Exception:
        """An error of the connection, in our words."""
        url, text = self._directory.url, printable(safe_str(error, 300), one_line=True)
        if tls is not None and tls.refused is not None:
            reason = tls.refused.verify_message
            return DirectoryError(f"the certificate of {url} is refused: {reason}", "certificate")
        if isinstance(error, LDAPSocketOpenError):
            return DirectoryError(f"{url} cannot be reached: {text}", "unreachable")
        if isinstance(error, LDAPStartTLSError):
            return DirectoryError(f"{url} does not start TLS: {text}", "startTLS")
        if isinstance(error, LDAPSocketReceiveError) and "timed out" in text:
            return TimeoutError(f"{url} does not answer within {self._seconds} s")
        return DirectoryError(f"{url}: {type(error).__name__}: {text}", "connection")


def _within(directory: Directory, base: str | None) -> str:
    """The DN to search from.  DirectoryError if it is none, or outside the directory's base."""
    if base is None:
        return directory.base
    try:
        wanted, allowed = _normal(base), _normal(directory.base)
    except LDAPInvalidDnError as error:
        text = printable(safe_str(error, 200), one_line=True)
        raise DirectoryError(f"the base is no DN: {text}", "invalidDNSyntax") from None
    if allowed and wanted[-len(allowed) :] != allowed:
        raise DirectoryError(
            f"the base {base!r} is not within {directory.base!r}, and nothing else is searched",
            "insufficientAccessRights",
        )
    return base


def _normal(dn: str) -> list[tuple[str, str]]:
    if not dn:
        return []
    return [(name.lower(), value.lower()) for name, value, _ in parse_dn(dn, strip=True)]


def _text_or_bytes(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
