# SPDX-License-Identifier: ZPL-2.1
"""Put a bug into a copy of the sources and see which test fails."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.teeth.bugs import Bug

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 240  # seconds for the tests of one bug


def misfits(bug: Bug) -> list[str]:
    """What in the bug's edits no longer fits the sources."""
    found = []
    for edit in bug.edits:
        count = (ROOT / "src" / "zasync" / edit.file).read_text().count(edit.old)
        if count != 1:
            found.append(f"{edit.file} has {count} times: {edit.old.strip()}")
    return found


def caught_by(bug: Bug, directory: Path) -> str | None:
    """The first test that fails with the bug in a copy of the sources in `directory`, or None.

    Also what cannot even be collected counts as caught, named by its file.
    """
    shutil.copytree(ROOT / "src", directory / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for edit in bug.edits:
        path = directory / "src" / "zasync" / edit.file
        path.write_text(path.read_text().replace(edit.old, edit.new))
    environment = {**os.environ, "PYTHONPATH": str(directory / "src")}
    pytest = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-rfE", "--no-header"]
    result = subprocess.run(
        [*pytest, "-p", "no:cacheprovider", "-p", "no:xdist", *bug.tests],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    if result.returncode == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", result.stdout, re.MULTILINE)
    if failed is None:
        raise AssertionError(f"pytest did not run:\n{result.stdout}\n{result.stderr}")
    return failed.group(1)
