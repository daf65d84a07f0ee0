# SPDX-License-Identifier: ZPL-2.1
"""What cannot be done ends with exit code 2 and one line, which names the thing."""

import pytest

from .commands import Desk

pytestmark = pytest.mark.process

PUT = ("put", "--db", "Data.fs")


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ((*PUT, "nowhere:add"), "No module named 'nowhere'"),
        ((*PUT, "broken:add"), "cannot import 'broken': ZeroDivisionError: division by zero"),
        ((*PUT, "application:nothing"), "module 'application' has no 'nothing'"),
        ((*PUT, "application"), "write MODULE:FUNCTION"),
        ((*PUT, "application:add", "hello"), "a string is written with both quotes: '\"hello\"'"),
        ((*PUT, "application:add", "--kwargs", "[1]"), "must be a JSON object"),
        ((*PUT, "--queue", "mail", "application:add", "1"), "no queue 'mail'"),
        ((*PUT, "--wait", "application:add", "1"), "admits one process"),
        (("put", "--db", "odd://x", "application:add"), "no storage is known for odd://"),
        (("put", "--db", "no/where/Data.fs", "application:add"), "does not exist"),
        (("worker", "--db", "Data.fs", "--queue", "mail"), "no queue 'mail'"),
        (("worker", "--db", "Data.fs", "--processes", 2, "--queue", "mail"), "no queue 'mail'"),
        (("worker", "--db", "zeo://"), "zeo://"),
        (("status", "--db", "missing.fs"), "there is no database missing.fs"),
        (("demo", "--resume"), "there is no ./zasync-demo to resume"),
        (("demo", "--path", "empty"), "there are no files to index"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    desk: Desk, args: tuple[object, ...], named: str
) -> None:
    desk.path("broken.py").write_text("1 / 0\n")
    desk.path("empty").mkdir()
    ended = desk.run(*args)
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("zasync: ")
    assert named in line


def test_a_server_that_does_not_answer_has_an_exit_code_of_its_own(desk: Desk) -> None:
    for command in ("status", "worker"):
        ended = desk.run(command, "--db", "zeo://127.0.0.1:1?wait_timeout=1")
        assert ended.returncode == 3
        (line,) = ended.stderr.splitlines()
        assert "no ZEO server answered" in line


def test_a_file_that_another_process_has_open_is_told_in_one_line(desk: Desk) -> None:
    with desk.started("worker", "--db", "Data.fs") as worker:
        worker.says("works queue")
        ended = desk.run(*PUT, "application:add", 1)
        worker.signal()
        assert worker.ends() == 0
    assert ended.returncode == 3
    (line,) = ended.stderr.splitlines()
    assert f"is open in process {worker.process.pid}" in line


def test_debug_shows_where_an_error_comes_from(desk: Desk) -> None:
    ended = desk.run("--debug", "status", "--db", "missing.fs")
    assert ended.returncode == 2
    assert "Traceback (most recent call last)" in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("zasync: there is no database")


def test_version_names_what_zasync_stands_on(desk: Desk) -> None:
    printed = desk.done("version")
    for name in ("zasync", "Python", "ZODB", "ZEO", "transaction", "Twisted"):
        assert f"{name} " in printed
