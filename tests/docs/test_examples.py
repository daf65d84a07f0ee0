# SPDX-License-Identifier: ZPL-2.1
"""Everything that README and docs show is run."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, Page
from zasync.dispatcher import registry
from zasync.foundation import platform
from zasync.testing import tear_down_dispatcher

README = ROOT / "README.md"


@pytest.mark.process
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_examples_of_the_page_do_what_it_says(path: Path, directory: Path) -> None:
    page = Page(path, platform.free_loopback_port())
    threads = set(threading.enumerate())

    skipped = page.run()
    for dispatcher in list(registry._dispatchers.values()):
        assert not dispatcher.activated
        tear_down_dispatcher(dispatcher)

    assert all(reason.strip() for reason in skipped)
    assert not [each for each in threading.enumerate() if each not in threads and not ends(each)]


def ends(thread: threading.Thread) -> bool:
    thread.join(5)
    return not thread.is_alive()


@pytest.mark.process
def test_the_program_of_the_readme_works_when_pasted(tmp_path: Path) -> None:
    program = re.search(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.M | re.S)
    assert program is not None
    (tmp_path / "pasted.py").write_text(program[1], encoding="utf-8")

    ended = subprocess.run(
        [sys.executable, "pasted.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    shown = re.search(r"It prints\s+`(.*?)`", README.read_text("utf-8"))
    assert shown is not None
    assert ended.stdout.strip() == shown[1]


def test_the_program_of_the_readme_has_fifteen_lines() -> None:
    program = re.search(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.M | re.S)

    assert program is not None
    assert len([line for line in program[1].splitlines() if line.strip()]) <= 15
