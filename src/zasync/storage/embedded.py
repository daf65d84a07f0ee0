# SPDX-License-Identifier: ZPL-2.1
"""A ZEO server in a process of its own, so that several processes can share a FileStorage.

For `zasync demo` and `zasync worker --processes N`; a site with a ZEO server does not need it.
The program that the process runs is `serving`.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import urlencode

from zasync.foundation import platform
from zasync.storage import serving
from zasync.storage.errors import BadConfiguration, StorageError
from zasync.storage.opening import DEFAULT_WAIT, close_database, open_database
from zasync.storage.uri import FileStorageURI

STOP_SECONDS = 10
_LOG_LINES = 10


class EmbeddedServer:
    """A ZEO server for the FileStorage of a `file://` URI or path, as a context manager.

    On POSIX it listens on a unix socket that only this user can reach; on Windows, or with
    `tcp`, on a port of the loopback interface, which every user of the machine can reach.
    It ends with `stop`, or when this process has died and all its forks have; a Ctrl-C at the
    terminal does not reach it.

    `start` raises a `StorageError` if the database cannot be opened or if the server does not
    answer within `wait`.
    """

    def __init__(self, uri: str, *, tcp: bool = False, wait: timedelta = DEFAULT_WAIT) -> None:
        self._file = FileStorageURI.parse(uri)
        for option in ("read_only", "create", "demostorage"):
            if option in self._file.options:
                raise BadConfiguration(f"{uri} cannot be served with the option {option}")
        self._tcp = tcp
        self._wait = wait
        self._directory: Path | None = None
        self._address = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()

    @property
    def uri(self) -> str:
        """The `zeo://` URI for the clients, with the database options of the file's URI."""
        options = dict(self._file.database_options)
        if self._file.blob_dir is not None:
            # The clients run on the same machine, so they need no copies.
            options |= {"blob_dir": str(self._file.blob_dir.absolute()), "shared_blob_dir": "1"}
        query = urlencode(options)
        return f"zeo://{self._address}{'?' if query else ''}{query}"

    @property
    def address(self) -> str:
        """Where the server listens: the path of a socket, or host:port."""
        return self._address

    @property
    def pid(self) -> int | None:
        """The number of the server's process, or None if there is none."""
        return self._process.pid if self._process is not None else None

    def is_running(self) -> bool:
        """Whether the server's process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server and wait until it answers; raises a `StorageError`."""
        if self._process is not None:
            return
        self._try_file()
        if self._directory is None:
            self._directory = platform.private_directory()
            self._address = self._new_address(self._directory)
        try:
            self._serve(self._directory)
        except BaseException:
            self.stop()
            raise

    def restart(self) -> None:
        """End the server if it lives, and start it again at its address, where its clients wait.

        Raises a `StorageError`; the address is kept then, and `restart` may be called again.
        """
        if self._directory is None:
            self.start()
            return
        self._end_process()
        self._try_file()
        try:
            self._serve(self._directory)
        except BaseException:
            self._end_process()
            raise

    def _try_file(self) -> None:
        # Opening the file here first explains what is wrong with it, and makes the root object
        # of a new database, which the clients would otherwise race for.
        close_database(open_database(str(self._file), wait=self._wait))

    def _serve(self, directory: Path) -> None:
        self._process = self._spawn(self._configuration(directory), directory)
        self._await_readiness(self._process)

    def stop(self) -> None:
        """End the server, wait for it, and clear up; harmless if it has ended already."""
        if os.getpid() != self._owner:
            return  # a fork that leaves the same `with` block must not end its parent's server
        self._end_process()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def log_tail(self) -> str:
        """The last lines of the server's log."""
        if self._directory is None:
            return ""
        try:
            text = self._log(self._directory).read_text(errors="replace")
        except FileNotFoundError:
            return ""
        lines = [line for line in text.splitlines() if line.strip("- ")]
        return "\n".join(lines[-_LOG_LINES:])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _command(self, config: Path) -> list[str]:
        # -P: the directory of the program must not be searched for modules.
        return [sys.executable, "-P", serving.__file__, str(config)]

    def _new_address(self, directory: Path) -> str:
        socket = directory / "zeo.sock"
        # zodburi takes a socket's path as it stands, up to where a query could begin.
        plain = not set("?#%;") & set(str(socket))
        if plain and platform.fits_a_socket(socket) and not self._tcp:
            return str(socket)
        return f"127.0.0.1:{platform.free_loopback_port()}"

    def _configuration(self, directory: Path) -> Path:
        config = directory / "zeo.conf"
        lines = [
            "<zeo>",
            f"  address {_quoted(self._address)}",
            "</zeo>",
            "<filestorage 1>",
            f"  path {_quoted(self._file.path.absolute())}",
        ]
        if self._file.blob_dir is not None:
            lines.append(f"  blob-dir {_quoted(self._file.blob_dir.absolute())}")
        if "quota" in self._file.options:
            lines.append(f"  quota {_quoted(self._file.options['quota'])}")
        lines.append("</filestorage>")
        config.write_text("\n".join([*lines, ""]), encoding="utf-8")
        return config

    def _log(self, directory: Path) -> Path:
        return directory / "zeo.log"

    def _spawn(self, config: Path, directory: Path) -> subprocess.Popen[bytes]:
        # The child finds ZEO, and the classes of applications that resolve conflicts, where
        # this process does, even if that had its sys.path made by hand.
        search = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        with self._log(directory).open("ab") as log:
            return subprocess.Popen(
                self._command(config),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                env=os.environ | {"PYTHONPATH": search},
                **platform.detached(),
            )

    def _await_readiness(self, process: subprocess.Popen[bytes]) -> None:
        answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        assert process.stdout is not None
        reading = threading.Thread(
            target=_read_line, args=(process.stdout, answers), name="zeo-readiness", daemon=True
        )
        reading.start()
        try:
            answer = answers.get(timeout=self._wait.total_seconds())
        except queue.Empty:
            seconds = self._wait.total_seconds()
            raise self._failure(f"did not answer within {seconds:g} s") from None
        if answer != serving.READY:
            process.wait(STOP_SECONDS)
            raise self._failure(f"ended with exit code {process.returncode}")

    def _failure(self, what: str) -> StorageError:
        return StorageError(
            f"the ZEO server for {self._file.path} {what}; its log ends:\n{self.log_tail()}"
        )

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # it may have ended already
            process.stdin.write(serving.STOP)
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _read_line(stream: IO[bytes], answers: queue.SimpleQueue[bytes]) -> None:
    with stream:
        answers.put(stream.readline())


def _quoted(value: object) -> str:
    """A value as ZConfig must find it in a file."""
    return str(value).replace("$", "$$")
