# SPDX-License-Identifier: ZPL-2.1
"""A proxy between a client and its database server that can behave like a bad network.

It understands as much of the protocols of ZEO and PostgreSQL as it takes to see where a message
begins and which method it calls, so that a connection can be cut at a chosen message: before the
server has got it, or after the server has done it and before the client is told.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

Address = str | tuple[str, int]
"""The path of a unix socket, or host and port."""

TO_SERVER, TO_CLIENT = "to the server", "to the client"
_CHUNK = 65536
_A_MOMENT = 0.05  # seconds until whoever waits for a way to open looks whether its link has ended


# Protocols


class Frames(Protocol):
    """Cuts one direction of one connection into messages."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take what was received; answer the messages that are complete now, as sent."""


class ZeoFrames:
    """Messages of four bytes of length and a pickle, or msgpack, of (id, flag, name, args)."""

    def __init__(self, direction: str) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._buffer += data
        while len(self._buffer) >= 4:
            end = 4 + struct.unpack(">I", self._buffer[:4])[0]
            if len(self._buffer) < end:
                return
            frame, self._buffer = self._buffer[:end], self._buffer[end:]
            yield frame


class PostgresFrames:
    """Messages of a type, four bytes of length and a body; the client's first have no type."""

    _SSL_REQUEST = b"\x04\xd2\x16\x2f"

    def __init__(self, direction: str) -> None:
        self._buffer = b""
        self._starting = direction == TO_SERVER
        self._may_answer_ssl = direction == TO_CLIENT

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._buffer += data
        while self._buffer:
            if self._may_answer_ssl:
                self._may_answer_ssl = False
                if self._buffer[:1] in (b"N", b"S") and len(self._buffer) == 1:
                    yield self._take(1)
                    continue
            at = 0 if self._starting else 1
            if len(self._buffer) < at + 4:
                return
            end = at + struct.unpack(">I", self._buffer[at : at + 4])[0]
            if len(self._buffer) < end:
                return
            frame = self._take(end)
            if self._starting:
                self._starting = frame[4:8] == self._SSL_REQUEST
            yield frame

    def _take(self, end: int) -> bytes:
        frame, self._buffer = self._buffer[:end], self._buffer[end:]
        return frame


Answers = Callable[[bytes], bool]
"""Whether a message to the client is the answer that is waited for."""


def zeo_call(name: str) -> Callable[[bytes], Answers | None]:
    """Recognise calls of a method of the ZEO server; answers how to recognise their replies."""
    # A str of the protocol's pickles begins with X and its length, one of msgpack with its length.
    pickled = b"X" + struct.pack("<I", len(name)) + name.encode()
    packed = bytes([0xA0 + len(name)]) + name.encode()

    def recognise(frame: bytes) -> Answers | None:
        for word in (pickled, packed):
            at = frame.find(word, 4, 64)
            if at > 0:
                begin = frame[4 : at - 1]  # up to the id of the call; then comes one byte of flag
                return lambda reply: reply[4:].startswith(begin) and b".reply" in reply[:64]
        return None

    return recognise


def postgres_query(text: str) -> Callable[[bytes], Answers | None]:
    """Recognise the simple query `text`; it is answered by 'ready for query'."""
    wanted = text.encode().lower()

    def recognise(frame: bytes) -> Answers | None:
        if frame[:1] != b"Q" or frame[5:].strip(b"\0; ").lower() != wanted:
            return None
        return lambda reply: reply[:1] == b"Z"

    return recognise


# What can be done to a connection


@dataclasses.dataclass
class Cut:
    """An order to cut a connection at a message, once."""

    recognise: Callable[[bytes], Answers | None]
    forward: bool  # let the server do it first
    taken: threading.Event = dataclasses.field(default_factory=threading.Event)
    done: threading.Event = dataclasses.field(default_factory=threading.Event)


