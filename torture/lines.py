# SPDX-License-Identifier: ZPL-2.1
"""Files of JSON lines that several processes append to, and that survive the death of each."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any


class Lines:
    """A file of which each line is one event, with the monotonic time `t` at which it was."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, **fields: Any) -> float:
        """Append one event in one write, so that lines of others cannot get into it."""
        now = time.monotonic()  # the same for all processes of a machine
        line = json.dumps({"t": now, **fields}) + "\n"
        os.write(self._descriptor, line.encode())
        return now

    def close(self) -> None:
        os.close(self._descriptor)


def read(path: Path) -> list[dict[str, Any]]:
    """All events of a file; none if there is no file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.endswith("\n")]
