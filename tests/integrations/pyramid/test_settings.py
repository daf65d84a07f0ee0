# SPDX-License-Identifier: ZPL-2.1
"""What the settings say, and that each error names the setting and what to write."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError

from zasync.integrations.pyramid.settings import Settings, read


def test_without_settings_there_are_defaults() -> None:
    found = read({"pyramid.reload_templates": "true", "shop.name": "Ada's"})
    assert found == Settings()
    assert found.all_queues == ("",)


def test_all_settings_are_read() -> None:
    found = read(
        {
            "zasync.queue": "mail",
            "zasync.queues": "slow\n  fast",
            "zasync.database": "jobs",
            "zasync.application_url": "https://shop.example/ada/",
            "zasync.calls.path": "/jobs/{call_id}",
            "zasync.calls.queue": "slow",
            "zasync.calls.retention": "2d",
            "zasync.calls.poll_interval": "3.5",
            "zasync.worker.size": "7",
            "zasync.worker.poll_interval": "0.5s",
            "zasync.worker.grace": "0",
        }
    )
    assert found == Settings(
        queue="mail",
        queues=("slow", "fast"),
        database="jobs",
        application_url="https://shop.example/ada",
        calls_path="/jobs/{call_id}",
        calls_queue="slow",
        calls_retention=timedelta(days=2),
        calls_poll_interval=timedelta(seconds=3.5),
        worker_size=7,
        worker_poll_interval=0.5,
        worker_grace=0.0,
    )
    assert found.all_queues == ("", "mail", "slow", "fast")


def test_values_from_code_may_have_their_types() -> None:
    found = read(
        {
            "zasync.queues": ["slow"],
            "zasync.calls.retention": timedelta(hours=1),
            "zasync.worker.grace": 5,
            "zasync.worker.size": 4,
            "zasync.calls.path": "",
            "zasync.database": " ",
        }
    )
    assert (found.queues, found.calls_retention) == (("slow",), timedelta(hours=1))
    assert (found.worker_grace, found.worker_size) == (5.0, 4)
    assert (found.calls_path, found.database) == (None, None)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("zasync.queu", "x", "did you mean zasync.queue?"),
        ("zasync.call.retention", "x", "did you mean zasync.calls.retention?"),
        ("zasync.zzzzz", "x", "there are zasync.application_url, zasync.calls.path"),
        ("zasync.queue", "a b", "zasync.queue is the name of one queue, not 'a b'"),
        ("zasync.queue", 7, "zasync.queue is the name of one queue, not 7"),
        ("zasync.queues", [7], "a list of names of queues"),
        ("zasync.database", "a b", "the NAME of a setting zodbconn.uri.NAME"),
        ("zasync.application_url", "shop.example", "with http"),
        ("zasync.application_url", 7, "with http"),
        ("zasync.calls.path", "/jobs", "with {call_id} in it"),
        ("zasync.calls.path", None, "with {call_id} in it"),
        ("zasync.calls.retention", "soon", "a time such as 90, 0.5s, 15m, 12h or 7d, not 'soon'"),
        ("zasync.calls.retention", "0", "more than nothing"),
        ("zasync.calls.retention", True, "a time such as"),
        ("zasync.worker.poll_interval", "0", "more than nothing"),
        ("zasync.worker.size", "0", "a whole number from 1 on, not '0'"),
        ("zasync.worker.size", True, "a whole number from 1 on, not True"),
        ("zasync.worker.size", "two", "a whole number from 1 on, not 'two'"),
        ("zasync.worker.grace", "x" * 1000, "not 'xxx"),
    ],
)
def test_what_is_wrong_is_named(key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Configurator(settings={key: value}).include("zasync.integrations.pyramid")
    words = str(caught.value)
    assert message in words
    assert key in words
    assert len(words) < 600
