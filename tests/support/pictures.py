# SPDX-License-Identifier: ZPL-2.1
"""Takes the pictures of the documentation: of the real pages, in a real browser.

`make pictures`, or `python -m tests.support.pictures docs/images`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.support.chromium import Browser, browser, missing
from tests.support.zope_instance import ADMIN
from tests.support.zope_site import ALICE, BOB, MANAGER, Site, add_manager, running_site

SIZE = (960, 620)
TALL = (960, 820)


def take(directory: Path, site: Site) -> None:
    """Do with browsers what the page of the documentation tells, and take a picture of each."""

    def picture(window: Browser, name: str, size: tuple[int, int] = SIZE) -> None:
        window.driver.set_window_size(*size)
        window.picture(str(directory / f"zope-{name}.png"))

    with browser(site.address) as alice, browser(site.address) as manager:
        manager.log_in(*ADMIN, "/+/addAsynchronousCallManager.html")
        manager.go("/+/addAsynchronousCallManager.html")
        picture(manager, "add", (960, 780))
        add_manager(site)
        manager.go(f"{MANAGER}/manage_settings")
        picture(manager, "settings", TALL)

        worker = site.instance.start_worker()
        alice.log_in(*ALICE, f"{MANAGER}/ask?plugin=report")
        alice.go(f"{MANAGER}/ask?plugin=report")
        alice.fill("argument_title", "Sales of 2026")
        picture(alice, "ask", (960, 520))
        alice.press("Start")
        site.let("page-1")
        alice.see("page 2 of 3")
        alice.wait_until(lambda: alice.find("progress").get_attribute("value") == "1", "progress")
        picture(alice, "working", (960, 420))
        page = alice.url

        site.visitor(BOB).post_json(
            f"{MANAGER}/ask", {"plugin": "mail", "arguments": {"to": "everybody"}}
        )
        site.visitor(BOB).post_json(
            f"{MANAGER}/ask", {"plugin": "add", "arguments": {"first": 20, "second": 22}}
        )
        manager.go(f"{MANAGER}/manage_calls?state=failed")
        manager.wait_until(lambda: _shows(manager, "bob"), "a call that has failed")
        manager.driver.find_element("link text", "mail").click()
        manager.see("Traceback")
        picture(manager, "call", (960, 690))  # no paths of this machine
        manager.go(f"{MANAGER}/manage_calls")
        manager.wait_until(lambda: _shows(manager, "succeeded"), "a call that has succeeded")
        picture(manager, "calls", (960, 580))
        manager.go(f"{MANAGER}/manage_main")
        manager.see("alive")
        picture(manager, "overview", (960, 790))

        site.let("page-2", "page-3")
        alice.see("Sales of 2026: 3 pages by alice")
        assert alice.url == page
        picture(alice, "result", (960, 420))
        worker.terminate()
        worker.wait(60)


def _shows(window: Browser, text: str) -> bool:
    window.driver.refresh()
    return text in window.text


def main(directory: Path) -> int:
    reason = missing()
    if reason is not None:
        print(f"No pictures without a browser: {reason}", file=sys.stderr)
        return 1
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, running_site(Path(place)) as site:
        take(directory, site)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
