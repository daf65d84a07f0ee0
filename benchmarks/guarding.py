# SPDX-License-Identifier: ZPL-2.1
"""Ends a process that we have started, with its children, even if this process is killed."""

from __future__ import annotations

import subprocess
import sys

# Ends the process group of its first argument, unless it is told before that it need not.
PROGRAM = """\
import os, signal, sys
if sys.stdin.read() != "ended":
    try:
        os.killpg(int(sys.argv[1]), signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


class Guard:
    """Watches over the process group `pid` until `dismiss`."""

    def __init__(self, pid: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", PROGRAM, str(pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """The process has ended; once is enough."""
        if self._process.poll() is None:
            self._process.communicate("ended", timeout=30)
