# SPDX-License-Identifier: ZPL-2.1
"""`zasync worker --zope`: the same zope.conf as the web process, over ZEO, in real processes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.zope.zope_home import Home, call_worker, client_of, one_line, zope_home
from tests.support.zeo import ZeoServer
from tests.support.zope_instance import ADMIN

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]


@pytest.fixture
def home(tmp_path: Path, zeo_server: ZeoServer) -> Iterator[Home]:
    """A web process over ZEO, whose zope.conf a worker is to have."""
    storage = client_of(zeo_server.address)
    with zope_home(tmp_path, storage, "  poll-interval 1s\n  grace 1s\n  size 2") as home:
        home.instance.start_web()
        home.instance.add_user("alice", "secret")
        yield home


def test_a_worker_runs_jobs_as_the_users_and_survives_everything(home: Home) -> None:
    worker = home.instance.start_worker()
    assert home.ended(home.put("who", ("alice", "secret")))["result"] == "alice"
    assert home.ended(home.put("who"))["result"] == "admin"
    assert home.ended(home.put("who", None))["result"] == "None"

    assert home.instance.visitor(ADMIN).post("/make_site", {}).status == 200
    assert home.ended(home.put("where", where="/branch"))["result"] == "/branch"

    # Told to stop, it hands back what does not end within the grace time, and ends cleanly.
    oid = home.put("hold", name="one")
    home.begun(1)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert "running ones have 1 s to end" in home.log(1)
    assert home.look(oid)["status"] != "completed-status"

    # Killed, it loses nothing: the next one recognises what it was.
    second = home.instance.start_worker()
    home.begun(2)
    second.kill()
    second.wait(60)
    third = home.instance.start_worker()
    home.begun(3)
    home.let_go("one")
    told = home.ended(oid)
    assert told["result"] == "one"
    assert told["title"].count("|one") == 1, "its effects are there exactly once"

    third.send_signal(signal.SIGTERM)
    assert third.wait(60) == 0
    assert "Serving on" not in home.log(3)


def test_what_is_wrong_is_told_in_one_line(tmp_path: Path, zeo_server: ZeoServer) -> None:
    with zope_home(tmp_path, client_of(zeo_server.address)) as home:
        conf = str(home.conf)

        missing = call_worker("--zope", conf + ".missing")
        assert missing.returncode == 2
        assert "zope.conf.missing cannot be read: No such file" in one_line(missing.stderr)

        unknown = call_worker("--zope", conf, "--queue", "nowhere")
        assert unknown.returncode == 2
        assert "no queue 'nowhere'" in one_line(unknown.stderr)

        both = call_worker("--zope", conf, "--db", "Data.fs")
        assert both.returncode == 2
        assert "name one of" in one_line(both.stderr)

        zeo_server.end()
        away = call_worker("--zope", conf)
        assert away.returncode == 3
        assert "<zodb_db main>" in one_line(away.stderr)
        assert zeo_server.address in one_line(away.stderr)

        home.instance.edit("zope.conf", lambda text: text.replace("</zasync>", "siz 3\n</zasync>"))
        typo = call_worker("--zope", conf)
        assert typo.returncode == 2
        line = home.conf.read_text().splitlines().index("siz 3") + 1
        assert f"zope.conf, line {line}: 'siz' is not a known key name" in one_line(typo.stderr)


def test_several_workers_share_the_jobs_of_a_server(home: Home) -> None:
    worker = home.instance._start("workers", _several(home))
    oids = [home.put("hold", name="go") for _ in range(3)]
    home.begun(3)
    assert len({line.split()[1] for line in home.began()}) == 2, "two at once in each process"
    home.let_go("go")
    for oid in oids:
        assert not home.ended(oid)["failed"]
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0


def _several(home: Home) -> list[str]:
    return [sys.executable, "-m", "zasync", "worker", "--zope", str(home.conf), "--processes", "2"]
