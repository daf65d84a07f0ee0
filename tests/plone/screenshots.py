# SPDX-License-Identifier: ZPL-2.1
"""Takes the pictures of docs/plone.md: `python -m tests.plone.screenshots DIRECTORY`.

A real site, a real worker, a real browser.  The job that is half done is held up where it is.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.plone import meddling
from tests.plone.plone_instance import CHIEF, EDITOR, PloneInstance, add_documents, plone_instance
from tests.plone.test_jobs import put_as
from tests.support.chromium import browser, missing

WIDTH = 1200


def main() -> None:
    directory = Path(sys.argv[1])
    directory.mkdir(exist_ok=True)
    reason = missing()
    if reason is not None:
        sys.exit(reason)
    with (
        tempfile.TemporaryDirectory(prefix="plone-") as place,
        plone_instance(Path(place)) as plone,
    ):
        plone.start_web()
        plone.start_worker()
        prepare(plone)
        take(plone, directory)
        (plone.signs / "go-d21").touch()


def prepare(plone: PloneInstance) -> None:
    """One job that failed, one that is half done."""
    failed = put_as(plone, "anna", meddling.import_prices, "prices.csv", label="Import prices.csv")
    plone.finished(failed, CHIEF)
    with plone.changed() as site:
        paths = add_documents(site, "spring", 60)
    (plone.signs / "stop-d21").touch()
    body = {"items": paths, "label": "Publish the spring edition"}
    plone.rest("@bulk-transition", EDITOR, body)
    plone.wait_until((plone.signs / "stopped-d21").exists, "the job is half done")


def take(plone: PloneInstance, directory: Path) -> None:
    with browser(plone.themed) as person:
        person.go("/Plone/login")
        person.fill("__ac_name", CHIEF[0])
        person.fill("__ac_password", CHIEF[1])
        person.press("Log in")
        person.see("chief")
        person.go("/Plone/@@zasync-controlpanel")
        person.see("Publish the spring edition")
        height = person.driver.execute_script("return document.body.scrollHeight")
        person.driver.set_window_size(WIDTH, height + 150)
        person.find("#content").screenshot(str(directory / "plone-controlpanel.png"))


if __name__ == "__main__":
    main()
