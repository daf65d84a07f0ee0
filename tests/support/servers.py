# SPDX-License-Identifier: ZPL-2.1
"""Real servers on free ports of the loopback: HTTP and lines of text, with TLS if asked for."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import trustme

SECONDS = 30


class Certificates:
    """A certificate authority of the test's own, and what it says of a server."""

    def __init__(self) -> None:
        self.authority = trustme.CA()

    def server(self, *names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(*names).configure_cert(context)
        return context

    def file(self, directory: Any) -> str:
        """The certificate of the authority, as a file."""
        path = directory / "authority.pem"
        self.authority.cert_pem.write_to_path(str(path))
        return str(path)


class HttpServer:
    """Answers requests by functions that get the handler, one for each path."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.answers: dict[str, Callable[[Any], None]] = {}
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.released = threading.Event()  # lets go of what is kept waiting
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                path = self.path.partition("?")[0]
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.requests.append((self.path, dict(self.headers), body))
                outer.answers[path](self)

            do_GET = do_POST = handle_one

            def log_message(self, *args: Any) -> None:
                pass

            def reply(
                self,
                body: bytes = b"",
                status: int = 200,
                length: int | None = None,
                **headers: str,
            ) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body) if length is None else length))
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(body)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # the client went away, as clients do

        self._server = Server(("127.0.0.1", 0), Handler)
        self.scheme = "http"
        if context is not None:
            self.scheme = "https"
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    def stop(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(SECONDS)


class LineServer:
    """Accepts connections, hears lines and says some; a test can cut the connections."""

    def __init__(self, context: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.heard: list[str] = []
        self.connections: list[socket.socket] = []
        self.accepted = 0
        self.greeting = b""
        self.on_line: Callable[[socket.socket, str], None] = lambda connection, line: None
        self._context = context
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            if self.greeting:
                connection.sendall(self.greeting)
            with self._changed:
                self.connections.append(connection)
                self.accepted += 1
                self._changed.notify_all()
            for line in connection.makefile("rb"):
                text = line.decode(errors="replace").rstrip("\n")
                with self._changed:
                    self.heard.append(text)
                    self._changed.notify_all()
                self.on_line(connection, text)
        except OSError:
            pass
        finally:
            with self._changed:
                if connection in self.connections:
                    self.connections.remove(connection)
                    self._changed.notify_all()
            connection.close()

    def wait_until(self, predicate: Callable[[], Any]) -> None:
        with self._changed:
            assert self._changed.wait_for(predicate, SECONDS)

    def say(self, *lines: str) -> None:
        """Say `lines` to whoever is connected."""
        self.wait_until(lambda: self.connections)
        for connection in list(self.connections):
            connection.sendall("".join(f"{line}\n" for line in lines).encode())

    def cut(self) -> None:
        """Cut all connections, without a goodbye."""
        for connection in list(self.connections):
            with contextlib.suppress(OSError):  # it may be closed just now
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                connection.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        self._listener.close()
        with contextlib.suppress(OSError):  # the thread that accepts may not notice otherwise
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        self.cut()
        self._thread.join(SECONDS)
