# SPDX-License-Identifier: ZPL-2.1
"""The count that jobs of several threads and processes share."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from benchmarks.tally import Tally

FORKING = """\
import os, sys
from benchmarks.tally import Tally
shared = Tally(sys.argv[1])
shared.count()
for _ in range(3):
    child = os.fork()
    if not child:
        shared.count()
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_no_call_of_any_thread_is_lost(tmp_path: Path) -> None:
    shared = Tally.create(tmp_path / "tally")

    def count() -> None:
        for _ in range(1000):
            shared.count()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert shared.total() == 4000


def test_forks_count_in_slots_of_their_own(tmp_path: Path) -> None:
    shared = Tally.create(tmp_path / "tally")

    subprocess.run(
        [sys.executable, "-c", FORKING, str(tmp_path / "tally")],
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        check=True,
        timeout=60,
    )

    assert shared.total() == 4


def test_a_start_is_seen_through_another_mapping(tmp_path: Path) -> None:
    shared = Tally.create(tmp_path / "tally")

    Tally(tmp_path / "tally").start(7)

    assert shared.started(7) > 0
    assert shared.started(8) == 0
