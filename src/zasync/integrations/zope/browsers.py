# SPDX-License-Identifier: ZPL-2.1
"""Which browser a request comes from, and whether a change was asked for on a page of ours.

The browser has a cookie with a random key that only we can sign.  It names an anonymous visitor,
and each form carries a token made of it, of the user and of the manager's secret, which a page
of somebody else can neither read nor make.  What changes something takes POST requests only.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any
from urllib.parse import urlsplit

from zExceptions import Forbidden, MethodNotAllowed

FIELD = "zasync_token"
"""The hidden field of each form."""

KEY_BYTES = 16
_SAME_SITE = ("same-origin", "none")  # "none": typed, or from a bookmark


class Browser:
    """The browser behind `request`, as the holder of `secret` knows it; `name` is the cookie's."""

    def __init__(self, request: Any, secret: bytes, name: str) -> None:
        self._request = request
        self._secret = secret
        self._name = name

    @property
    def key(self) -> str | None:
        """The random key of its cookie; None if it has none that we have signed."""
        key, _, signature = str(self._request.cookies.get(self._name, "")).partition(".")
        if key and _equal(signature, self._sign("browser", key)):
            return key
        return None

    def need_key(self) -> str:
        """The same; a browser without one is given one with this response."""
        key = self.key
        if key is None:
            key = secrets.token_urlsafe(KEY_BYTES)
            value = f"{key}.{self._sign('browser', key)}"
            self._request.cookies[self._name] = value
            self._request.response.setCookie(
                self._name,
                value,
                path=self._request.get("BASEPATH1") or "/",
                http_only=True,
                same_site="Lax",
                secure=self._request.get("SERVER_URL", "").startswith("https:"),
            )
        return key

    def token(self, user: str) -> str:
        """What a form for `user` carries; gives the browser its cookie if need be."""
        return self._sign("token", self.need_key(), user)

    def check(self, user: str, *, token: object) -> None:
        """Forbidden, or MethodNotAllowed, unless `user` posted this from a page of this site."""
        check_method(self._request)
        check_origin(self._request)
        key = self.key
        if key is None or not _equal(str(token), self._sign("token", key, user)):
            raise Forbidden(
                "This form is not, or not any more, one that we gave to you. Go back, load the"
                " page again, and repeat what you did."
            )

    def _sign(self, *parts: str) -> str:
        message = "\0".join(parts).encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()


def check_method(request: Any) -> None:
    """MethodNotAllowed unless it is a POST."""
    if request.get("REQUEST_METHOD") != "POST":
        error = MethodNotAllowed("This changes something, so it takes a POST request.")
        error.setHeader("Allow", "POST")
        raise error


def check_origin(request: Any) -> None:
    """Forbidden if the browser says that a page of another site has sent this."""
    site = request.getHeader("Sec-Fetch-Site")
    if site is not None:
        allowed = site in _SAME_SITE
    else:
        origin = request.getHeader("Origin")
        allowed = origin is None or _host(origin) == _host(request.get("SERVER_URL", ""))
    if not allowed:
        raise Forbidden("A page of another site has sent this form.")


def _host(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def _equal(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())
