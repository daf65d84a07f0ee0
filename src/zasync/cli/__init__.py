# SPDX-License-Identifier: ZPL-2.1
"""The command line: `zasync`, also `python -m zasync`.

`commands` has the group and the edge at which errors become one line; each command is in the
module of its name.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> None:
    """Run the command that `args` (by default those of the process) name, and exit."""
    from zasync.cli.commands import zasync  # a program that only imports this package needs none

    zasync.main(args=args, prog_name="zasync")
