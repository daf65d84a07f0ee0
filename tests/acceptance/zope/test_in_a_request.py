# SPDX-License-Identifier: ZPL-2.1
"""A put is part of its request: what the publisher repeats after a conflict is put once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.zope.zope_home import APPLICATION, file_in, zope_home
from tests.support.zope_instance import ROOT

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]

PUTS = 1000
THREADS = 4


def test_a_thousand_puts_from_four_threads_with_conflicts_are_a_thousand_jobs(
    tmp_path: Path,
) -> None:
    with zope_home(tmp_path, file_in(tmp_path)) as home:
        program = Path(__file__).with_name("collisions.py")
        kept = {name: value for name, value in os.environ.items() if not name.endswith("_UUID")}
        done = subprocess.run(
            [sys.executable, str(program), str(home.conf), str(PUTS), str(THREADS)],
            env=kept | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(APPLICATION)])},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["repeated"] > 0, "there were no conflicts, so nothing was shown"
    assert told["jobs"] == told["distinct"] == told["requests"] == told["answered"] == PUTS
