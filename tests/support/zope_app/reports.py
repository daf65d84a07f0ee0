# SPDX-License-Identifier: ZPL-2.1
"""What the Zope of the tests has to offer: work that goes on when a test says so.

A test says so by making files in the directory that REPORTS names.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from AccessControl import getSecurityManager

from zasync import local

SECONDS = 120


def write_report(title: str, pages: int = 3, draft: bool = False) -> str:
    """Write so many pages, each when there is a file named like it; tells how far it is."""
    for page in range(1, pages + 1):
        local.set_progress(f"page {page} of {pages}", done=page - 1, total=pages)
        _wait_for(f"page-{page}")
    writer = getSecurityManager().getUser().getId()
    return f"{title}: {pages} pages by {writer}{' (draft)' if draft else ''}"


def send_mail(to: str) -> str:
    """Fails until there is a file named 'mail-server'."""
    if not (_place() / "mail-server").exists():
        raise ConnectionError(f"the mail server is away, nothing was sent to {to}")
    return f"sent to {to}"


def add(first: int, second: float) -> float:
    """The sum of two numbers, at once."""
    return first + second


def needs_objects(folder: object) -> None:
    """Nothing that a form could ask for."""


def _place() -> Path:
    return Path(os.environ["REPORTS"])


def _wait_for(name: str) -> None:
    pause = threading.Event()
    for look in range(SECONDS * 20):
        if (_place() / name).exists():
            return
        if look % 20 == 19:
            local.check_cancelled()
        pause.wait(0.05)
    raise TimeoutError(f"nobody made {name}")
