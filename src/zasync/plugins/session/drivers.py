# SPDX-License-Identifier: ZPL-2.1
"""What speaks with the other side of a session: the interface, and lines of text over TCP or TLS.

A driver is a class that is found under its own name in a module, made without arguments.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import dataclasses
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Protocol

from zasync.foundation.text import printable, safe_repr
from zasync.interfaces import TimeoutError
from zasync.plugins import credentials
from zasync.plugins.addresses import check_address

CONNECT_TIMEOUT = 30.0  # seconds
CLOSE_TIMEOUT = 3.0
LONGEST_LINE = 2**16  # bytes


@dataclasses.dataclass(frozen=True)
class Heard:
    """One thing that the other side said.

    `event` is its kind and `id` its number there, where the driver has such.  A session that is
    connected again tells the driver the last `id`.
    """

    text: str
    event: str = ""
    id: str = ""


class Connection(Protocol):
    """An open connection.  All errors of these methods mean that it is lost."""

    async def receive(self) -> Heard | None:
        """The next thing that is heard; None if the other side has ended."""

    async def send(self, text: str) -> None:
        """Say `text`; it is on its way when this returns."""

    async def close(self) -> None:
        """Close it, whatever state it is in."""


class Driver(Protocol):
    """How to connect."""

    def check_options(self, options: Mapping[str, Any]) -> None:
        """ValueError or TypeError for options that make no sense; called when one is opened."""

    def check_message(self, options: Mapping[str, Any], text: str) -> None:
        """ValueError for a message that cannot be sent; called when it is put in the outbox."""

    async def connect(self, options: Mapping[str, Any], resume: str) -> Connection:
        """Connect.  `resume` is the last `Heard.id`, or ''.

        ValueError, TypeError, LookupError and PermissionError end the session; after any other
        error it is tried again.
        """


def check_known(options: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """TypeError for an option that is not `known`, or that has another type than known there."""
    if not isinstance(options, Mapping):
        raise TypeError(f"options of a session are a mapping, not {safe_repr(options)}")
    for name, value in options.items():
        if name not in known:
            raise TypeError(f"there is no option {safe_repr(name)}; there are {sorted(known)}")
        if isinstance(value, bool) and known[name] is not bool:
            raise TypeError(f"the option {name!r} must not be {value!r}")
        if not isinstance(value, known[name]):
            raise TypeError(f"the option {name!r} must not be {safe_repr(value)}")


class LineDriver:
    """Lines of UTF-8 over TCP, or TLS.

    Options: `host` and `port`; `tls` (no); `ca_file`, by default the system's certificates;
    `credential`, the name of one of the worker's, and `login`, lines that are sent first, in which
    {user} and {secret} are replaced; `connect_timeout` (30 s); `idle_timeout`: after so many
    seconds without a line the connection counts as lost (never).
    """

    OPTIONS: Mapping[str, Any] = {
        "host": str,
        "port": int,
        "tls": bool,
        "ca_file": str,
        "credential": str,
        "login": (list, tuple),
        "connect_timeout": (int, float),
        "idle_timeout": (int, float),
    }

    def check_options(self, options: Mapping[str, Any]) -> None:
        check_known(options, self.OPTIONS)
        host, port = options.get("host"), options.get("port")
        if not host or host != printable(host, one_line=True) or len(host) > 255:
            raise ValueError(f"a session with lines needs the name of a host, not {host!r}")
        if port is None or not 0 < port < 2**16:
            raise ValueError(f"a session with lines needs a port, not {port!r}")
        for name in ("connect_timeout", "idle_timeout"):
            if not options.get(name, 1) > 0:
                raise ValueError(f"{name} is more than 0 seconds, not {options[name]!r}")
        for line in options.get("login", ()):
            self.check_message(options, line)

    def check_message(self, options: Mapping[str, Any], text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"a line is text, not {safe_repr(text)}")
        if any(character in text for character in "\n\r\0"):
            raise ValueError("a message of this session is one line; it must have no line breaks")
        if len(text.encode()) > LONGEST_LINE:
            raise ValueError(f"a line has at most {LONGEST_LINE} bytes")

    async def connect(self, options: Mapping[str, Any], resume: str) -> Connection:
        login = _login(options)
        seconds = options.get("connect_timeout", CONNECT_TIMEOUT)
        try:
            async with asyncio.timeout(seconds):
                lines = await self._connected(options)
                try:
                    for line in login:
                        await lines.send(line)
                except BaseException:
                    lines.abort()
                    raise
                return lines
        except builtins.TimeoutError:
            where = f"{options['host']}:{options['port']}"
            raise TimeoutError(f"{where} does not answer within {seconds:g} s") from None

    async def _connected(self, options: Mapping[str, Any]) -> _Lines:
        host, context = options["host"], None
        if options.get("tls"):
            context = ssl.create_default_context(cafile=options.get("ca_file"))
        open_socket = await connected_socket(host, options["port"])
        try:
            reader, writer = await asyncio.open_connection(
                sock=open_socket,
                ssl=context,
                server_hostname=None if context is None else host,
                limit=LONGEST_LINE,
            )
        except ssl.SSLCertVerificationError as error:
            open_socket.close()
            raise ConnectionError(
                f"the certificate of {host}:{options['port']} is refused: {error.verify_message}"
            ) from None
        except BaseException:
            open_socket.close()
            raise
        return _Lines(reader, writer, options.get("idle_timeout"))


def _login(options: Mapping[str, Any]) -> list[str]:
    """The lines to begin with.  CredentialError."""
    name, lines = options.get("credential"), list(options.get("login", ()))
    if name is None:
        return lines
    credential = credentials.find(name)
    encrypted = bool(options.get("tls"))
    credential.check_host(name, options["host"], options["port"], encrypted=encrypted)
    if "\n" in f"{credential.user}{credential.secret}":
        raise credentials.CredentialError(f"the credential {name!r} has a line break")
    return [
        line.replace("{user}", credential.user).replace("{secret}", credential.secret)
        for line in lines
    ]


async def connected_socket(host: str, port: int) -> socket.socket:
    """A socket that is connected to one of the addresses of `host`.  RefusedAddress, OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, address in found:
        check_address(str(address[0]), host)
    errors = []
    for family, kind, protocol, _, address in found:
        attempt = socket.socket(family, kind, protocol)
        attempt.setblocking(False)
        try:
            await loop.sock_connect(attempt, address)
            return attempt
        except OSError as error:
            attempt.close()
            errors.append(error)
        except BaseException:
            attempt.close()
            raise
    raise errors[0] if errors else OSError(f"{host} has no address")


class _Lines:
    """An open connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, idle: float | None
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._idle = idle

    async def receive(self) -> Heard | None:
        try:
            async with asyncio.timeout(self._idle):
                line = await self._reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            line = error.partial  # what comes last may lack its end
            if not line:
                return None
        except asyncio.LimitOverrunError:
            raise ConnectionError(f"a line of more than {LONGEST_LINE} bytes has come") from None
        except builtins.TimeoutError:
            raise TimeoutError(f"nothing was heard for {self._idle:g} s") from None
        return Heard(line.decode(errors="replace").rstrip("\r\n"))

    async def send(self, text: str) -> None:
        self._writer.write(text.encode() + b"\n")
        await self._writer.drain()

    async def close(self) -> None:
        """Close it once what was said is on its way, if that is soon."""
        self._writer.close()
        try:
            with contextlib.suppress(OSError):  # a TimeoutError is one
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self._writer.wait_closed()
        finally:
            self.abort()

    def abort(self) -> None:
        """Close it at once, whatever is on its way."""
        self._writer.transport.abort()
