# SPDX-License-Identifier: ZPL-2.1
"""The control panel, as requests and in a real browser; installing and uninstalling."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.plone import meddling
from tests.plone.conftest import queue_of
from tests.plone.plone_instance import (
    ADMIN,
    ANNA,
    CHIEF,
    EDITOR,
    PloneInstance,
    make_site,
    site_here,
)
from tests.plone.test_jobs import put_as
from tests.support.chromium import browser, need_browser

PANEL = "@@zasync-controlpanel"


def panel(plone: PloneInstance, user: Any = CHIEF) -> str:
    answer = plone.get(PANEL, user)
    assert answer.status == 200, answer.body
    return answer.body


def press(plone: PloneInstance, action: str, **fields: str) -> str:
    """Press a button, with the token that the page has given; the page that follows."""
    token = re.search(r'name="_authenticator" value="([0-9a-f]+)"', panel(plone))
    assert token is not None
    form = {"action": action, "_authenticator": token[1], **fields}
    answer = plone.post(PANEL, form, CHIEF)
    assert answer.status == 303, answer.body
    cookie = answer.headers["Set-Cookie"].partition(";")[0]  # what is said is in a cookie
    return plone.get(answer.headers["Location"], CHIEF, {"Cookie": cookie}).body


def test_it_shows_queues_and_workers(plone: PloneInstance, worker: Any) -> None:
    page = panel(plone)

    assert "Background jobs" in page
    assert f"process {worker.pid}" in page or "process " in page
    assert re.search(r"<span[^>]*bg-success[^>]*>running</span>", page)
    assert "(main)" in page


def test_a_worker_that_gives_no_sign_of_life_is_shown_as_dead(
    plone: PloneInstance, worker: Any
) -> None:
    uuid = uuid4()
    with plone.changed() as site:
        dispatchers = queue_of(site).dispatchers
        dispatchers.register(uuid)
        dispatchers[uuid].activate()
        dispatchers[uuid].last_ping.value = datetime.now(UTC) - timedelta(hours=3)
    try:
        row = re.search(rf'<tr title="{uuid}">.*?</tr>', panel(plone), re.DOTALL)
    finally:
        with plone.changed() as site:
            dispatchers = queue_of(site).dispatchers
            dispatchers[uuid].deactivate()
            dispatchers.unregister(uuid)

    assert row is not None
    assert re.search(r"bg-danger[^>]*>dead<", row[0])
    assert "3 h ago" in row[0]


def test_another_site_s_jobs_are_not_there(plone: PloneInstance, worker: Any) -> None:
    url = put_as(plone, "editor", meddling.fail_until, "never", label="In the first site")
    with site_here(as_admin=True) as site:
        make_site(site.aq_parent, "other")
    plone.wait_until(lambda: plone.get(f"{plone.site}/other", ADMIN).status == 200, "it is there")

    answer, document = plone.rest(f"{plone.site}/other/@jobs", ADMIN)
    assert (answer.status, document["items"]) == (200, [])
    assert plone.rest(f"{plone.site}/other/{url}", ADMIN)[0].status == 404
    assert "In the first site" not in plone.get(f"{plone.site}/other/{PANEL}", ADMIN).body
    assert plone.rest(url, ADMIN)[0].status in (200, 202)


def test_it_is_for_managers_only(plone: PloneInstance) -> None:
    for user in (EDITOR, None):
        answer = plone.get(PANEL, user)
        assert answer.status in (302, 401)
        assert "Background jobs" not in answer.body
    assert "zasync-controlpanel" in plone.get("@@overview-controlpanel", CHIEF).body


def test_what_waits_without_a_worker_is_said(
    plone: PloneInstance, worker: Any, no_places: None
) -> None:
    url = put_as(plone, "editor", meddling.fail_until, "never", label="A <b>bold</b> one")

    page = panel(plone)

    assert "A &lt;b&gt;bold&lt;/b&gt; one" in page
    assert "<b>bold</b>" not in page
    assert "The job is cancelled." in press(plone, "cancel", call=url.rpartition("/")[2])
    assert "The job has ended already." in press(plone, "cancel", call=url.rpartition("/")[2])
    assert plone.rest(url, EDITOR)[1]["outcome"] == "cancelled"


def test_a_failed_job_is_shown_escaped_done_again_and_discarded(
    plone: PloneInstance, worker: Any
) -> None:
    url = put_as(plone, "editor", meddling.fail_until, "panel", label="Fails at first")
    call = url.rpartition("/")[2]
    plone.finished(url, EDITOR)

    page = panel(plone)
    assert call in page
    assert "<script>alert" not in page
    assert "ValueError" in html.unescape(page)
    assert "Traceback" in page

    assert "The job is done again" in press(plone, "retry", call=call)
    assert plone.finished(url, EDITOR)["outcome"] == "failed"
    assert call not in press(plone, "discard", call=call)
    assert plone.rest(url, EDITOR)[0].status == 404
    assert "There is no such job any more." in press(plone, "retry", call=call)


def test_nothing_happens_without_token_or_by_get(plone: PloneInstance, worker: Any) -> None:
    url = put_as(plone, "editor", meddling.fail_until, "csrf")
    call = url.rpartition("/")[2]
    plone.finished(url, EDITOR)
    form = {"action": "discard", "call": call}

    assert plone.post(PANEL, form, CHIEF).status == 403
    answer = plone.post(PANEL, form | {"_authenticator": "0" * 40}, CHIEF)
    assert answer.status == 403
    plone.get(f"{PANEL}?action=discard&call={call}", CHIEF)
    answer = plone.post(PANEL, form, EDITOR)
    assert answer.status in (302, 401, 403)

    assert call in panel(plone)
    press(plone, "discard", call=call)


def test_the_retention_can_be_set_and_nonsense_is_refused(plone: PloneInstance) -> None:
    for text in ("0", "-1", "soon", "nan", "inf", "99999", ""):
        assert "The days are a number above 0" in press(plone, "retention", days=text), text
    assert 'value="2.5"' in press(plone, "retention", days="2.5")
    press(plone, "retention", days="1")
    assert "There is no such action." in press(plone, "explode")


def test_a_site_administrator_works_with_it_in_a_browser(plone: PloneInstance, worker: Any) -> None:
    need_browser()
    url = put_as(plone, "editor", meddling.fail_until, "browser", label="In the browser")
    plone.finished(url, EDITOR)
    with browser(plone.themed) as person:
        person.go("/Plone/login")
        person.fill("__ac_name", CHIEF[0])
        person.fill("__ac_password", CHIEF[1])
        person.press("Log in")
        person.go("/Plone/@@overview-controlpanel")
        person.see("Background jobs")
        person.go(f"/Plone/{PANEL}")
        person.see("In the browser")
        (plone.signs / "browser").touch()
        # The theme scrolls smoothly, and a click would meet the button on its way.
        person.driver.execute_script(
            "document.querySelector('#zasync-failed button')"
            ".scrollIntoView({block: 'center', behavior: 'instant'})"
        )
        person.press("Retry")
        person.see("The job is done again")

    assert plone.finished(url, EDITOR)["outcome"] == "succeeded"


def test_uninstalling_cancels_what_runs_and_leaves_nothing_and_it_can_be_installed_again(
    plone: PloneInstance, worker: Any, no_places: None
) -> None:
    from plone.base.utils import get_installer
    from zope.annotation.interfaces import IAnnotations

    from zasync.integrations.plone.register import KEY, NotInstalled

    put_as(plone, "editor", meddling.fail_until, "never")
    with site_here() as site:
        waiting = list(queue_of(site))
        assert waiting

    with plone.changed() as site:
        get_installer(site).uninstall_product("zasync.integrations.plone")

    try:
        with site_here(as_admin=True) as site:
            assert KEY not in IAnnotations(site)
            assert len(queue_of(site)) == 0
            assert "zasync" not in [each.id for each in site.portal_controlpanel.listActions()]
        with pytest.raises(NotInstalled, match="not installed in the site /Plone"):
            put_as(plone, "editor", meddling.fail_until, "never")
        assert plone.rest("@jobs", EDITOR)[0].status == 404
        assert plone.rest("@bulk-transition", EDITOR, {"items": ["/a"]})[0].status == 404
        answer = plone.get(PANEL, ADMIN)
        assert "Background jobs" not in answer.body
    finally:
        with plone.changed() as site:
            get_installer(site).install_product("zasync.integrations.plone")
    answer, document = plone.rest("@jobs", ANNA)
    assert (answer.status, document["items"]) == (200, [])
    with site_here(as_admin=True) as site:
        installer = get_installer(site)
        assert installer.is_product_installed("zasync.integrations.plone")


def test_the_queue_is_left_when_it_is_uninstalled(plone: PloneInstance) -> None:
    with site_here() as site:
        assert "" in site._p_jar.root()["zasync"]
