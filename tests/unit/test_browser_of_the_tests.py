# SPDX-License-Identifier: ZPL-2.1
"""Where there is no browser, tests of pages are skipped; where CI promises one, they fail."""

from __future__ import annotations

import pytest

from tests.support import chromium, programs


def test_without_a_browser_a_test_is_skipped_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CI", "")

    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium chromium-driver"):
        chromium.need_browser()


def test_in_ci_a_missing_browser_is_a_failure(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CI", "true")

    with pytest.raises(pytest.fail.Exception, match="in CI nothing is skipped"):
        chromium.need_browser()


def test_who_may_not_install_one_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PATH", "")

    assert programs.main() == 0
    assert "Some tests will be skipped: chromium and" in capsys.readouterr().err
