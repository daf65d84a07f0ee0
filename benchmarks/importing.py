# SPDX-License-Identifier: ZPL-2.1
"""`python -m benchmarks.importing`: how long imports take, each in processes of its own."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

TIMES = 5
IMPORTS = {
    "zodb_ms": "import ZODB, ZODB.FileStorage",
    "put_ms": "import ZODB, ZODB.FileStorage, zasync.job, zasync.queue",
    "work_ms": "import ZODB, ZODB.FileStorage, zasync.dispatcher, zasync.agent, zasync.configure",
}
PROGRAM = """\
import time
begin = time.perf_counter()
{statement}
print((time.perf_counter() - begin) * 1000)
"""


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(TIMES):
        for name, statement in IMPORTS.items():
            program = PROGRAM.format(statement=statement)
            said = subprocess.run(
                [sys.executable, "-c", program], capture_output=True, text=True, check=True
            )
            times[name].append(float(said.stdout))
    print(json.dumps({name: statistics.median(each) for name, each in times.items()}))


if __name__ == "__main__":
    main()
