# SPDX-License-Identifier: ZPL-2.1
"""What the figures hold for: the machine and the versions, without any name or path of it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path

import psutil

from benchmarks.places import Missing, redis_program

DISTRIBUTIONS = (
    "zasync",
    "ZODB",
    "ZEO",
    "RelStorage",
    "psycopg2-binary",
    "Twisted",
    "procrastinate",
    "huey",
    "celery",
    "dramatiq",
    "rq",
    "redis",
)

REVISION = "revision of zasync"


def machine() -> dict[str, str]:
    """Kind and size of the machine."""
    release = ".".join(platform.release().split(".")[:2])  # what follows may name the machine
    return {
        "processor": _processor(),
        "cores": str(psutil.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {release} {platform.machine()}",
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def versions() -> dict[str, str]:
    """Versions of all that takes part."""
    found = {"Python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    found[REVISION] = _revision()
    found["Redis server"] = _redis()
    found["PostgreSQL"] = _postgres()
    return found


def without_paths(text: str) -> str:
    """`text` without the paths of this machine."""
    return re.sub(r"(?<![\w.])/(?:[\w.@+-]+/)+[\w.@+-]*", "...", text)


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or "unknown"
    found = re.search(r"^model name\s*:\s*(.*)$", text, re.M)
    return found[1] if found else platform.machine()


def _revision() -> str:
    """The commit that was measured, with a + if the sources were changed after it."""
    git = ["git", "-C", str(Path(__file__).parent.parent)]
    try:
        said = [
            subprocess.run([*git, *words], capture_output=True, text=True, check=True).stdout
            for words in (["rev-parse", "--short", "HEAD"], ["status", "--short", "src"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return said[0].strip() + ("+" if said[1].strip() else "")


def _redis() -> str:
    try:
        program = redis_program()
    except Missing as reason:
        return str(reason)
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"v=(\S+)", said.stdout)
    return f"{Path(program).name} {found[1] if found else ''}".strip()


def _postgres() -> str:
    from tests.support.postgres import NoPostgres, _programs

    try:
        program = _programs() / "postgres"
    except NoPostgres as reason:
        return without_paths(str(reason))
    said = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False)
    return said.stdout.strip().removeprefix("postgres (PostgreSQL) ")
