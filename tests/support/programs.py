# SPDX-License-Identifier: ZPL-2.1
"""Programs that the tests drive and that Python's packages do not carry: a browser, OpenLDAP.

`python -m tests.support.programs` brings them from the system's packages where they are missing
and the user may install any; the Makefile does so before the tests.  Tests without them are
skipped and say why; with CI=true that is a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

PACKAGES = {"chromium": "chromium", "chromedriver": "chromium-driver", "slapd": "slapd"}
"""Program -> the package of Debian that has it."""

SYSTEM_DIRECTORIES = "/usr/sbin:/usr/local/sbin"


def find(program: str) -> str | None:
    """Where the program is; None if it is missing."""
    return shutil.which(program) or shutil.which(
        program, path=SYSTEM_DIRECTORIES if os.environ.get("PATH") else ""
    )


def missing(*programs: str) -> str | None:
    """Which of them are missing, and what to do about it; None if all are there."""
    absent = [program for program in programs if find(program) is None]
    if not absent:
        return None
    packages = " ".join(PACKAGES[program] for program in absent)
    return f"{' and '.join(absent)} missing: apt-get install {packages}"


def need(*programs: str) -> None:
    """Skip the test where one of the programs is missing; fail it in CI."""
    refuse(missing(*programs))


def refuse(reason: str | None) -> None:
    """Skip the test for the `reason`, if there is one; fail it in CI."""
    if reason is not None and os.environ.get("CI") == "true":
        pytest.fail(f"in CI nothing is skipped: {reason}")
    if reason is not None:
        pytest.skip(reason)


def main() -> int:
    """Install what is missing, if this user may; else say what to do.  Never fails the build."""
    reason = missing(*PACKAGES)
    if reason is None:
        return 0
    if os.geteuid() != 0 or find("apt-get") is None:
        print(f"Some tests will be skipped: {reason}", file=sys.stderr)
        return 0
    absent = [package for program, package in PACKAGES.items() if find(program) is None]
    print(f"Installing {' '.join(absent)} for the tests")
    quiet: dict[str, Any] = {
        "stdout": subprocess.DEVNULL,
        # With this run level no service that a package brings is started.
        "env": os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"},
    }
    subprocess.run(["apt-get", "update", "-qq"], check=False, **quiet)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *absent]
    return subprocess.run(install, check=False, **quiet).returncode


if __name__ == "__main__":
    sys.exit(main())
