# SPDX-License-Identifier: ZPL-2.1
"""Stored: the things that a long job has to see to, how far it is, and what came of them.

It changes in the transaction of the step that sees to them: what is done is never done again,
and what was not committed is not counted.  Only the step that runs writes it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from typing import Any

from BTrees.IOBTree import IOBTree
from persistent import Persistent

LONGEST_REASON = 300  # characters
TOLD_AT_MOST = 1000  # things of which the report says one by one what was wrong


class Came(enum.StrEnum):
    """What came of one thing.  The values are stored."""

    CHANGED = "changed"
    ALREADY = "already"
    REFUSED = "refused"
    MISSING = "missing"
    FAILED = "failed"


PROBLEMS = (Came.REFUSED, Came.MISSING, Came.FAILED)


class Work(Persistent):
    """Things in an order, each named by a text."""

    def __init__(self, items: Sequence[str]) -> None:
        self._items = IOBTree(dict(enumerate(items)))
        self.total = len(items)
        self.done = 0
        self._counts: dict[str, int] = {}
        self._problems = IOBTree()  # index of the thing -> (what came of it, why)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return self.done >= self.total

    def next_items(self, limit: int) -> list[str]:
        """The next things, at most `limit`."""
        return list(self._items.values(self.done, self.done + limit, excludemax=True))

    def note(self, came: Came, reason: str = "") -> None:
        """What came of the next thing; then the one after it is the next."""
        if came in PROBLEMS:
            self._problems[self.done] = (came.value, reason[:LONGEST_REASON])
        self._counts = {**self._counts, came.value: self._counts.get(came.value, 0) + 1}
        self.done += 1

    def count(self, came: Came) -> int:
        """Of how many things this came."""
        return self._counts.get(came.value, 0)

    def problems(self) -> Iterator[dict[str, str]]:
        """What was not changed, and why."""
        for index, (came, reason) in self._problems.items():
            yield {"item": self._items[index], "problem": came, "reason": reason}

    def report(self) -> dict[str, Any]:
        """All of it in plain values."""
        told = [problem for problem, _ in zip(self.problems(), range(TOLD_AT_MOST), strict=False)]
        return {
            "total": self.total,
            "done": self.done,
            **{came.value: self.count(came) for came in Came},
            "problems": told,
            "problems_left_out": len(self._problems) - len(told),
        }

    def line(self) -> str:
        """How far it is, in words."""
        text = f"{self.done} of {self.total}"
        not_changed = sum(self.count(came) for came in PROBLEMS)
        return f"{text}, {not_changed} not changed" if not_changed else text
