# SPDX-License-Identifier: ZPL-2.1
"""ZEO with TLS: options in a `zeo://` URI, and why a server and a client do not trust each other.

The options have the names and the meaning of the keys in ZEO's `<ssl>` section, with `ssl_`
before; zodburi does not know them.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import zodburi
from ZConfig.datatypes import asBoolean
from ZEO.ClientStorage import ClientStorage
from ZEO.Exceptions import ClientDisconnected
from ZEO.zconfig import client_ssl
from zodburi.resolvers import ClientStorageURIResolver

from zasync.storage.errors import BadConfiguration
from zasync.storage.uri import redacted, scheme_of

PREFIX = "ssl_"
FILES = ("ssl_certificate", "ssl_key", "ssl_authenticate")
_PATIENCE = 3  # seconds for each step of a handshake
_NOT_ACCEPTED = (
    "the server does not accept this client's certificate: it is of another authority than the "
    "server's 'authenticate' names, or has expired (the server's log has the reason)"
)
OPTIONS = frozenset({*FILES, "ssl_server_hostname", "ssl_check_hostname"})


def is_wanted(uri: str) -> bool:
    """Whether a `normalised` URI has an option for TLS; raises `BadConfiguration`."""
    if f"?{PREFIX}" not in uri and f"&{PREFIX}" not in uri:
        return False
    if scheme_of(uri) == "demo":
        raise BadConfiguration(
            f"{redacted(uri)}: a demo: takes no options for TLS; write a ZConfig file"
        )
    return scheme_of(uri) == "zeo"


def resolved(uri: str) -> tuple[Callable[[], Any], dict[str, Any]]:
    """How to make the storage of a `zeo://` URI with TLS, and the options for its database."""
    parts = urlsplit(uri.replace("zeo://", "http://", 1))
    given = dict(parse_qsl(parts.query))
    wanted = {name: given.pop(name) for name in OPTIONS & given.keys()}
    storage_options, rest = ClientStorageURIResolver().interpret_kwargs(given)
    _, options = zodburi.resolve_uri(f"memory://?{urlencode(rest)}")
    context, hostname = _context(uri, wanted)
    address = (parts.hostname or "127.0.0.1", parts.port or 9991) if parts.netloc else parts.path

    def make_storage() -> Any:
        return ClientStorage(address, ssl=context, ssl_server_hostname=hostname, **storage_options)

    return lambda: opened(make_storage, [address], context, hostname), options


def opened(make_storage: Callable[[], Any], addresses: list[Any], context: Any, name: Any) -> Any:
    """What `make_storage` answers; SSLError if TLS is why no server answered in time.

    ZEO's client sees only that it is cut off again and again: asyncio keeps the reason.
    """
    try:
        return make_storage()
    except ClientDisconnected as error:
        for address in addresses:
            reason = _refusal(address, context, name) if isinstance(address, tuple) else None
            if reason is not None:
                raise reason from error
        raise


def _refusal(
    address: tuple[str, int], context: ssl.SSLContext, name: str | None
) -> ssl.SSLError | None:
    """What is wrong with a handshake of our own with the server, or None."""
    shaken = False
    try:
        with (
            socket.create_connection(address, timeout=_PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname=name or address[0]) as secured,
        ):
            shaken = True
            if secured.recv(1):
                return None
    except ssl.SSLError as error:
        return error
    except OSError:
        pass
    # A server looks at the client's certificate when the client is done; asyncio does not let
    # it say what it does not like.
    return ssl.SSLError(1, _NOT_ACCEPTED) if shaken else None


def _context(uri: str, wanted: dict[str, str]) -> Any:
    if "ssl_certificate" not in wanted:
        raise BadConfiguration(
            f"{redacted(uri)} asks for TLS without a certificate of its own, which a ZEO server "
            "always wants to see: add ssl_certificate=FILE"
        )
    for name in FILES:
        if name in wanted and not Path(wanted[name]).exists():
            raise BadConfiguration(f"{name}: there is no file {wanted[name]}")
    try:
        return client_ssl(
            SimpleNamespace(
                certificate=wanted["ssl_certificate"],
                key=wanted.get("ssl_key"),
                password_function=None,
                authenticate=wanted.get("ssl_authenticate"),
                check_hostname=asBoolean(wanted.get("ssl_check_hostname", "true")),
                server_hostname=wanted.get("ssl_server_hostname"),
            )
        )
    except ssl.SSLError as error:
        raise BadConfiguration(
            f"{', '.join(wanted[name] for name in FILES if name in wanted)}: one of these is no "
            f"file with a certificate or key, or they do not belong together ({error})"
        ) from error
