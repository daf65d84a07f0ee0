# SPDX-License-Identifier: ZPL-2.1
"""docs/plone.md does what it says.  The instance of all these tests is made by its lines."""

from __future__ import annotations

import doctest
import importlib
import os
import re
import subprocess
from typing import Any

from tests.plone.page import PAGE, blocks
from tests.plone.plone_instance import EDITOR, PloneInstance

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def test_the_requests_of_the_page_are_answered_as_it_says(
    plone: PloneInstance, worker: Any
) -> None:
    from plone.dexterity.utils import createContentInContainer

    with plone.changed() as site:
        news = createContentInContainer(
            site, "Folder", checkConstraints=False, id="news", title="News"
        )
        site.portal_workflow.doActionFor(news, "publish")
        for name in ("one", "two"):
            createContentInContainer(news, "Document", checkConstraints=False, id=name, title=name)

    asked, looked, own = (command for text in blocks("console") for command in commands(text))
    job = re.search(r"^Location: (\S+)", run(plone, asked), re.MULTILINE)
    assert job is not None
    plone.finished(job[1], EDITOR)
    run(plone, looked, JOB=job[1])
    job = re.search(r'"@id": "([^"]+)"', run(plone, own))
    assert job is not None
    assert plone.finished(job[1], EDITOR)["result"] == {"documents": 2, "words": 2}


def commands(text: str) -> list[tuple[str, str]]:
    """Each command of a console block, and what it is to print."""
    found = []
    for command in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        line, _, expected = command.partition("\n")
        while line.endswith("\\"):
            more, _, expected = expected.partition("\n")
            line += f"\n{more}"
        found.append((line, expected))
    return found


def run(plone: PloneInstance, command: tuple[str, str], **environment: str) -> str:
    """Give the command to the shell; it must print what the page shows."""
    line, expected = (part.replace("http://localhost:8080", plone.site) for part in command)
    ended = subprocess.run(
        line,
        shell=True,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
    )
    printed = ended.stdout.replace("\r", "")
    assert doctest.OutputChecker().check_output(expected, printed, OPTIONS), printed
    return printed


def test_every_name_of_ours_in_the_page_exists() -> None:
    for name in sorted(
        set(re.findall(r"`(zasync\.[\w.]+?\w+)(?:\(\))?`", PAGE.read_text("utf-8")))
    ):
        module, _, attribute = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ImportError:
            assert hasattr(importlib.import_module(module), attribute), name
