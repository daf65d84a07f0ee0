# SPDX-License-Identifier: ZPL-2.1
"""What all pages share: headers, reading a request, tokens in forms, addresses.

No page has a script or style of its own, so the policy in the headers forbids these, and what
a template shows is escaped.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from Products.Five.browser import BrowserView
from Products.Five.browser.pagetemplatefile import ViewPageTemplateFile

from zasync.integrations.zope import ownership
from zasync.integrations.zope.browsers import FIELD, Browser

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",  # the ZMI consists of frames
        "base-uri 'self'",  # Zope puts one in front of default views
    )
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "Accept, Authorization, Cookie",
}

LONGEST_TEXT = 10_000
_DIGITS = 9


class Page(BrowserView):
    """A page of a call manager, which is its `context`."""

    steps = 1
    """How many steps of the page's address come after that of the manager."""

    _frame = ViewPageTemplateFile("templates/frame.pt")

    @property
    def frame(self) -> Any:
        """What the templates have around them."""
        return self._frame.macros

    def __call__(self) -> Any:
        self.set_headers()
        return self.show()

    def show(self) -> Any:
        """The page; by default what its template makes of it."""
        return self.index()

    def set_headers(self) -> None:
        """Forbid scripts and styles in the page, and keeping it."""
        for name, value in HEADERS.items():
            self.request.response.setHeader(name, value)

    # Addresses

    @property
    def base(self) -> str:
        """The manager's address, as it was asked for: through whatever folders."""
        return str(self.request[f"URL{self.steps}"])

    @property
    def resources(self) -> str:
        """Where the style sheet and the script are."""
        return f"{self.request.get('BASEPATH1', '')}/++resource++zasync"

    def go(self, address: str) -> str:
        """Send the browser on, after a form: 303, so that it does not send the form again."""
        self.request.response.redirect(address, status=303)
        return ""

    # Who asks

    @property
    def user(self) -> str:
        """The user's name, for people."""
        user = ownership.current_user()
        return "nobody" if ownership.is_anonymous(user) else str(user.getUserName())

    @property
    def is_manager(self) -> bool:
        """Whether the user may see all calls."""
        return bool(self.context.may_manage())

    # Forms

    @property
    def browser(self) -> Browser:
        """The browser that has sent the request."""
        return self.context.browser(self.request)  # type: ignore[no-any-return]

    @property
    def token_field(self) -> str:
        """The name of the hidden field."""
        return FIELD

    @property
    def token(self) -> str:
        """The value of the hidden field in each form of the page."""
        return self.browser.token(self._user_key())

    def check_form(self) -> None:
        """Forbidden unless this user posted it from one of our pages."""
        self.browser.check(self._user_key(), token=self.text(FIELD))

    def _user_key(self) -> str:
        user = ownership.current_user()
        return ownership.user_owner(user) or str(user.getUserName())

    def text(self, name: str, default: str = "") -> str:
        """A field of the form, cut to LONGEST_TEXT; `default` if it is none, or no text.

        The last one if it was sent twice: in the address and in the form.
        """
        value = self.request.form.get(name, default)
        if isinstance(value, list) and value:
            value = value[-1]
        return value[:LONGEST_TEXT] if isinstance(value, str) else default

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number of the form, brought between `least` and `most`."""
        text = self.text(name).strip()
        if not (text.isascii() and text.isdigit()):
            return default
        return max(least, min(int(text[:_DIGITS]), most))

    def give_json(self, body: dict[str, Any], status: int = 200) -> str:
        """Answer a program."""
        self.request.response.setStatus(status)
        self.request.response.setHeader("Content-Type", "application/json; charset=utf-8")
        return json.dumps(body)


def wants_json(request: Any) -> bool:
    """Whether who asks would rather have JSON than HTML."""
    wanted: dict[str, float] = {}
    for part in (request.getHeader("Accept") or "").split(",")[:50]:
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        wanted[kind] = max(quality, wanted.get(kind, 0.0))
    html = max(wanted.get(kind, 0.0) for kind in ("text/html", "application/xhtml+xml"))
    return wanted.get("application/json", 0.0) > html


def moment(when: datetime | None) -> str | None:
    """A moment for people, in UTC."""
    return None if when is None else f"{when:%Y-%m-%d %H:%M:%S} UTC"


def span(length: timedelta) -> str:
    """A length of time for people, in its largest unit, rounded down."""
    seconds = max(0, int(length.total_seconds()))
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return f"{seconds // size} {name}s"
    return f"{seconds} second{'' if seconds == 1 else 's'}"
