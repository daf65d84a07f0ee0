# SPDX-License-Identifier: ZPL-2.1
"""What a worker works in is named once, and set up only if it can be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from zasync.cli.errors import CommandError
from zasync.cli.hosting import Bare, host_of
from zasync.cli.worker import Wishes


@pytest.mark.parametrize(("uri", "zope"), [(None, None), ("Data.fs", "zope.conf")])
def test_exactly_one_thing_is_to_be_named(uri: str | None, zope: str | None) -> None:
    with pytest.raises(CommandError, match=r"name one of: a database \(--db URI\)"):
        host_of(uri, zope)


def test_without_zope_its_option_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zasync.integrations.zope.hosting", None)

    with pytest.raises(CommandError, match=r"pip install 'zasync\[zope\]'"):
        host_of(None, "zope.conf")


def test_a_bare_database_is_open_as_long_as_it_is_worked_in(tmp_path: Path) -> None:
    host = host_of(str(tmp_path / "Data.fs"), None)
    assert isinstance(host, Bare)
    assert host.options == ["--db", host.source]

    with host.around():
        db = host.open()
        connection = db.open()
        connection.close()
    assert db.storage is not None
    with host_of(str(tmp_path / "Data.fs"), None).around():
        pass
    with Bare(str(tmp_path / "Data.fs")).around():
        Bare(str(tmp_path / "Data.fs")).check_shareable()


def test_the_command_line_goes_before_the_configuration() -> None:
    nothing = Wishes((), None, None, None, None, None)
    bare = Bare("Data.fs").defaults()

    work = nothing.over(bare)
    assert (work.size, work.poll_interval, work.grace) == (None, 5.0, 30.0)
    work = Wishes((), 7, None, 0.5, 0.0, None).over(bare)
    assert (work.size, work.poll_interval, work.grace) == (7, 0.5, 0.0)


def test_a_child_is_told_what_its_parent_was_told() -> None:
    options = Wishes(("a", "b"), 7, 100, 0.5, 9.0, (1.0, 4.0)).options()

    pairs = [(name, value) for name, value in zip(options[::2], options[1::2], strict=True)]
    assert pairs == [
        ("--queue", "a"),
        ("--queue", "b"),
        ("--size", "7"),
        ("--batch", "100"),
        ("--ping-interval", "1.0"),
        ("--death-interval", "4.0"),
        ("--poll-interval", "0.5"),
    ]
