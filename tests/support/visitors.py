# SPDX-License-Identifier: ZPL-2.1
"""Visitors of a web site without a window: they keep cookies, and fill in the forms that they get.

Redirects are not followed and errors are answers too, so that a test sees each of them.
"""

from __future__ import annotations

import base64
import http.cookiejar
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from email.message import Message
from html.parser import HTMLParser
from typing import Any

SECONDS = 60


class Tag:
    """A start tag, and the text between it and the next tag."""

    def __init__(self, name: str, attributes: dict[str, str]) -> None:
        self.name = name
        self.attributes = attributes
        self.text = ""


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[Tag] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(Tag(tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        if self.tags:
            self.tags[-1].text += data


class Answer:
    """What the server has answered."""

    def __init__(self, status: int, headers: Message, body: str, url: str) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.url = url

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def tags(self) -> list[Tag]:
        """The start tags, in order."""
        reader = _Reader()
        reader.feed(self.body)
        reader.close()
        return reader.tags

    def find(self, name: str, /, **attributes: str) -> list[Tag]:
        """The tags of that name with these attributes."""
        return [
            tag
            for tag in self.tags
            if tag.name == name and attributes.items() <= tag.attributes.items()
        ]

    def filled_in(self) -> dict[str, str]:
        """What its form has in its fields already."""
        return {
            tag.attributes["name"]: tag.attributes.get("value", "")
            for tag in self.find("input")
            if tag.attributes.get("type") != "checkbox" or "checked" in tag.attributes
        }

    def value_of(self, field: str) -> str:
        """What a field of a form holds."""
        return self.find("input", name=field)[0].attributes.get("value", "")


class Visitor:
    """Somebody with cookies of their own, and perhaps a name and a password."""

    def __init__(self, site: str, user: tuple[str, str] | None = None) -> None:
        self.site = site
        self.user = user
        self.cookies = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(
            _NoRedirects, urllib.request.HTTPCookieProcessor(self.cookies)
        )

    def get(
        self,
        path: str,
        headers: Mapping[str, str] | None = None,
        *,
        data: bytes | None = None,
        method: str | None = None,
    ) -> Answer:
        """Send a request."""
        url = path if path.startswith("http") else self.site + path
        request = urllib.request.Request(url, data, dict(headers or {}), method=method)
        if self.user is not None:
            given = base64.b64encode(":".join(self.user).encode()).decode()
            request.add_header("Authorization", f"Basic {given}")
        try:
            with self._opener.open(request, timeout=SECONDS) as response:
                return _answer(response)
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error)

    def ask_for_json(self, path: str) -> Answer:
        """As a program asks."""
        return self.get(path, {"Accept": "application/json"})

    def post(
        self, path: str, fields: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a form."""
        data = urllib.parse.urlencode(fields, doseq=True).encode()
        return self.get(path, headers, data=data)

    def post_json(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
        """Send JSON, and ask for it."""
        kind = {"Content-Type": "application/json", "Accept": "application/json"}
        return self.get(path, {**kind, **(headers or {})}, data=json.dumps(body).encode())

    def fill_in(self, path: str, fields: Mapping[str, Any], *, to: str | None = None) -> Answer:
        """Get the page at `path`, fill `fields` into its form, and send that to `to` or back."""
        page = self.get(path)
        assert page.status in (200, 202), (page.status, page.body)
        return self.post(to or path, {**page.filled_in(), **fields})


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _answer(response: Any) -> Answer:
    body = response.read().decode("utf-8", "replace")
    return Answer(response.status, response.headers, body, response.url)
