# SPDX-License-Identifier: ZPL-2.1
"""What asks a command to stop."""

import os
import signal
from pathlib import Path

import pytest

from zasync.cli.signals import Requests, stop_requests


def test_a_signal_is_a_request_and_nothing_else_as_long_as_the_block() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as requests:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert {requests.wait(5), requests.wait(5)} == {"SIGTERM", "SIGINT"}
        assert requests.wait(0) is None
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_two_sources_say_is_one_request() -> None:
    requests = Requests()
    requests.post("SIGTERM", "signal")
    requests.post("end of input")
    assert requests.wait(5) == "SIGTERM"
    assert requests.wait(5) is None
    requests.post("SIGTERM", "signal")
    assert requests.wait(5) == "SIGTERM"


def test_the_end_of_input_is_a_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    chunks = iter([b"something", b""])
    monkeypatch.setattr("zasync.cli.signals.os.read", lambda descriptor, size: next(chunks))
    requests = Requests()
    requests.post_at_end_of_input()
    assert requests.wait(5) == "end of input"
