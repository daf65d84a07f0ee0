# SPDX-License-Identifier: ZPL-2.1
"""Which files are indexed, and one more that is broken on purpose."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

DEFAULT_FILES = 400  # of the standard library: enough to see something, well under a minute

# Tests of Python are half of its library, and some of them are broken on purpose too.
_NOT_IN_LIBRARY = frozenset({"site-packages", "test", "tests", "lib2to3", "idlelib"})
_NOWHERE = frozenset({"__pycache__", "node_modules"})

_BROKEN = '''\
# `zasync demo` wrote this file.  It cannot be tokenised: its string does not end.
greeting = """Good morning
'''


def library_files(limit: int | None) -> list[str]:
    """The `.py` files of the running Python's standard library, at most `limit`."""
    root = Path(sysconfig.get_path("stdlib"))
    found = (path for path in _walk(root, _NOT_IN_LIBRARY) if path.endswith(".py"))
    return list(islice(found, DEFAULT_FILES if limit is None else limit))


def tree_files(root: Path, limit: int | None, demo: Path) -> list[str]:
    """All files below `root`, at most `limit`; hidden ones and those of the `demo` are left out."""
    return list(islice(_walk(root, frozenset(), demo.resolve()), limit))


def _walk(root: Path, without: frozenset[str], demo: Path | None = None) -> Iterator[str]:
    """The files below `root`, always in the same order, without following links to directories."""
    for directory, names, files in os.walk(root.resolve()):
        if Path(directory) == demo:
            names.clear()
            continue
        names[:] = sorted(set(names) - without - _NOWHERE)
        names[:] = [name for name in names if not name.startswith(".")]
        for name in sorted(files):
            if not name.startswith("."):
                yield os.path.join(directory, name)


def write_broken_file(directory: Path) -> str:
    """Write a file that cannot be indexed; answers its path."""
    path = directory / "broken_on_purpose.py"
    path.write_text(_BROKEN, encoding="utf-8")
    return str(path.absolute())
