# SPDX-License-Identifier: ZPL-2.1
"""A fresh instance by the documented lines, a worker of its own, and people with real browsers.

Everything here is done as a person does it: by links, fields and buttons.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.chromium import Browser, browser, need_browser
from tests.support.zope_instance import ADMIN
from tests.support.zope_site import ALICE, BOB, MANAGER, Site, running_site

pytestmark = [pytest.mark.process, pytest.mark.zeo, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True, scope="module")
def a_browser() -> None:
    need_browser()


@pytest.fixture
def worker(site: Site) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process; ended, as systemd would, if the test has not killed it."""
    process = site.instance.start_worker()
    yield process
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait(90)


@contextlib.contextmanager
def somebody(site: Site, who: tuple[str, str], **options: Any) -> Iterator[Browser]:
    """The browser of a person who has logged in."""
    with browser(site.address, **options) as window:
        window.log_in(*who, f"{MANAGER}/ask")
        yield window


def ask_for_a_report(window: Browser, title: str, pages: int = 3) -> str:
    """Fill in the form and press the button; answers the address of the call's page."""
    window.go(f"{MANAGER}/ask")
    window.driver.find_element("link text", "report").click()
    window.fill("argument_title", title)
    window.fill("argument_pages", pages)
    window.press("Start")
    window.see("Working on it")
    return window.url


def done_of(window: Browser) -> str | None:
    """How far the progress bar is."""
    value = window.find("progress").get_attribute("value")
    return None if value is None else str(value)


def complaints(window: Browser) -> list[str]:
    """What the browser has against our pages."""
    known = ("favicon.ico", "status of 404", "replaceState")
    return [text for text in window.complaints() if not any(part in text for part in known)]


def test_a_user_asks_sees_progress_and_result_another_finds_nothing_a_manager_sees_both(
    site: Site, worker: subprocess.Popen[bytes]
):
    with (
        somebody(site, ALICE) as alice,
        somebody(site, BOB) as bob,
        somebody(site, ADMIN) as manager,
    ):
        page = ask_for_a_report(alice, "Sales of 2026")
        alice.see("page 1 of 3")
        site.let("page-1")
        alice.see("page 2 of 3")  # nobody has loaded the page anew
        alice.wait_until(lambda: done_of(alice) == "1", "the bar moves")

        bob.go(page)
        assert "Working on it" not in bob.text
        assert site.visitor(BOB).get(page).status == 404
        bobs_page = ask_for_a_report(bob, "Bob's own", pages=1)  # whose only page may be written

        manager.go(f"{MANAGER}/manage_main")
        manager.driver.find_element("link text", "Calls").click()
        manager.see("alice (/acl_users)")
        manager.see("bob (/acl_users)")

        site.let("page-2", "page-3")
        alice.see("Sales of 2026: 3 pages by alice")
        alice.see("succeeded")
        bob.see("Bob's own: 1 pages by bob")
        assert bob.url == bobs_page
        for address in (page, bobs_page):
            manager.go(address)
            manager.see("succeeded")
        for window in (alice, bob, manager):
            assert complaints(window) == []


def test_nothing_is_lost_when_the_worker_is_killed_in_between(
    site: Site, worker: subprocess.Popen[bytes]
):
    with somebody(site, ALICE) as alice:
        forget(site)
        ask_for_a_report(alice, "Twice begun", pages=2)
        site.let("page-1")
        alice.see("page 2 of 2")

        worker.kill()
        worker.wait(60)
        waiting = site.visitor(ALICE).post_json(
            f"{MANAGER}/ask", {"plugin": "add", "arguments": {"first": 20, "second": 22}}
        )
        assert waiting.status == 202
        successor = site.instance.start_worker()
        try:
            site.let("page-2")
            alice.see("Twice begun: 2 pages by alice")
            alice.go(waiting.headers["Location"])
            alice.see("succeeded")
            alice.see("42")
        finally:
            successor.send_signal(signal.SIGTERM)
            successor.wait(90)


