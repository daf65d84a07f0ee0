# SPDX-License-Identifier: ZPL-2.1
"""A real ZEO server for tests, in a process in which `import zasync` fails.

Use the fixture `zeo_server`, or `ZeoServer` itself as a context manager.  A test can stop it,
kill it, and start it again at the same address; all in bounded time, by its own process id.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from zasync.storage import EmbeddedServer

# Runs the program named by the first argument where zasync cannot be imported, and says so.
WITHOUT_ZASYNC = """\
import importlib, runpy, sys
sys.modules["zasync"] = None
try:
    importlib.import_module("zasync")
except ImportError:
    print("zasync cannot be imported here", file=sys.stderr, flush=True)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class ZeoServer(EmbeddedServer):
    """A server whose life a test governs."""

    def kill(self) -> None:
        """Kill the server like a crash does; `start` brings it back at the same address."""
        assert self._process is not None
        self._process.kill()
        self._end_process()

    def end(self) -> None:
        """End the server properly; `start` brings it back at the same address."""
        self._end_process()

    def freeze(self) -> None:
        """Stop the server's process in its tracks, without ending it (POSIX)."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._signal(signal.SIGCONT)

    def log(self) -> str:
        """All that the server has written so far."""
        assert self._directory is not None
        return self._log(self._directory).read_text()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _command(self, config: Path) -> list[str]:
        python, *options = super()._command(config)
        assert python == sys.executable
        assert options[0] == "-P"
        return [python, "-P", "-c", WITHOUT_ZASYNC, *options[1:]]


@pytest.fixture
def zeo_server(tmp_path: Path) -> Iterator[ZeoServer]:
    """A running ZEO server over a new FileStorage `Data.fs` in `tmp_path`."""
    with ZeoServer(str(tmp_path / "Data.fs")) as server:
        yield server
