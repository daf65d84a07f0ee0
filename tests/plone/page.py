# SPDX-License-Identifier: ZPL-2.1
"""The blocks of docs/plone.md: what the instance of the tests is made of, and what it is told."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "plone.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LABEL = re.compile(r"(?:# |<!-- )(.*?)(?: -->)?\n")


def blocks(language: str) -> list[str]:
    """The texts of all blocks in that language."""
    return [text for name, text in _BLOCK.findall(PAGE.read_text("utf-8")) if name == language]


def block(label: str) -> str:
    """The text of the block whose first line says `label`, without that line."""
    for _, text in _BLOCK.findall(PAGE.read_text("utf-8")):
        first = _LABEL.match(text)
        if first is not None and first[1] == label:
            return str(text[first.end() :])
    raise LookupError(f"{PAGE.name} has no block {label!r}")


def write_examples(directory: Path) -> None:
    """Write the modules and the ZCML file of the page."""
    directory.mkdir()
    for name in ("words.py", "word_service.py", "words.zcml"):
        (directory / name).write_text(block(name), "utf-8")
