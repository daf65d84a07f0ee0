# SPDX-License-Identifier: ZPL-2.1
"""A web process that performs jobs, too: what becomes of them when it ends, in whatever way."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.zope.zope_home import APPLICATION, Home, file_in, zope_home
from tests.support.zope_instance import ROOT, SCRIPTS, SECONDS

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

SECTION = """\
  dispatcher on
  poll-interval 1s
  grace 1s
"""
SCRIPT = """\
from zasync import dispatcher
from zasync.dispatcher import registry
from zasync.interfaces import KEY
print("dispatchers:", len(registry.every()), "waiting:", len(app._p_jar.root()[KEY][""]))
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """One process with a file of its own, which performs jobs."""
    with zope_home(tmp_path, file_in(tmp_path), SECTION) as home:
        home.instance.start_web()
        yield home


def test_jobs_survive_the_sudden_death_by_sigterm_under_waitress(home: Home) -> None:
    assert home.ended(home.put("who"))["result"] == "admin"
    oid = home.put("hold", name="go")
    home.begun(1)
    web, _ = home.instance._processes[0]

    web.send_signal(signal.SIGTERM)
    assert web.wait(60) == -signal.SIGTERM, "nothing of ours stands between the signal and the end"
    home.instance.start_web()
    home.begun(2)
    home.let_go("go")

    told = home.ended(oid)
    assert told["result"] == "go"
    assert told["title"].count("|go") == 1


def test_jobs_are_handed_back_when_the_process_ends_in_good_order(home: Home) -> None:
    oid = home.put("hold", name="go")
    home.begun(1)
    web, _ = home.instance._processes[0]

    web.send_signal(signal.SIGINT)
    assert web.wait(60) == 0
    script = home.work / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [SCRIPTS / "zconsole", "run", home.conf, script],
        env=_environment(home),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    # A script fires the same events, and does not become a worker.
    assert "dispatchers: 0 waiting: 1" in done.stdout

    home.let_go("go")
    home.instance.start_web()
    assert home.ended(oid)["result"] == "go"


def test_the_queues_may_lie_in_a_database_of_their_own(tmp_path: Path) -> None:
    with zope_home(tmp_path, file_in(tmp_path), SECTION + "  database async\n") as home:
        storage = file_in(tmp_path).replace("Data.fs", "Async.fs")
        home.instance.add_to_conf(f"<zodb_db async>\n{storage}\nmount-point /async\n</zodb_db>")
        home.instance.start_web()
        home.let_go("go")

        told = home.ended(home.put("hold", name="go"))

    assert told["result"] == "go"
    assert told["database"] == "async"
    assert told["title"].endswith("|go")


def _environment(home: Home) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_UUID")}
    return kept | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(APPLICATION)])}
