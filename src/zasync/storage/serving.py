# SPDX-License-Identifier: ZPL-2.1
"""The program of an embedded ZEO server: it runs by itself and imports nothing of zasync.

Called with a configuration file in a directory of its own.  It writes one line to its standard
output when clients may connect, and ends when its standard input does: after `STOP` as it was
told, and without because the process that started it has died.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path

from ZEO import runzeo

READY = b"ready\n"
STOP = b"stop\n"
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


def main(config: Path) -> None:
    """Serve what `config` says until standard input ends."""
    options = runzeo.ZEOOptions()
    options.realize(["-C", str(config)])
    server = Server(options)
    threading.Thread(target=_end_with_input, args=(server, config), daemon=True).start()
    server.main()


def _end_with_input(server: Server, config: Path) -> None:
    # Not sys.stdin: Python could not end while a thread waits in there.
    said = b"".join(iter(lambda: os.read(0, 1024), b""))
    try:
        if said != STOP:
            # The parent died, and nobody else is left to remove its directory.
            shutil.rmtree(config.parent, ignore_errors=True)
        server.end()
        threading.Event().wait(LAST_SECONDS)
    finally:
        os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
