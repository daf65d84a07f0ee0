# SPDX-License-Identifier: ZPL-2.1
"""Code of the tests in the processes of the instance: stops a job at a place, and sample jobs.

A test makes the file `signs/stop-<id>`.  The first workflow change of the document of that id is
held up, told by `signs/stopped-<id>`, until there is `signs/go-<id>`.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

SECONDS = 90


def signs() -> Path:
    from App.config import getConfiguration

    return Path(getConfiguration().instancehome) / "signs"


def state_changed(document: Any, event: Any) -> None:
    """Subscriber: hold up a change, once, if a test wants it."""
    name = document.getId()
    wanted = signs() / f"stop-{name}"
    if event.action is None or not wanted.exists():
        return
    wanted.rename(signs() / f"stopped-{name}")
    wait_for(signs() / f"go-{name}")


def wait_for(sign: Path) -> None:
    pause = threading.Event()
    for _ in range(SECONDS * 10):
        if sign.exists():
            return
        pause.wait(0.1)
    raise AssertionError(f"{sign.name} did not come")


# Jobs


def explodes(document: Any, event: Any) -> None:
    """Subscriber: the workflow change of a document of this id raises."""
    if document.getId() == "d-explodes" and event.action is not None:
        raise RuntimeError("this one <b>explodes</b>")


def fail_until(name: str) -> str:
    """Fails until there is the sign; so its retry can succeed."""
    if not (signs() / name).exists():
        raise ValueError("<script>alert('no')</script> is not there yet")
    return "done"


def make_document(folder: Any, name: str) -> dict[str, Any]:
    """Makes a document as the present user; answers who and where that was."""
    import plone.api
    from zope.globalrequest import getRequest

    from zasync.integrations.plone.interfaces import IZasyncLayer

    document = plone.api.content.create(folder, "Document", id=name, title=name.title())
    return {
        "creators": list(document.creators),
        "user": plone.api.user.get_current().getId(),
        "url_ends": document.absolute_url_path(),
        "language": plone.api.portal.get_current_language(),
        "layer": IZasyncLayer.providedBy(getRequest()),
        "translated": plone.api.portal.translate("Folder", domain="plone"),
    }


def finds_what_it_made(folder: Any) -> int:
    """How many documents the catalog knows in the folder, before the commit."""
    import plone.api

    from zasync.integrations.plone.job import index_now

    plone.api.content.create(folder, "Document", id="fresh", title="Fresh")
    index_now()
    return len(plone.api.content.find(context=folder, portal_type="Document"))


def import_prices(name: str) -> None:
    """Fails as such things do."""
    rows = {"apple": "1.20", "pear": "one fifty"}
    for product, price in rows.items():
        if not price.replace(".", "").isdigit():
            raise ValueError(f"{name}: the price of {product!r} is no number: {price!r}")


def sees_to_nothing(work: Any) -> None:
    """A step that forgets to note what it has done."""
