# SPDX-License-Identifier: ZPL-2.1
"""`python -m tests.simulation --seeds 300 --steps 200`: simulate, and say what was seen."""

from __future__ import annotations

import argparse
import pprint
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.simulation.driver import History, by_chance, shortened
from tests.simulation.situations import SITUATIONS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many histories")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--steps", type=int, default=200, help="actions in each")
    parser.add_argument("--seed", type=int, help="this one only, with all its events")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--shorten", action="store_true", help="make failing histories shorter")
    parser.add_argument("--stop", action="store_true", help="stop at the first that fails")
    options = parser.parse_args()
    if options.seed is not None:
        return one(options.seed, options.steps, options.shorten)
    return many(range(options.first, options.first + options.seeds), options)


def one(seed: int, steps: int, shorten: bool) -> int:
    history = by_chance(seed, steps)
    if history.failure and shorten:
        history = shortened(history)
        pprint.pprint(history.actions, width=100)
    print(history.report() if history.failure else f"seed {seed} holds; {history.digest}")
    return 1 if history.failure else 0


def many(seeds: range, options: argparse.Namespace) -> int:
    began, seen, failed = time.monotonic(), Counter[str](), list[History]()
    with ProcessPoolExecutor(options.processes) as pool:
        for history in pool.map(partial(by_chance, steps=options.steps), seeds, chunksize=5):
            seen += history.seen
            if history.failure:
                failed.append(history)
                print(history.report(), flush=True)
                if options.stop:
                    pool.shutdown(cancel_futures=True)
                    return 1
    missed = [name for name in SITUATIONS if not seen[name]]
    for name in sorted({*SITUATIONS, *seen}):
        print(f"{seen[name]:8}  {name}{'  <- NEVER' if name in missed else ''}")
    seconds = time.monotonic() - began
    print(
        f"{len(seeds)} histories of {options.steps} actions in {seconds:.0f} s:"
        f" {len(failed)} failed; {len(missed)} situations were never reached"
    )
    return 1 if failed or missed else 0


if __name__ == "__main__":
    sys.exit(main())
