# SPDX-License-Identifier: ZPL-2.1
"""The standard set of simulated histories, and that each is repeated exactly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.driver import by_chance, repeated
from tests.simulation.situations import SITUATIONS

HISTORIES, STEPS, CHUNKS = 300, 200, 10
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run of pytest see."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "simulation"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.timeout(300)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_histories_hold(chunk: int, shared: Path) -> None:
    size = HISTORIES // CHUNKS
    seen = Counter[str]()
    for seed in range(chunk * size, (chunk + 1) * size):
        history = by_chance(seed, STEPS)
        assert not history.failure, history.report()
        seen += history.seen
    _share(shared, chunk, seen)
    if len(list(shared.glob("*.json"))) == CHUNKS:  # whoever is the last one knows all
        check_that_everything_happened(shared)


def _share(shared: Path, chunk: int, seen: Counter[str]) -> None:
    unfinished = shared / f"{chunk}.unfinished"
    unfinished.write_text(json.dumps(seen))
    unfinished.replace(shared / f"{chunk}.json")


def check_that_everything_happened(shared: Path) -> None:
    seen = Counter[str]()
    for path in shared.glob("*.json"):
        seen += Counter(json.loads(path.read_text()))
    missed = [name for name in SITUATIONS if not seen[name]]
    assert not missed, f"never reached in {HISTORIES} histories: {missed}"


def test_the_same_seed_gives_the_same_history() -> None:
    for seed in range(5):
        first, second = by_chance(seed, STEPS), by_chance(seed, STEPS)
        assert first.digest == second.digest
        assert repeated(seed, first.actions).digest == first.digest


def test_a_history_does_not_depend_on_the_order_of_hashes() -> None:
    program = (
        "from tests.simulation.driver import by_chance;"
        f"print(*(by_chance(seed, {STEPS}).digest for seed in (1, 2)))"
    )

    def digests(hash_seed: str) -> str:
        environment = {
            **os.environ,
            "PYTHONHASHSEED": hash_seed,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        process = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
        return process.stdout

    assert digests("1") == digests("2")
