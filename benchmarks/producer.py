# SPDX-License-Identifier: ZPL-2.1
"""`python -m benchmarks.producer SUBJECT TASK ...`: a process that puts, for one measurement.

It answers in one line of JSON.  The tasks: `fill WORK COUNT`, `put EACH SECONDS`, and
`latency GAP JOBS SECONDS [here]`, with `here` for a worker in this very process.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import sys
import time
from typing import Any

from benchmarks import tally
from benchmarks.figures import percentile
from benchmarks.subjects import SUBJECTS

PATIENCE = 30.0  # seconds for one job to start
FEWEST = 3  # jobs of a latency
WARM = 5  # jobs before those that count; the first waits for the start of its worker


def main(subject: str, task: str, *options: str) -> None:
    logging.basicConfig(level=logging.CRITICAL)
    module = importlib.import_module(SUBJECTS[subject].path)
    module.install()
    answer = {"fill": fill, "put": put, "latency": latency}[task](module, *options)
    print(json.dumps(answer), flush=True)
    os._exit(0)  # whatever threads a peer has left


def fill(module: Any, work: str, count: str) -> dict[str, float]:
    """Put so many jobs, as fast as it goes."""
    begin = time.perf_counter()
    module.fill(work, int(count))
    return {"rate": int(count) / (time.perf_counter() - begin)}


def put(module: Any, each: str, seconds: str) -> dict[str, float]:
    """Put no-ops for so many seconds, one by one or `each` at once."""
    step = int(each)
    if step > 1 and module.put_many is None:
        raise NotImplementedError("it has no way to put several at once")
    for number in range(WARM):
        module.put("no_op", number)
    begin, cpu = time.perf_counter(), time.process_time()
    count = 0
    while time.perf_counter() - begin < float(seconds):
        if step == 1:
            module.put("no_op", count)
        else:
            module.put_many("no_op", range(count, count + step))
        count += step
    elapsed, cpu = time.perf_counter() - begin, time.process_time() - cpu
    return {"rate": count / elapsed, "cpu_ms": cpu / count * 1000}


def latency(module: Any, gap: str, jobs: str, seconds: str, where: str = "") -> dict[str, float]:
    """Milliseconds from the return of a put to the start of its job, with a worker at rest.

    No further job is put after so many seconds, if there are some already.
    """
    spans = []
    with _worker(where):
        for number in range(WARM):  # a long gap is what is measured; these come without it
            time.sleep(0.05)
            if _span(module, number) > 1000 and number:
                break
        end = time.perf_counter() + float(seconds)
        for number in range(WARM, WARM + int(jobs)):
            if time.perf_counter() > end and len(spans) >= FEWEST:
                break
            time.sleep(float(gap))
            spans.append(_span(module, number))
    return {
        "median_ms": percentile(spans, 50),
        "p99_ms": percentile(spans, 99),
        "jobs": float(len(spans)),
    }


def _span(module: Any, number: int) -> float:
    module.put("stamp", number)
    done = time.perf_counter()
    while not (started := tally.mine().started(number)):
        if time.perf_counter() > done + PATIENCE:
            raise TimeoutError(f"a job was not started within {PATIENCE:g} s")
        time.sleep(0.0005)
    return max(0.0, started - done) * 1000


@contextlib.contextmanager
def _worker(where: str) -> Any:
    if where != "here":
        yield
        return
    from benchmarks.subjects import zasync
    from benchmarks.worker import dispatching

    assert zasync._connection is not None
    with dispatching(zasync._connection.db(), size=10):
        yield


if __name__ == "__main__":
    main(*sys.argv[1:])