def test_a_manager_has_a_failed_call_done_again(site: Site, worker: subprocess.Popen[bytes]):
    with somebody(site, ALICE) as alice, somebody(site, ADMIN) as manager:
        alice.go(f"{MANAGER}/ask?plugin=mail")
        alice.fill("argument_to", "everybody")
        alice.press("Start")
        alice.see("the mail server is away")
        assert "Traceback" not in alice.text

        manager.go(f"{MANAGER}/manage_calls?state=failed")
        manager.driver.find_element("link text", "mail").click()
        manager.see("Traceback")
        manager.see("reports.py")
        site.let("mail-server")
        manager.press("Retry")
        manager.see("The call is done again.")
        manager.wait_until(lambda: _reloaded(manager, "sent to everybody"), "the result")

        alice.go(f"{MANAGER}/calls")
        alice.driver.find_element("link text", "mail").click()
        alice.see("sent to everybody")


def _reloaded(window: Browser, text: str) -> bool:
    window.driver.refresh()
    return text in window.text


def test_a_user_cancels_a_call_by_its_button(site: Site, worker: subprocess.Popen[bytes]):
    with somebody(site, ALICE) as alice:
        forget(site)
        ask_for_a_report(alice, "In vain", pages=2)
        alice.see("page 1 of 2")
        alice.press("Cancel")
        alice.see("cancelled")
        assert alice.count("progress") == 0


def test_a_page_without_scripts_refreshes_itself(site: Site, worker: subprocess.Popen[bytes]):
    with somebody(site, ALICE, scripts=False) as alice:
        forget(site)
        ask_for_a_report(alice, "Without scripts", pages=2)
        alice.see("page 1 of 2")
        site.let("page-1")
        alice.see("page 2 of 2")
        site.let("page-2")
        alice.see("Without scripts: 2 pages by alice")


def test_a_ping_through_the_queue_is_answered(site: Site, worker: subprocess.Popen[bytes]):
    """Row 22."""
    with somebody(site, ADMIN) as manager:
        manager.go(f"{MANAGER}/manage_main")
        manager.wait_until(lambda: _reloaded(manager, "alive"), "a worker that lives")
        manager.press("Send a ping through the queue")
        manager.see("The question waits in the queue")
        with site.transaction() as stored:
            asked = stored.getLastPing()

        def answered() -> bool:
            with site.transaction() as stored:
                answer = stored._ping.last_answer
                return answer is not None and answer >= asked

        site.instance.wait_until(answered, "an answer to the ping")


def forget(site: Site) -> None:
    """Nothing is let go on any more."""
    for path in site.reports.glob("page-*"):
        path.unlink()


def test_a_manager_is_added_in_the_zmi_by_its_menu(tmp_path_factory: pytest.TempPathFactory):
    """Row 1."""
    with (
        running_site(tmp_path_factory.mktemp("zmi")) as site,
        browser(site.address) as window,
    ):
        window.log_in(*ADMIN, "/manage_main")
        window.go("/manage_main")
        menu = window.find("#addItemSelect")
        [option] = [
            each
            for each in menu.find_elements("css selector", "option")
            if each.get_attribute("textContent").strip() == "Asynchronous Call Manager"
        ]
        window.driver.execute_script(
            "arguments[0].value = arguments[1];arguments[0].dispatchEvent(new Event('change'));",
            menu,
            option.get_attribute("value"),
        )
        window.see("Seconds between two looks at a call")
        window.press("Add")
        window.see("No worker is alive")
        for tab in ("Calls", "Settings", "Overview"):
            window.driver.find_element("link text", tab).click()
            window.wait_until(
                lambda tab=tab: window.find(".nav-link.active").text == tab, f"the tab {tab}"
            )
        window.driver.find_element("link text", "Settings").click()
        window.see("What the form for users offers")
        window.find("input[value='report']").click()
        window.press("Save")
        window.see("Saved.")
        assert window.find("input[value='report']").is_selected()
        assert complaints(window) == []
