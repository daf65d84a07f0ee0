# SPDX-License-Identifier: ZPL-2.1
"""A real browser for tests: Debian's Chromium without a window, driven through WebDriver.

Where it comes from, and what happens where there is none: `tests.support.programs`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from tests.support import programs

PROGRAMS = ("chromium", "chromedriver")
SECONDS = 60
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--window-size=1000,720",
)


def missing() -> str | None:
    """Why no browser can be driven here; None if one can."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium missing: it is in the extra 'test'"
    return programs.missing(*PROGRAMS)


def need_browser() -> None:
    """Skip the test where there is no browser; fail it in CI."""
    programs.refuse(missing())


class Browser:
    """One browser with a profile of its own: one person's."""

    def __init__(self, driver: Any, site: str) -> None:
        self.driver = driver
        self.site = site

    def log_in(self, user: str, password: str, path: str = "/") -> None:
        """Give the browser the name and password for all further requests."""
        parts = urlsplit(self.site)
        known = f"{quote(user, safe='')}:{quote(password, safe='')}@{parts.netloc}"
        self.driver.get(urlunsplit((parts.scheme, known, path, "", "")))

    def go(self, path: str) -> None:
        """Load a page of the site."""
        self.driver.get(path if path.startswith("http") else self.site + path)

    @property
    def url(self) -> str:
        return str(self.driver.current_url)

    @property
    def text(self) -> str:
        """What a person reads."""
        from selenium.common.exceptions import StaleElementReferenceException

        try:
            return str(self.driver.find_element("css selector", "body").text)
        except StaleElementReferenceException:  # the page was loaded anew just now
            return ""

    def find(self, selector: str) -> Any:
        """The first element that fits the CSS selector."""
        return self.driver.find_element("css selector", selector)

    def count(self, selector: str) -> int:
        """How many elements fit."""
        return len(self.driver.find_elements("css selector", selector))

    def fill(self, name: str, value: object) -> None:
        """Type into the field of that name."""
        field = self.find(f"[name='{name}']")
        field.clear()
        field.send_keys(str(value))

    def press(self, label: str) -> None:
        """Press the button of that label."""
        self.driver.find_element("xpath", f"//button[normalize-space()='{label}']").click()

    def wait_until(self, condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> None:
        """Look again and again until `condition` holds; AssertionError, with the page, if not."""
        from selenium.common.exceptions import TimeoutException, WebDriverException
        from selenium.webdriver.support.ui import WebDriverWait

        waiter = WebDriverWait(
            self.driver, seconds, poll_frequency=0.2, ignored_exceptions=[WebDriverException]
        )
        try:
            waiter.until(lambda _: condition())
        except TimeoutException:
            raise AssertionError(f"in vain: {what}\n{self.url}\n{self.text}") from None

    def see(self, text: str, seconds: float = SECONDS) -> None:
        """Wait until the page says `text`."""
        self.wait_until(lambda: text in self.text, f"see {text!r}", seconds)

    def complaints(self) -> list[str]:
        """What the browser has to say about the pages: errors of scripts, what policy forbade."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def picture(self, path: str) -> None:
        """Save what is seen as a PNG."""
        self.driver.save_screenshot(path)


@contextmanager
def browser(site: str, *, scripts: bool = True) -> Iterator[Browser]:
    """A browser for `site` (scheme, host and port), which may have scripts switched off."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        if not scripts:
            no_scripts = {"profile.managed_default_content_settings.javascript": 2}
            options.add_experimental_option("prefs", no_scripts)
        driver = webdriver.Chrome(options, Service(str(shutil.which("chromedriver"))))
        driver.set_page_load_timeout(SECONDS)
        try:
            yield Browser(driver, site)
        finally:
            driver.quit()
