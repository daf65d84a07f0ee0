# SPDX-License-Identifier: ZPL-2.1
"""Instances of Zope with the pages of `application`, made by the lines of the documentation."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.zope_instance import ADMIN, ROOT, SECONDS, ZopeInstance
from zasync.interfaces import COMPLETED

APPLICATION = Path(__file__).with_name("application")
LINE = '<include package="zasync.integrations.zope" />'
PAGES = f'<include file="{APPLICATION}/configure.zcml" />'


class Home:
    """An instance, and what its jobs write."""

    def __init__(self, directory: Path, storage: str, section: str = "") -> None:
        self.work = directory / "work"
        self.work.mkdir()
        self.instance = ZopeInstance(directory / "home", storage, python_path=APPLICATION)
        self.instance.add_to_zcml(f"{LINE}\n{PAGES}")
        self.instance.add_to_conf(
            f"%import zasync.integrations.zope\n<zasync zasync>\n{section}\n</zasync>"
        )

    @property
    def conf(self) -> Path:
        return self.instance.home / "etc" / "zope.conf"

    def put(
        self, what: str, user: tuple[str, str] | None = ADMIN, where: str = "", **form: str
    ) -> int:
        """Have the web process put a job; answers its oid."""
        answer = self.instance.visitor(user).post(f"{where}/put_job", {"what": what, **form})
        assert answer.status == 200, answer.body
        return int(answer.body)

    def look(self, oid: int) -> dict[str, Any]:
        """What the web process sees of it."""
        answer = self.instance.visitor(ADMIN).get(f"/look_at_job?oid={oid}")
        assert answer.status == 200, answer.body
        return dict(json.loads(answer.body))

    def ended(self, oid: int) -> dict[str, Any]:
        """Wait until the job has ended; answers what has become of it."""
        self.instance.wait_until(
            lambda: self.look(oid)["status"] == COMPLETED, f"the end of job {oid}"
        )
        return self.look(oid)

    def began(self) -> list[str]:
        """The runs of `hold`, each with its process."""
        path = self.work / "began"
        return path.read_text().splitlines() if path.exists() else []

    def begun(self, times: int) -> None:
        self.instance.wait_until(lambda: len(self.began()) >= times, f"{times} runs")

    def let_go(self, name: str) -> None:
        (self.work / name).touch()

    def log(self, number: int) -> str:
        """What the process that was started as number `number` has written."""
        return self.instance._processes[number][1].read_text()


@contextlib.contextmanager
def zope_home(directory: Path, storage: str, section: str = "") -> Iterator[Home]:
    """As long as the block; all its processes are ended."""
    home = Home(directory, storage, section)
    before = {name: os.environ.get(name) for name in ("ZOPE_WORK", "ZASYNC_STATE")}
    os.environ["ZOPE_WORK"] = str(home.work)
    os.environ["ZASYNC_STATE"] = str(directory / "state")
    try:
        yield home
    finally:
        home.instance.end()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def client_of(address: str) -> str:
    return f"<zeoclient>\n      server {address}\n    </zeoclient>"


def file_in(directory: Path) -> str:
    return f"<filestorage>\n      path {directory}/Data.fs\n    </filestorage>"


def call_worker(*options: str) -> subprocess.CompletedProcess[str]:
    """`zasync worker` with what is wrong; it ends by itself."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_UUID")}
    return subprocess.run(
        [sys.executable, "-m", "zasync", "worker", *options],
        env=kept | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(APPLICATION)])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def one_line(text: str) -> str:
    """The only line of `text` that is not a log's."""
    lines = [line for line in text.splitlines() if not re.match(r"\d{4}-", line)]
    assert len(lines) == 1, text
    return lines[0]
