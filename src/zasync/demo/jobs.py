# SPDX-License-Identifier: ZPL-2.1
"""What the demo's jobs do, as plain functions.

Jobs are stored under these names, so they must stay where they are.
"""

from __future__ import annotations

import keyword
import os
import re
import tokenize
from collections import Counter
from typing import Any

import transaction

from zasync import local

ROOT = "zasync.demo"
"""The name in the database root under which the catalog lies."""

LARGEST = 4_000_000  # bytes of a file that is read
_WORD = re.compile(r"[^\W\d]\w*")
_LONGEST_WORD = 100  # what is longer is no word, but data


def read_file(path: str) -> dict[str, int]:
    """How often each identifier (of Python files) or word (of others) is in the file.

    What is no text, or too large, has none.  A Python file that cannot be tokenised is an error.
    """
    if os.path.getsize(path) > LARGEST:
        return {}
    names = _identifiers(path) if path.endswith(".py") else _words(path)
    return {name: count for name, count in names.items() if len(name) <= _LONGEST_WORD}


def _identifiers(path: str) -> Counter[str]:
    with tokenize.open(path) as file:
        return Counter(
            token.string
            for token in tokenize.generate_tokens(file.readline)
            if token.type == tokenize.NAME and not keyword.iskeyword(token.string)
        )


def _words(path: str) -> Counter[str]:
    with open(path, "rb") as file:
        content = file.read()
    if b"\0" in content:
        return Counter()
    return Counter(_WORD.findall(content.decode("utf-8", "replace")))


def clash(meter: Any) -> int:
    """Count the meter up, and on the first attempt have somebody else do so meanwhile.

    Both cannot be committed, so zasync runs this job again, and then it reads the other's value.
    """
    if not meter.rival_came:
        _count_up_elsewhere(meter)
    meter.value += 1
    return int(meter.value)


def _count_up_elsewhere(meter: Any) -> None:
    """Do and commit in a connection of its own what another process might do."""
    manager = transaction.TransactionManager()
    connection = meter._p_jar.db().open(transaction_manager=manager)
    try:
        with manager:
            same = connection.get(meter._p_oid)
            same.value += 1
            same.rival_came = True
    finally:
        connection.close()


def nothing() -> None:
    """Do nothing: what is measured is how soon it is begun."""


def how_often(name: str) -> int:
    """How often the identifier `name` was found; for `zasync put`."""
    catalog = local.getJob()._p_jar.root()[ROOT]
    return int(catalog.how_often(name))
