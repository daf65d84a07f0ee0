# SPDX-License-Identifier: ZPL-2.1
"""Show for each seeded bug which test catches it: `python -m tests.teeth [WORD ...]`.

Words choose the bugs whose names have one of them.  The exit code is the number of bugs that no
test caught.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.teeth.bite import caught_by
from tests.teeth.bugs import BUGS


def main(words: list[str]) -> int:
    chosen = [bug for bug in BUGS if not words or any(word in bug.name for word in words)]
    console = Console(width=None if sys.stdout.isatty() else 160)
    table = Table("seeded bug", "caught by")
    missed = 0
    for bug in chosen:
        with tempfile.TemporaryDirectory() as directory, console.status(bug.name):
            test = caught_by(bug, Path(directory))
        missed += test is None
        table.add_row(bug.name, test or "NOTHING")
    console.print(table)
    console.print(f"{len(chosen) - missed} of {len(chosen)} seeded bugs were caught")
    return missed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
