# SPDX-License-Identifier: ZPL-2.1
"""Histories that once went wrong, as short as they could be made, by the name of the fault."""

from __future__ import annotations

import pytest

from tests.simulation.driver import repeated
from tests.simulation.world import Action

HISTORIES: dict[str, tuple[int, list[Action]]] = {
    "an agent made smaller while its threads are busy leaves a thread to go on": (
        69,
        [
            ("start", "new", 0),
            ("advance", 99, 3),
            ("put", "count", (), ("raise", "raise", "put")),
            ("put", "raise", (), ("raise", "raise", "return"), None, None, "never"),
            ("put", "raise", ("one",), ("return",), None, None, "impatient"),
            ("run", 80),
            ("put", "return", ("one", "two"), (), 3.733),
            ("put", "count", (), ("return",), None, None, "impatient", False, False, 1000),
            ("freeze", 91),
            ("put", "count", (), (), None, None, "", False, False, 1),
            ("agent", 813, 1, 1),
        ],
    ),
    "a node whose record was pruned while it was frozen gets agents again": (
        282,
        [
            ("start", "new", 0),
            ("start", "new", 0),
            ("run", 1),
            ("kill", 121, "lost"),
            ("put", "await", ("one", "two"), ("put", "return"), 50.531, None, "never"),
            ("start", "again", 175),
            ("freeze", 364),
            ("jump", 677, -3600),
            ("run", 80),
            ("prune", 100, 60),
            ("kill", 705, "lost"),
        ],
    ),
    "a job that waits for another is not called again when its commit was seen late": (
        31,
        [
            ("start", "new", 0),
            ("start", "new", 0),
            ("advance", 124, 3),
            ("advance", 623, 3),
            ("callback", 923, "return", 60),
            ("stop", 470),
            ("advance", 336, 1),
            ("put", "return", (), ("put",), None, None, "impatient", False, False, 1000),
            ("advance", 790, 3),
            ("advance", 799, 1000),
            ("freeze", 512),
            ("put", "job", (), (), None, None, "", False, False, 1000000),
            ("put", "return", ("two",), (), 0.69, None, "", False, False, 1000000),
            ("put", "defer", ("one",), (), None, None, "never", False, False, 60),
            ("callback", 629, "return", 1000),
            ("put", "return", ("one",), ("put", "return"), 13.091, None, "", False, False, 60),
            ("start", "again", 830),
            ("advance", 566, 10),
            ("advance", 543, 3),
            ("advance", 925, 1),
            ("fault", 257, "after", True),
            ("put", "put", ("one", "two"), (), 43.981, None, "never", True, False, 1000000),
            ("advance", 885, 3),
            ("put", "count", ("two",), ("return", "return"), None, None, "", False, False, 10),
            ("advance", 133, 1000),
            ("advance", 662, 60),
            ("put", "defer", (), ("raise", "return"), 1.132, None, "", True, False, 1000000),
            ("put", "return", ("one",), (), None, 42.155, "", False, False, 1000000),
            ("advance", 723, 10),
            ("advance", 808, 60),
            ("advance", 227, 1000),
            ("advance", 710, 10),
            ("leap", 6279962),
            ("thaw", 899),
            ("put", "return", (), (), None, None, "", False, False, 20),
            ("advance", 40, 60),
            ("advance", 924, 1000),
            ("stop", 789),
        ],
    ),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_history(name: str) -> None:
    history = repeated(*HISTORIES[name])
    assert not history.failure, history.report()
