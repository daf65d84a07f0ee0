# SPDX-License-Identifier: ZPL-2.1
"""`zasync worker --pyramid`: real worker processes over ZEO, and what is told when it cannot be."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyramid.config import global_registries

from tests.acceptance.cli.commands import Desk
from tests.integrations.pyramid import application as shop
from tests.integrations.pyramid.conftest import Web
from tests.support.zeo import ZeoServer
from zasync.job import Job

pytestmark = [pytest.mark.process, pytest.mark.slow]

INI = """\
[app:main]
use = call:tests.integrations.pyramid.application:main
shop.name = of the file
zasync.application_url = https://shop.example
zasync.worker.size = 2
{more}

[server:main]
use = egg:waitress#main
"""
LOGGING = """
[loggers]
keys = root
[handlers]
keys = file
[formatters]
keys = plain
[logger_root]
level = INFO
handlers = file
[handler_file]
class = FileHandler
args = ("shop.log",)
formatter = plain
[formatter_plain]
format = %(name)s %(message)s
"""


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def write_ini(desk: Desk, *lines: str, rest: str = "") -> str:
    desk.path("development.ini").write_text(INI.format(more="\n".join(lines)) + rest)
    return "development.ini"


@pytest.fixture
def web(zeo_server: ZeoServer) -> Iterator[Web]:
    web = Web({"zodbconn.uri": zeo_server.uri, "shop.name": "of the test"})
    yield web
    web.close()
    global_registries.empty()


def test_a_worker_process_performs_what_requests_ask_for(
    desk: Desk, web: Web, zeo_server: ZeoServer
) -> None:
    ini = write_ini(desk, f"zodbconn.uri = {zeo_server.uri}")
    gate = desk.path("gate")
    desk.environment["SHOP_GATE"] = str(gate)
    ada = web.user("ada")
    where = ada.post("/report", {"year": "2025"}, status=202).headers["Location"]
    with desk.started("worker", "--pyramid", ini, "--poll-interval", "0.2") as worker:
        web.site.until(lambda: ada.get(where).json["state"] == "accepted", "the worker", 60)
        gate.touch()
        web.site.until(lambda: ada.get(where).status_int == 200, "the result", 60)
        assert ada.get(where).json["result"]["url"] == "https://shop.example/report"
        job = web.site.put(Job(shop.look_around))
        web.site.completed(job, seconds=60)
        assert job.result["settings"] == "of the file"
        assert job.result["process"] == worker.process.pid
        [record] = web.site.queue.dispatchers.values()
        assert record["main"].size == 2
        worker.signal(signal.SIGTERM)
        assert worker.ends() == 0, worker.output
    web.site.manager.begin()
    assert web.shop["reports"] == 1
    [record] = web.site.queue.dispatchers.values()
    assert record.activated is None, "it said goodbye"


def test_a_worker_that_is_killed_loses_nothing(desk: Desk, web: Web, zeo_server: ZeoServer) -> None:
    ini = write_ini(desk, f"zodbconn.uri = {zeo_server.uri}")
    gate = desk.path("gate")
    desk.environment["SHOP_GATE"] = str(gate)
    ada = web.user("ada")
    where = ada.post("/report", {"year": "2025"}, status=202).headers["Location"]
    with desk.started("worker", "--pyramid", ini) as worker:
        web.site.until(lambda: ada.get(where).json["progress"]["text"], "the worker", 60)
        worker.signal(signal.SIGKILL)
        worker.ends()
    assert ada.get(where, status=202).json["state"] == "accepted"
    gate.touch()
    with desk.started("worker", "--pyramid", ini):
        web.site.until(lambda: ada.get(where).status_int == 200, "the result", 60)
    assert web.shop["reports"] == 1


def test_several_processes_share_two_databases_of_a_server(desk: Desk, tmp_path: Path) -> None:
    with ZeoServer(str(tmp_path / "A.fs")) as data, ZeoServer(str(tmp_path / "J.fs")) as jobs:
        lines = [f"zodbconn.uri = {data.uri}", f"zodbconn.uri.jobs = {jobs.uri}"]
        ini = write_ini(desk, *lines, "zasync.database = jobs")
        web = Web(
            {
                "zodbconn.uri": data.uri,
                "zodbconn.uri.jobs": jobs.uri,
                "zasync.database": "jobs",
            }
        )
        try:
            options = ("--processes", "2", "--poll-interval", "0.2", "--size", "1")
            with desk.started("worker", "--pyramid", ini, *options) as worker:
                done = [web.site.put(Job(shop.look_around)) for _ in range(20)]
                web.site.completed(*done, seconds=60)
                assert all(job.result["connection"] for job in done)
                worker.signal(signal.SIGTERM)
                assert worker.ends() == 0, worker.output
        finally:
            web.close()
            global_registries.empty()


def test_the_logging_of_the_file_is_set_up(desk: Desk, tmp_path: Path) -> None:
    ini = write_ini(desk, f"zodbconn.uri = file://{tmp_path}/Data.fs", rest=LOGGING)
    with desk.started("worker", "--pyramid", ini) as worker:
        _says(desk, "zasync.events")
        worker.signal(signal.SIGTERM)
        assert worker.ends() == 0


def _says(desk: Desk, text: str) -> None:
    from tests.support.running import until

    until(lambda: text in "\n".join(desk.lines("shop.log")), text, 60)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["zasync.queu = x"], "did you mean zasync.queue?"),
        (["zasync.worker.grace = long"], "zasync.worker.grace is a time such as 90"),
        (["zasync.database = jobs", "zodbconn.uri = memory://"], "there is no zodbconn.uri.jobs"),
        ([], "needs the setting zodbconn.uri of pyramid_zodbconn"),
    ],
)
def test_what_is_wrong_in_the_file_is_one_line(desk: Desk, lines: list[str], message: str) -> None:
    ini = write_ini(desk, *lines)
    ended = desk.run("worker", "--pyramid", ini)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "development.ini" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.ini", None, "there is no file none.ini"),
        ("empty.ini", "", "empty.ini cannot be read: No "),
        ("odd.ini", "x\n", "odd.ini cannot be read: "),
        ("other.ini", "[app:main]\nuse = egg:gone", "other.ini cannot be read: "),
    ],
)
def test_a_file_that_is_none_is_told(desk: Desk, name: str, text: str | None, message: str) -> None:
    if text is not None:
        desk.path(name).write_text(text)
    ended = desk.run("worker", "--pyramid", name)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_application_without_zasync_is_told(desk: Desk) -> None:
    desk.path("bare.py").write_text(
        "from pyramid.config import Configurator\n"
        "def main(global_config, **settings):\n"
        "    return Configurator(settings=settings).make_wsgi_app()\n"
    )
    desk.path("bare.ini").write_text("[app:main]\nuse = call:bare:main\n")
    ended = desk.run("worker", "--pyramid", "bare.ini")
    assert ended.returncode == 2
    assert "does not include zasync" in ended.stderr


def test_a_file_that_another_process_has_open_is_told(desk: Desk, tmp_path: Path) -> None:
    ini = write_ini(desk, f"zodbconn.uri = file://{tmp_path}/Data.fs")
    with desk.started("worker", "--pyramid", ini) as worker:
        worker.says("dispatcher")
        ended = desk.run("worker", "--pyramid", ini)
        assert ended.returncode == 3
        assert "Data.fs is open in process" in ended.stderr
        assert "Traceback" not in ended.stderr
    several = desk.run("worker", "--pyramid", ini, "--processes", "2")
    assert several.returncode == 2
    assert "zodbconn.uri of development.ini is a file" in several.stderr


def test_a_server_that_does_not_answer_is_told(desk: Desk) -> None:
    ini = write_ini(desk, "zodbconn.uri = zeo://127.0.0.1:9?wait_timeout=1")
    ended = desk.run("worker", "--pyramid", ini)
    assert ended.returncode == 3
    assert "no ZEO server answered at" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_only_one_thing_can_be_named(desk: Desk) -> None:
    for arguments in [(), ("--db", "Data.fs", "--pyramid", "x.ini")]:
        ended = desk.run("worker", *arguments)
        assert ended.returncode == 2
        assert "name one of: a database (--db URI)" in ended.stderr


def test_without_pyramid_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from zasync.cli.errors import CommandError
    from zasync.cli.hosting import host_of

    name = "zasync.integrations.pyramid.hosting"
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(CommandError, match=r"pip install 'zasync\[pyramid\]'"):
        host_of(None, None, "development.ini")
