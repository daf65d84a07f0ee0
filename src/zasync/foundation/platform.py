# SPDX-License-Identifier: ZPL-2.1
"""What differs between POSIX and Windows, and nothing else does.

Unix sockets, private directories, detached processes and the signals that ask a process to
end.  No other module asks which system it runs on.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

# The shortest limit on the path of a unix socket is the BSDs' 104 bytes, with the final NUL.
SOCKET_PATH_BYTES = 103
# What `private_directory` adds to the directory it lies in, and what a socket adds to that.
_ROOM = 32


def has_unix_sockets() -> bool:
    """Whether processes of this machine can talk over unix sockets.

    Python on Windows has no use for them (nor does ZEO), even where the system does.
    """
    return os.name == "posix" and hasattr(socket, "AF_UNIX")


def fits_a_socket(path: Path) -> bool:
    """Whether a unix socket can be bound to `path`."""
    return has_unix_sockets() and len(os.fsencode(path)) <= SOCKET_PATH_BYTES


def private_directory(prefix: str = "zasync-") -> Path:
    """Make a new directory that only this user may enter, and answer its path.

    It lies in the directory for temporary files, or, where the path of that is too long for
    the unix sockets to come, in a shorter one.  The caller removes it.
    """
    usual = tempfile.gettempdir()
    shorter = "/tmp" if has_unix_sockets() and os.path.isdir("/tmp") else usual
    room = SOCKET_PATH_BYTES - _ROOM
    parent = usual if len(os.fsencode(usual)) <= room else shorter
    return Path(tempfile.mkdtemp(prefix=prefix, dir=parent))


def free_loopback_port() -> int:
    """Answer a TCP port that was free on the loopback interface a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def termination_signals() -> list[int]:
    """The numbers of the signals that ask a process to finish and end."""
    names = ("SIGINT", "SIGTERM", "SIGBREAK")
    return [int(getattr(signal, name)) for name in names if hasattr(signal, name)]


def signal_main_thread(number: int) -> None:
    """Send this process a signal so that it interrupts what the main thread waits for."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:  # pragma: no cover - Windows, where the handler's thread does not matter
        signal.raise_signal(number)


def passes_descriptors() -> bool:
    """Whether `subprocess.Popen` can give a child an open file beyond the standard ones."""
    return os.name == "posix"


def detached() -> dict[str, Any]:
    """Arguments for `subprocess.Popen`: a child that a Ctrl-C at the terminal does not reach."""
    if os.name == "posix":
        return {"start_new_session": True}
    return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
