# SPDX-License-Identifier: ZPL-2.1
"""A Zope instance as `mkwsgiinstance` makes it, with its web process, and workers, over ZEO.

Whatever is added to its files is given by the test, so that it is what the documentation says.
All processes are ended by their own ids.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zasync
from tests.support.visitors import Visitor

ROOT = Path(__file__).parents[2]
SECONDS = 90
ADMIN = ("admin", "secret")
SCRIPTS = Path(sysconfig.get_path("scripts"))


class ZopeInstance:
    """One instance home; `site` is the address at which its web process serves."""

    def __init__(self, home: Path, storage: str, *, python_path: Path | None = None) -> None:
        """Make it.  `storage` is the text of the storage section of its main database."""
        self.home = home
        self._python_path = python_path
        self._processes: list[tuple[subprocess.Popen[bytes], Path]] = []
        self._web: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.site = f"http://127.0.0.1:{self.port}"
        make = [SCRIPTS / "mkwsgiinstance", "-d", home, "-u", ":".join(ADMIN)]
        subprocess.run(make, check=True, timeout=SECONDS, stdout=subprocess.DEVNULL)
        filestorage = r"<filestorage>.*?</filestorage>"
        self.edit("zope.conf", lambda text: re.sub(filestorage, storage, text, count=1, flags=re.S))
        self.edit("zope.ini", lambda text: text.replace("8080", str(self.port)))

    def edit(self, name: str, change: Callable[[str], str]) -> None:
        """Change one of the files in `etc`."""
        path = self.home / "etc" / name
        before = path.read_text()
        after = change(before)
        assert after != before, f"nothing was changed in {name}"
        path.write_text(after)

    def add_to_zcml(self, lines: str) -> None:
        """Put `lines` at the end of site.zcml."""
        self.edit("site.zcml", lambda text: text.replace("</configure>", f"{lines}\n</configure>"))

    def add_to_conf(self, lines: str) -> None:
        """Put `lines` at the end of zope.conf."""
        self.edit("zope.conf", lambda text: f"{text}\n{lines}\n")

    # Processes

    def start_web(self) -> None:
        """Start the web process, and wait until it serves."""
        self._web = self._start("web", [SCRIPTS / "runwsgi", self.home / "etc" / "zope.ini"])
        self.wait_until(lambda: self._answers(), "the web process serves")

    def start_worker(self) -> subprocess.Popen[bytes]:
        """Start a process that runs jobs, as a person would."""
        conf = self.home / "etc" / "zope.conf"
        return self._start("worker", [sys.executable, "-m", "zasync", "worker", "--zope", conf])

    def _start(self, name: str, command: list[Any]) -> subprocess.Popen[bytes]:
        log = self.home / "var" / "log" / f"{name}-{len(self._processes)}.txt"
        sources = Path(zasync.__file__).parents[1]  # which may be a copy, with a bug in it
        paths = [str(path) for path in (sources, self._python_path) if path is not None]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        environment.pop("ZASYNC_UUID", None)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=self.home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._processes.append((process, log))
        return process

    def end(self) -> None:
        """End all processes: politely, then not."""
        for process, _ in reversed(self._processes):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process, _ in reversed(self._processes):
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(SECONDS)

    def logs(self) -> str:
        """What all processes have written."""
        return "\n".join(f"--- {log.name}\n{log.read_text()}" for _, log in self._processes)

    def _answers(self) -> bool:
        assert self._web is not None
        if self._web.poll() is not None:
            raise AssertionError(f"the web process has ended:\n{self.logs()}")
        with contextlib.suppress(OSError):
            return self.visitor().get("/").status < 500
        return False

    def wait_until(self, condition: Callable[[], Any], what: str) -> None:
        """Look again and again; AssertionError, with the logs, if it takes too long."""
        pause = threading.Event()
        for _ in range(SECONDS * 10):
            if condition():
                return
            pause.wait(0.1)
        raise AssertionError(f"in vain: {what}\n{self.logs()}")

    # What every test needs of it

    def visitor(self, user: tuple[str, str] | None = None) -> Visitor:
        """Somebody with a browser of their own, who may be logged in."""
        return Visitor(self.site, user)

    def add_user(self, name: str, password: str, *roles: str) -> tuple[str, str]:
        """Add a user to the root's user folder by the form of the ZMI; answers name, password."""
        fields = {"name": name, "password": password, "confirm": password, "roles:list": roles}
        answer = self.visitor(ADMIN).post("/acl_users/manage_users", {**fields, "submit": "Add"})
        assert answer.status == 200, answer.body
        return name, password


def free_port() -> int:
    """A port of the loopback address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
