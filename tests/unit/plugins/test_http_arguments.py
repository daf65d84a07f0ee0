# SPDX-License-Identifier: ZPL-2.1
"""What http_fetch refuses where its job is made."""

from __future__ import annotations

from typing import Any

import pytest

from zasync import plugins


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        (None, TypeError, "a URL is text, not None"),
        ("", ValueError, "only http and https are"),
        ("example.com/x", ValueError, "only http and https are"),
        ("file:///etc/passwd", ValueError, "only http and https are"),
        ("ftp://example.com/x", ValueError, "only http and https are"),
        ("gopher://example.com:70/x", ValueError, "only http and https are"),
        ("http://", ValueError, "from a host"),
        ("https:///x", ValueError, "from a host"),
        ("http://ada:hush@example.com/", ValueError, "has a user or a password in it"),
        ("http://token@example.com/", ValueError, "has a user or a password in it"),
        ("http://example.com:99999/", ValueError, "is no URL"),
        ("http://example.com:0/", ValueError, "has the port 0"),
        ("http://example.com:x/", ValueError, "is no URL"),
        ("http://[::1/", ValueError, "is no URL"),
        ("http://example.com/\r\nHost: x", ValueError, "control characters"),
        (" http://example.com/", ValueError, "control characters"),
        ("http://example.com/" + "x" * 5000, ValueError, "too long for a URL"),
    ],
)
def test_a_url_must_be_one_that_is_fetched(url: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        plugins.job_for("http_fetch", url)
    assert "hush" not in str(raised.value)
    assert "token@" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"limit": 0}, ValueError, "limit is above 0"),
        ({"limit": 1.5}, TypeError, "limit is a whole number"),
        ({"limit": True}, TypeError, "limit is a whole number"),
        ({"timeout": 0}, ValueError, "timeout is above 0"),
        ({"timeout": float("inf")}, ValueError, "timeout is above 0"),
        ({"timeout": "5"}, TypeError, "timeout is a number"),
        ({"connect_timeout": -1}, ValueError, "connect_timeout is above 0"),
        ({"redirects": -1}, ValueError, "redirects is above -1"),
        ({"redirects": 21}, ValueError, "at most 20"),
        ({"credential": ("ada", "hush")}, TypeError, "credential is the name of one, not tuple"),
        ({"sha256": "abc"}, ValueError, "64 hexadecimal digits"),
        ({"sha256": "g" * 64}, ValueError, "64 hexadecimal digits"),
        ({"headers": [("a", "b")]}, TypeError, "headers are a mapping"),
        ({"headers": {"a": 1}}, TypeError, "are text"),
        ({"headers": {"a": "b\r\nc: d"}}, ValueError, "characters that none may have"),
        ({"headers": {"Authorization": "hush"}}, ValueError, "name a credential instead"),
        ({"headers": {"Cookie": "hush"}}, ValueError, "name a credential instead"),
        ({"headers": {"host": "other"}}, ValueError, "name a credential instead"),
        ({"allow_private": True}, TypeError, "allow_private"),
    ],
)
def test_options_must_make_sense(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        plugins.job_for("http_fetch", "http://example.com/x", **options)
    assert "hush" not in str(raised.value)


def test_what_is_right_makes_a_job() -> None:
    job = plugins.job_for(
        "http_fetch",
        "https://example.com:8443/x?y#z",
        limit=5,
        timeout=1.5,
        redirects=0,
        headers={"Accept": "text/html"},
        credential="shop",
        sha256="0" * 64,
    )

    assert job.callable_name == "zasync.plugins.http_fetch.http_fetch"