class Way:
    """How one direction is, for all connections of a proxy."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.delay = 0.0  # seconds for each message
        self.pace: float | None = None  # bytes a second


class Proxy:
    """Listens at `address`, and leads whoever connects there to `server`.

    With a `directory` it listens on a unix socket in there, else on a port of the loopback
    interface.  `close` ends it, with all its connections.
    """

    def __init__(
        self,
        server: Address,
        *,
        directory: Path | None = None,
        name: str = "proxy",
        frames: Callable[[str], Frames] = ZeoFrames,
    ) -> None:
        self.server = server
        self.frames = frames
        self.ways = {TO_SERVER: Way(), TO_CLIENT: Way()}
        self.closed = threading.Event()
        self._lock = threading.Lock()
        self._links: set[Link] = set()
        self._cuts: list[Cut] = []
        if directory is None:
            self._listening = socket.create_server(("127.0.0.1", 0))
            self.address: Address = self._listening.getsockname()
        else:
            self.address = str(directory / f"{name}.sock")
            self._listening = socket.socket(socket.AF_UNIX)
            self._listening.bind(self.address)
            self._listening.listen()
        threading.Thread(target=self._accept, name=f"{name} accepts", daemon=True).start()

    @property
    def zeo_uri(self) -> str:
        """The URI of the ZEO server, through this proxy."""
        if isinstance(self.address, str):
            return f"zeo://{self.address}"
        host, port = self.address
        return f"zeo://{host}:{port}"

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # Faults

    def cut(self) -> int:
        """Cut all connections now; answers how many there were."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.end()
        return len(links)

    def cut_at(self, recognise: Callable[[bytes], Answers | None], *, forward: bool) -> Cut:
        """Cut the connection on which the next message comes that `recognise` knows.

        With `forward` the server does first what the message says, and its answer is lost.
        """
        cut = Cut(recognise, forward)
        with self._lock:
            self._cuts.append(cut)
        return cut

    def cancel(self, cut: Cut) -> bool:
        """Take back an order; answers whether it had not been taken up yet."""
        with self._lock:
            if cut in self._cuts:
                self._cuts.remove(cut)
                return True
        return False

    def black_hole(self, *directions: str) -> None:
        """Let nothing through any more, and tell nobody; in one direction, or (none given) both.

        Connections are accepted, and their bytes kept until `heal`.
        """
        for direction in directions or self.ways:
            self.ways[direction].open.clear()

    def slow_down(self, *, delay: float = 0.0, pace: float | None = None) -> None:
        """Deliver each message `delay` seconds late, at `pace` bytes a second."""
        for way in self.ways.values():
            way.delay, way.pace = delay, pace

    def drop_clients_quietly(self) -> int:
        """End the server's side of all connections; the clients are not told (half open)."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.end_at_the_server()
        return len(links)

    def heal(self) -> None:
        """Let through everything again, what was kept first."""
        self.slow_down()
        for way in self.ways.values():
            way.open.set()

    def close(self) -> None:
        """Cut everything and listen no more."""
        self.closed.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()
        if isinstance(self.address, str):
            Path(self.address).unlink(missing_ok=True)

    # Connections

    def _accept(self) -> None:
        while not self.closed.is_set():
            try:
                client, _ = self._listening.accept()
                _send_at_once(client)
            except OSError:
                return
            try:
                server = _connected(self.server)
            except OSError:  # the server is away, which the client sees as it would without us
                client.close()
                continue
            link = Link(self, client, server)
            with self._lock:
                self._links.add(link)
            if self.closed.is_set():
                link.end()
            link.start()

    def forget(self, link: Link) -> None:
        with self._lock:
            self._links.discard(link)

    def take_cut(self, frame: bytes) -> tuple[Cut, Answers] | None:
        """The order that is about this message, if there is one; it is nobody else's then."""
        with self._lock:
            for cut in self._cuts:
                answers = cut.recognise(frame)
                if answers is not None:
                    self._cuts.remove(cut)
                    cut.taken.set()
                    return cut, answers
        return None


class Link:
    """One connection from a client to the server."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client, self._server = client, server
        self._ended = threading.Event()
        self._quiet = False  # the client is not told that the server is gone
        self._last: tuple[Cut, Answers] | None = None  # nothing reaches the client any more

    def start(self) -> None:
        for direction, source, sink in (
            (TO_SERVER, self._client, self._server),
            (TO_CLIENT, self._server, self._client),
        ):
            threading.Thread(
                target=self._carry, args=(direction, source, sink), name=direction, daemon=True
            ).start()

    def end(self) -> None:
        """Close both sides."""
        self._ended.set()
        for side in (self._client, self._server):
            _close(side)
        self._proxy.forget(self)

    def end_at_the_server(self) -> None:
        self._quiet = True
        _close(self._server)

    def _carry(self, direction: str, source: socket.socket, sink: socket.socket) -> None:
        frames = self._proxy.frames(direction)
        way = self._proxy.ways[direction]
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                for frame in frames.feed(data):
                    self._wait_for(way)
                    if direction == TO_SERVER:
                        self._to_server(frame, sink, way)
                    else:
                        self._to_client(frame, sink, way)
        if self._quiet:
            self._swallow(source)
        with contextlib.suppress(OSError):
            self._wait_for(way)  # the end of a connection is news like others
        self.end()

    def _to_server(self, frame: bytes, sink: socket.socket, way: Way) -> None:
        taken = self._proxy.take_cut(frame)
        if taken is None:
            if not self._quiet:
                self._send(frame, sink, way)
            return
        cut, _ = taken
        if not cut.forward:
            self.end()
            cut.done.set()
            raise OSError("cut")
        self._last = taken
        self._send(frame, sink, way)

    def _to_client(self, frame: bytes, sink: socket.socket, way: Way) -> None:
        if self._last is None:
            self._send(frame, sink, way)
            return
        cut, answers = self._last
        if answers(frame):
            self.end()
            cut.done.set()
            raise OSError("cut")

    def _send(self, frame: bytes, sink: socket.socket, way: Way) -> None:
        if way.delay:
            self._ended.wait(way.delay)
        if way.pace is None:
            sink.sendall(frame)
            return
        for at in range(len(frame)):
            self._ended.wait(1 / way.pace)
            sink.sendall(frame[at : at + 1])

    def _wait_for(self, way: Way) -> None:
        while not way.open.wait(_A_MOMENT):
            if self._ended.is_set():
                raise OSError("ended")

    def _swallow(self, source: socket.socket) -> None:
        """Take what the client sends to a server that is gone, until it gives up."""
        if source is self._server:
            self._ended.wait()
        with contextlib.suppress(OSError):
            while source.recv(_CHUNK):
                pass


def _connected(address: Address) -> socket.socket:
    if isinstance(address, str):
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(address)
        except OSError:
            connection.close()
            raise
        return connection
    connection = socket.create_connection(address, timeout=10)
    connection.settimeout(None)
    _send_at_once(connection)
    return connection


def _send_at_once(connection: socket.socket) -> None:
    """Else each answer that comes in two pieces waits for 40 ms until the first is acknowledged."""
    if connection.family == socket.AF_INET:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _close(side: socket.socket) -> None:
    with contextlib.suppress(OSError):
        side.shutdown(socket.SHUT_RDWR)
    side.close()
