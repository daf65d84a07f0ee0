# SPDX-License-Identifier: ZPL-2.1
"""How the demo names the command that it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from zasync.cli.demo_report import command_name


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command in a directory that is not on the PATH."""
    command = tmp_path / "venv" / "zasync"
    command.parent.mkdir()
    command.touch(mode=0o755)
    monkeypatch.setattr("sys.argv", [str(command), "demo"])
    monkeypatch.setenv("PATH", "")
    return command


def test_a_command_below_the_working_directory_is_named_by_its_relative_path(
    called: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command_name() == "venv/zasync"


def test_a_command_elsewhere_is_named_by_its_path(
    called: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert command_name() == str(called)


def test_a_command_on_the_path_is_named_as_it_is(
    called: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(called.parent))
    assert command_name() == "zasync"


def test_a_module_that_was_run_is_named_as_the_command(
    called: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/zasync/__main__.py"])
    assert command_name() == "zasync"
