# SPDX-License-Identifier: ZPL-2.1
"""The cookie that names a browser, and the token that a form has to bring back."""

from __future__ import annotations

from typing import Any

import pytest
from zExceptions import Forbidden, MethodNotAllowed

from zasync.integrations.zope import browsers, ownership
from zasync.integrations.zope.browsers import Browser


class Response:
    def __init__(self) -> None:
        self.cookies: list[tuple[str, str, dict[str, Any]]] = []

    def setCookie(self, name: str, value: str, **options: Any) -> None:
        self.cookies.append((name, value, options))


class Request(dict[str, Any]):
    """As much of a request as is asked."""

    def __init__(self, headers: dict[str, str] | None = None, **values: Any) -> None:
        super().__init__({"REQUEST_METHOD": "POST", "SERVER_URL": "https://here.example"} | values)
        self.cookies: dict[str, str] = {}
        self.response = Response()
        self.headers = headers or {}

    def getHeader(self, name: str) -> str | None:
        return self.headers.get(name)


def browser(request: Request, secret: bytes = b"secret") -> Browser:
    return Browser(request, secret, "cookie")


def test_a_new_browser_gets_a_cookie_that_scripts_and_other_sites_cannot_have():
    request = Request(BASEPATH1="/site")

    assert browser(request).key is None
    key = browser(request).need_key()

    [(name, value, options)] = request.response.cookies
    assert (name, value.partition(".")[0]) == ("cookie", key)
    assert options == {"path": "/site", "http_only": True, "same_site": "Lax", "secure": True}
    assert browser(request).need_key() == key
    assert len(request.response.cookies) == 1


def test_over_http_the_cookie_is_not_marked_as_secure():
    request = Request(SERVER_URL="http://here.example")

    browser(request).need_key()

    [(_, _, options)] = request.response.cookies
    assert (options["secure"], options["path"]) == (False, "/")


@pytest.mark.parametrize(
    "value", ["", ".", "key", "key.", ".sign", "key.sign", "kéy.\ud800", "key." + "0" * 64]
)
def test_a_cookie_that_we_have_not_signed_names_nobody(value: str):
    request = Request()
    request.cookies["cookie"] = value

    assert browser(request).key is None


def test_a_cookie_of_another_manager_names_nobody():
    request = Request()
    browser(request, b"other").need_key()

    assert browser(request).key is None


def test_a_token_fits_one_user_in_one_browser():
    request, other = Request(), Request()
    token = browser(request).token("alice")
    browser(other).need_key()

    browser(request).check("alice", token=token)
    for where, user, given in (
        (request, "bob", token),
        (request, "alice", ""),
        (request, "alice", None),
        (request, "alice", token[:-1]),
        (request, "alice", "ü" + token),
        (other, "alice", token),
        (Request(), "alice", token),
    ):
        with pytest.raises(Forbidden):
            browser(where).check(user, token=given)


def test_only_a_post_changes_something():
    for method in ("GET", "HEAD", "PUT", "DELETE", ""):
        with pytest.raises(MethodNotAllowed) as caught:
            browsers.check_method(Request(REQUEST_METHOD=method))
        assert caught.value.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://here.example"}, False),
        ({"Origin": "https://HERE.example"}, True),
        ({"Origin": "http://here.example"}, False),
        ({"Origin": "https://here.example.evil"}, False),
        ({"Origin": "https://here.example:444"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
    ],
)
def test_a_form_comes_from_our_own_site(headers: dict[str, str], allowed: bool):
    if allowed:
        browsers.check_origin(Request(headers))
    else:
        with pytest.raises(Forbidden):
            browsers.check_origin(Request(headers))


@pytest.mark.parametrize(
    ("owner", "title"),
    [
        (None, "the application"),
        ("user:/site/acl_users:anna:b", "anna:b (/site/acl_users)"),
        ("browser:12345678A", "an anonymous visitor"),
        ("cookie:key", "an anonymous visitor"),
    ],
)
def test_an_owner_is_told_without_what_could_be_used(owner: str | None, title: str):
    assert ownership.title_of(owner) == title
