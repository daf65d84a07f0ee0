# SPDX-License-Identifier: ZPL-2.1
"""The program of an embedded ZEO server: it runs by itself and imports nothing of zasync.

Called with a configuration file and the number of the process that it follows.  It writes one
line to its standard output when clients may connect, and ends when its standard input does,
which is when the process that started it closes the other end or dies.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path

from ZEO import runzeo

READY = b"ready\n"
# The longest that ending may take; a storage that will not close must not outlive its parent.
LAST_SECONDS = 10


class Server(runzeo.ZEOServer):
    """A ZEO server that says when it is ready."""

    def create_server(self) -> None:
        """Start to listen, and say so."""
        super().create_server()
        os.write(1, READY)
        os.dup2(2, 1)

    def end(self) -> None:
        """End between two requests.  Called from another thread than the one that serves."""
        self.server.acceptor.event_loop.call_soon_threadsafe(self.server.close)


def main(config: Path, parent: int) -> None:
    """Serve what `config` says until standard input ends."""
    options = runzeo.ZEOOptions()
    options.realize(["-C", str(config)])
    server = Server(options)
    ending = threading.Thread(target=_end_with_input, args=(server, config, parent), daemon=True)
    ending.start()
    try:
        server.main()
    finally:
        _clear_up(config, parent)


def _end_with_input(server: Server, config: Path, parent: int) -> None:
    # Not sys.stdin: Python could not end while a thread waits in there.
    while os.read(0, 1024):
        pass
    try:
        server.end()
        threading.Event().wait(LAST_SECONDS)
    finally:
        _clear_up(config, parent)
        os._exit(1)


def _clear_up(config: Path, parent: int) -> None:
    """Remove the directory of `config` if the process that made it can no longer do so."""
    if os.name == "posix" and os.getppid() != parent:
        shutil.rmtree(config.parent, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
