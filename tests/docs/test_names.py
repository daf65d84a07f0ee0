# SPDX-License-Identifier: ZPL-2.1
"""What the documentation names is there: modules, classes, methods, files, decisions."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import PAGES, ROOT
from zasync.integrations.pyramid.settings import NAMES

README = ROOT / "README.md"
TEXTS = [
    README,
    *PAGES,
    ROOT / "ARCHITECTURE.md",
    *sorted((ROOT / "docs" / "decisions").glob("*.md")),
]
NOT_MODULES = {"zasync.events", "zasync.trace"}  # names of loggers
ELSEWHERE = "zasync.integrations.plone"  # tests/plone/test_docs.py sees to these


def found(name: str) -> Any:
    """What the dotted `name` stands for; AttributeError or ImportError if nothing."""
    parts = name.split(".")
    thing: Any = importlib.import_module(parts[0])
    for index, part in enumerate(parts[1:], 2):
        try:
            thing = getattr(thing, part)
        except AttributeError:
            if isinstance(thing, type) and part in getattr(thing, "__annotations__", ()):
                return None
            thing = importlib.import_module(".".join(parts[:index]))
    return thing


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_name_of_ours_in_the_text_exists(path: Path, directory: Path) -> None:
    names = set(re.findall(r"`(zasync(?:\.\w+)+)", path.read_text("utf-8")))

    for name in sorted(names - NOT_MODULES - NAMES):
        if not name.startswith(ELSEWHERE):
            found(name)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_file_of_ours_in_the_text_exists(path: Path) -> None:
    text = path.read_text("utf-8")
    files = set(re.findall(r"`((?:job|queue|dispatcher|foundation|storage)/\w+\.py)`", text))

    missing = [file for file in sorted(files) if not (ROOT / "src/zasync" / file).is_file()]

    assert not missing


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)", path.read_text("utf-8"))

    missing = [link for link in links if not (path.parent / link).exists()]

    assert not missing
