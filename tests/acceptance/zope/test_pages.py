# SPDX-License-Identifier: ZPL-2.1
"""The pages of the call manager, as programs and people without scripts meet them.

Where a test is about a row of docs/coming-from-zasync-1.md, it names the row.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.support.visitors import Answer
from tests.support.zope_instance import ADMIN
from tests.support.zope_site import ALICE, BOB, MANAGER, Site
from zasync.calls import CallNotFound
from zasync.job import Job

MANAGEMENT = ("manage_main", "manage_calls", "manage_call", "manage_settings")
CHANGES = ("manage_sendPing", "manage_cancelCall", "manage_retryCall", "manage_settings")

pytestmark = [pytest.mark.process, pytest.mark.zeo]


def put_call(site: Site, owner: str | None, function: Any = sorted, *args: Any) -> str:
    """A call that waits; answers its id."""
    with site.transaction() as manager:
        call = manager.register.put(Job(function, *(args or ([3, 1],))), owner=owner, label="sort")
        return str(call.id)


def perform(site: Site, call_id: str) -> None:
    """Do what the call asks for, by hand."""
    with site.transaction() as manager:
        job = manager.register.get(call_id).job
        job.queue.remove(job)
        job()


def outcome_of(site: Site, call_id: str) -> str | None:
    with site.transaction() as manager:
        return manager.register.get(call_id).outcome


OF_ALICE = "user:/acl_users:alice"


# Adding one, and its settings


def test_a_manager_is_added_by_its_form_with_the_defaults_of_zasync_1_0(site: Site):
    """Rows 1 and 2."""
    form = site.manager().get("/+/addAsynchronousCallManager.html")

    assert form.value_of("id") == "asynchronous_call_manager"
    assert form.value_of("poll_interval") == "5"
    assert form.value_of("rotation_period") == "86400"


def test_it_is_among_what_can_be_added_to_a_folder(site: Site):
    """Row 1."""
    assert "Asynchronous Call Manager" in site.manager().get("/manage_main").body


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"poll_interval": "often"}, "A whole number of seconds"),
        ({"poll_interval": "999999"}, "At most"),
        ({"rotation_period": "-1"}, "A whole number of seconds"),
        ({"rotation_period": "9" * 400}, "A whole number of seconds"),
        ({"id": "a/b"}, "illegal"),
        ({"id": "acl_users"}, "in use"),
    ],
)
def test_a_form_that_cannot_be_is_shown_again_and_says_why(
    site: Site, fields: dict[str, str], complaint: str
):
    given = {"id": "another", "poll_interval": "5", "rotation_period": "60", **fields}

    answer = site.manager().fill_in("/+/addAsynchronousCallManager.html", given)

    assert answer.status == 200
    assert complaint in answer.body
    for name, value in fields.items():
        assert answer.value_of(name) == value[:100]


def test_a_poll_interval_below_the_floor_is_raised_to_it(site: Site):
    """Row 2."""
    given = {"id": "eager", "poll_interval": "0", "rotation_period": "3600"}

    answer = site.manager().fill_in("/+/addAsynchronousCallManager.html", given)

    assert answer.status == 303
    form = site.manager().get("/eager/manage_settings")
    assert (form.value_of("poll_interval"), form.value_of("rotation_period")) == ("2", "3600")


def test_settings_are_kept_and_unknown_plugins_are_refused(site: Site):
    manager = site.manager()
    given = {"title": "Calls", "poll_interval": 7, "rotation_period": 7200}
    path = f"{MANAGER}/manage_settings"
    offered = ["add", "mail", "report"]

    kept = manager.fill_in(path, {**given, "offered:list": offered})
    for wrong in ("nothing-like-it", "objects", "aggregate"):
        refused = manager.fill_in(path, {**given, "title": "no", "offered:list": [wrong]})
        assert refused.status == 200
        assert wrong in refused.find("span", **{"class": "error"})[0].text

    assert kept.status == 303
    with site.transaction() as stored:
        assert stored.title == "Calls"
        assert stored.poll_interval == timedelta(seconds=7)
        assert stored.rotation_period == timedelta(hours=2)
        assert list(stored.offered) == offered


def test_it_cannot_be_copied(site: Site):
    answer = site.manager().post(
        "/", {"ids:list": MANAGER[1:], "manage_copyObjects:method": "Copy"}
    )

    assert "not supported" in answer.body.lower() or answer.status >= 400


# Who may do what


@pytest.mark.parametrize("page", MANAGEMENT)
def test_pages_of_the_zmi_are_for_managers(site: Site, page: str):
    """Row 5."""
    path = f"{MANAGER}/{page}?id={put_call(site, OF_ALICE)}"

    assert site.visitor().get(path).status == 401
    assert site.visitor(ALICE).get(path).status == 401
    assert site.manager().get(path).status == 200


@pytest.mark.parametrize("page", CHANGES)
def test_changes_are_for_managers(site: Site, page: str):
    """Row 5."""
    fields = {"id": put_call(site, OF_ALICE)}

    assert site.visitor(ALICE).post(f"{MANAGER}/{page}", fields).status == 401
    assert outcome_of(site, fields["id"]) is None


def test_asking_takes_the_permission_for_session_calls(site: Site):
    """Row 5: users who are logged in have it, others do not."""
    assert site.visitor().get(f"{MANAGER}/ask").status == 401
    assert site.visitor(ALICE).get(f"{MANAGER}/ask").status == 200


def script(site: Site, name: str, expression: str) -> str:
    """A page template in the root, of a manager, that evaluates `expression`; answers its path."""
    text = f'<p tal:content="python:{expression}">answer</p>'
    manager = site.manager()
    manager.post("/manage_addProduct/PageTemplates/manage_addPageTemplate", {"id": name})
    fields = {"title": "", "text": text, "content_type": "text/html"}
    answer = manager.post(f"/{name}/pt_editAction", fields)
    assert answer.status < 400, answer.body
    return f"/{name}"


def test_a_script_may_make_session_calls_for_whoever_uses_it(site: Site):
    """Rows 3 and 4."""
    path = script(
        site, "session", "here.asynchronous_call_manager.putSessionCall('add', 1, second=2.5).id"
    )

    answer = site.visitor(ALICE).get(path)

    call_id = answer.find("p")[0].text
    assert site.visitor(ALICE).get(f"{MANAGER}/calls/{call_id}").status == 202
    assert site.visitor(BOB).get(f"{MANAGER}/calls/{call_id}").status == 404
    assert site.visitor().get(f"{MANAGER}/calls/{call_id}").status == 404
    assert site.manager().get(f"{MANAGER}/calls/{call_id}").status == 202


def test_application_calls_take_a_permission_of_their_own(site: Site):
    """Row 5."""
    path = script(site, "application", "here.asynchronous_call_manager.putCall('add', 1, 2).id")

    assert site.visitor(ALICE).get(path).status == 401
    answer = site.manager().get(path)
    assert answer.status == 200, answer.body
    call_id = answer.find("p")[0].text
    assert site.visitor(ALICE).get(f"{MANAGER}/calls/{call_id}").status == 404
    assert site.manager().get(f"{MANAGER}/calls/{call_id}").status == 202


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("putSessionCall('reprot')", "UnknownPlugin"),
        ("putSessionCall('os:system', 'ls')", "UnknownPlugin"),
        ("putSessionCall('add', 1)", "TypeError"),
        ("putSessionCall('add', 1, 2, 3)", "TypeError"),
        ("putSessionCall(17)", "TypeError"),
        ("getCall('nothing')", "404"),
    ],
)
def test_what_is_unknown_is_refused_at_the_call(site: Site, expression: str, complaint: str):
    """Row 6: in the request of whoever asks, and nothing is put."""
    path = script(site, "unknown", f"here.asynchronous_call_manager.{expression}")
    with site.transaction() as manager:
        before = len(manager.queue())

    answer = site.visitor(ALICE).get(path)

    assert answer.status == (404 if complaint == "404" else 500)
    with site.transaction() as manager:
        assert len(manager.queue()) == before


@pytest.mark.parametrize(
    "name",
    ["call", "_call", "register", "_calls", "_secret", "visible_call", "browser", "current_owner"],
)
def test_scripts_reach_nothing_that_is_ours(site: Site, name: str):
    on = "getCall(request['call_id'])" if name.strip("_") == "call" else "this()"
    path = script(site, "private", f"here.asynchronous_call_manager.{on}.{name}")
    call_id = put_call(site, OF_ALICE)

    answer = site.manager().get(f"{path}?call_id={call_id}")

    assert answer.status in (401, 500)


@pytest.mark.parametrize(
    "name", ["putCall", "putSessionCall", "getCall", "ping", "lenNewCalls", "register", "browser"]
)
def test_methods_are_no_pages(site: Site, name: str):
    """Nobody can have something called by sending its name in a URL or a form."""
    assert site.manager().get(f"{MANAGER}/{name}?what=add").status in (401, 403, 404)
    assert site.manager().get(f"{MANAGER}/manage_main?{name}:method=x").status in (401, 403, 404)


def test_a_script_gets_its_own_call_with_state_and_result(site: Site):
    call_id = put_call(site, OF_ALICE)
    perform(site, call_id)
    found = f"here.asynchronous_call_manager.getCall('{call_id}')"
    shown = "(c.state, c.outcome, c.result, c.progress, c.done, c.total, c.error, c.label)"
    path = script(site, "mine", f"[{shown} for c in [{found}]][0]")

    answer = site.visitor(ALICE).get(path)

    assert answer.find("p")[0].text == str(
        ("resolved", "succeeded", [1, 3], "", None, None, None, "sort")
    )


# Forms


def post_without_token(site: Site, page: str, fields: dict[str, str], **headers: str) -> Answer:
    return site.manager().post(f"{MANAGER}/{page}", fields, headers)


@pytest.mark.parametrize("page", CHANGES)
def test_a_form_without_our_token_changes_nothing(site: Site, page: str):
    call_id = put_call(site, OF_ALICE)
    fields = {"id": call_id, "poll_interval": "9", "rotation_period": "60", "title": "taken"}

    answer = post_without_token(site, page, fields)

    assert answer.status == 403
    assert outcome_of(site, call_id) is None
    with site.transaction() as manager:
        assert manager.title != "taken"


def test_the_token_of_one_user_is_none_of_another(site: Site):
    call_id = put_call(site, OF_ALICE)
    admin, alice = site.manager(), site.visitor(ALICE)
    token = alice.get(f"{MANAGER}/calls/{call_id}").value_of("zasync_token")

    stolen = admin.post(f"{MANAGER}/manage_cancelCall", {"id": call_id, "zasync_token": token})
    admin.cookies = alice.cookies  # even with the cookie that belongs to it
    with_cookie = admin.post(f"{MANAGER}/manage_cancelCall", {"id": call_id, "zasync_token": token})

    assert (stolen.status, with_cookie.status) == (403, 403)
    assert outcome_of(site, call_id) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
    ],
)
@pytest.mark.parametrize(
    "path",
    [
        "/+/addAsynchronousCallManager.html",
        f"{MANAGER}/manage_settings",
        f"{MANAGER}/ask?plugin=add",
    ],
)
def test_a_page_of_another_site_cannot_send_a_form(site: Site, path: str, headers: dict[str, str]):
    manager = site.manager()
    token = manager.get(path).value_of("zasync_token")

    answer = manager.post(path, {"zasync_token": token, "title": "taken"}, headers)

    assert answer.status == 403


@pytest.mark.parametrize("page", ["manage_sendPing", "manage_cancelCall", "manage_retryCall"])
def test_getting_a_page_changes_nothing(site: Site, page: str):
    call_id = put_call(site, OF_ALICE)

    answer = site.manager().get(f"{MANAGER}/{page}?id={call_id}")

    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert outcome_of(site, call_id) is None


def test_a_manager_cancels_a_call_and_has_it_done_again(site: Site):
    call_id = put_call(site, OF_ALICE)
    manager = site.manager()
    page = f"{MANAGER}/manage_call?id={call_id}"

    cancelled = manager.fill_in(page, {}, to=f"{MANAGER}/manage_cancelCall")
    assert cancelled.status == 303
    assert "The call is cancelled." in manager.get(cancelled.headers["Location"]).body
    assert outcome_of(site, call_id) == "cancelled"

    again = manager.fill_in(page, {}, to=f"{MANAGER}/manage_retryCall")
    assert again.status == 303
    assert outcome_of(site, call_id) is None

    too_soon = manager.fill_in(page, {}, to=f"{MANAGER}/manage_retryCall")
    assert too_soon.status == 400


def test_the_owner_cancels_a_call_and_has_it_done_again(site: Site):
    call_id = put_call(site, OF_ALICE)
    alice, bob = site.visitor(ALICE), site.visitor(BOB)
    page = f"{MANAGER}/calls/{call_id}"

    assert bob.post(f"{page}/cancel", {}).status == 404
    assert alice.get(f"{page}/cancel").status == 405
    assert alice.post(f"{page}/cancel", {}).status == 403
    assert alice.fill_in(page, {}, to=f"{page}/cancel").status == 303
    assert outcome_of(site, call_id) == "cancelled"
    assert alice.fill_in(page, {}, to=f"{page}/retry").status == 303
    assert outcome_of(site, call_id) is None
    assert alice.fill_in(page, {}, to=f"{page}/retry").status == 400


# The status of a call


def test_the_status_is_202_with_progress_and_location_until_there_is_a_result(site: Site):
    """Row 13."""
    call_id = put_call(site, OF_ALICE)
    alice, page = site.visitor(ALICE), f"{MANAGER}/calls/{call_id}"

    waiting = alice.ask_for_json(page)
    perform(site, call_id)
    ended = alice.ask_for_json(page)

    assert waiting.status == 202
    assert waiting.headers["Location"] == site.address + page
    assert int(waiting.headers["Retry-After"]) >= 2
    assert waiting.headers["Content-Type"] == "application/json; charset=utf-8"
    assert waiting.json["state"] == "new"
    assert "progress" in waiting.json
    assert ended.status == 200
    assert ended.json["result"] == [1, 3]


def fail_badly(secret: str) -> None:
    raise ValueError(f"the reason is {len(secret)}")


def test_of_a_failure_its_owner_sees_the_message_and_a_manager_the_traceback(site: Site):
    call_id = put_call(site, OF_ALICE, int, "no number")
    perform(site, call_id)

    told = site.visitor(ALICE).ask_for_json(f"{MANAGER}/calls/{call_id}")
    shown = site.visitor(ALICE).get(f"{MANAGER}/calls/{call_id}")
    managed = site.manager().get(f"{MANAGER}/manage_call?id={call_id}")

    assert told.status == 200
    assert "invalid literal" in told.body
    assert "invalid literal" in shown.body
    for answer in (told, shown):
        assert "Traceback" not in answer.body
        assert "attempt.py" not in answer.body
    assert "Traceback" in managed.body


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/json", "application/json"),
        ("application/json;q=0.5, text/html;q=0.4", "application/json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"),
        ("text/html, application/json", "text/html"),
        ("*/*", "text/html"),
        ("", "text/html"),
        ("application/json;q=nonsense", "text/html"),
        (",;=,q=1;" * 500, "text/html"),
    ],
)
def test_the_accept_header_says_what_is_wanted(site: Site, accept: str, kind: str):
    answer = site.visitor(ALICE).get(f"{MANAGER}/calls", {"Accept": accept})

    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith(kind)


@pytest.mark.parametrize(
    "path", ["calls/none-such", "calls/{id}/other", "calls/{id}/cancel/more", "calls/%3Cb%3E"]
)
def test_what_is_not_there_is_not_found(site: Site, path: str):
    call_id = put_call(site, OF_ALICE)

    for visitor in (site.visitor(), site.visitor(ALICE), site.manager()):
        answer = visitor.get(f"{MANAGER}/{path.format(id=call_id)}")
        assert answer.status == 404
        assert "<b>" not in answer.body


def test_somebody_elses_call_is_answered_like_one_that_never_was(site: Site):
    """Row 4."""
    bob, call_id = site.visitor(BOB), put_call(site, OF_ALICE)

    others = bob.get(f"{MANAGER}/calls/{call_id}")
    nobodys = bob.get(f"{MANAGER}/calls/{'x' * len(call_id)}")

    assert (others.status, nobodys.status) == (404, 404)
    assert others.body == nobodys.body


def test_an_owner_sees_his_own_calls_in_the_list(site: Site):
    mine, others = put_call(site, OF_ALICE), put_call(site, "user:/acl_users:bob")

    page = site.visitor(ALICE).get(f"{MANAGER}/calls").body
    listed = site.visitor(ALICE).ask_for_json(f"{MANAGER}/calls").json["calls"]

    assert mine in page
    assert others not in page
    assert mine in [call["id"] for call in listed]
    assert others not in [call["id"] for call in listed]


def test_an_owner_with_the_same_id_in_another_folder_is_somebody_else(site: Site):
    call_id = put_call(site, "user:/site/acl_users:alice")

    assert site.visitor(ALICE).get(f"{MANAGER}/calls/{call_id}").status == 404


# Asking


def test_a_form_asks_for_what_the_plugin_takes_and_leads_to_the_call(site: Site):
    alice = site.visitor(ALICE)

    form = alice.get(f"{MANAGER}/ask?plugin=report")
    answer = alice.fill_in(f"{MANAGER}/ask?plugin=report", {"argument_title": "Sales"})

    assert form.value_of("argument_pages") == "3"
    assert form.find("input", name="argument_draft", type="checkbox")
    assert answer.status == 303
    assert answer.headers["Location"].startswith(f"{site.address}{MANAGER}/calls/")
    page = alice.get(answer.headers["Location"])
    assert page.status == 202
    assert "Working on it" in page.body
    assert page.find("meta", **{"http-equiv": "refresh"})


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"argument_first": "one", "argument_second": "2"}, "A whole number"),
        ({"argument_first": "1" * 400, "argument_second": "2"}, "A whole number"),
        ({"argument_first": "1", "argument_second": "nan"}, "A number"),
        ({"argument_first": "1"}, "Please fill this in"),
        ({"argument_first": "1", "argument_second": "2", "plugin": "objects"}, "not on offer"),
        ({"argument_first": "1", "argument_second": "2", "plugin": "os:system"}, "not on offer"),
    ],
)
def test_a_form_that_is_filled_in_wrongly_says_what_is_wrong(
    site: Site, fields: dict[str, str], complaint: str
):
    answer = site.visitor(ALICE).fill_in(f"{MANAGER}/ask?plugin=add", fields)

    assert answer.status == 400
    assert complaint in answer.body


def test_a_program_asks_with_json_and_follows_the_location(site: Site):
    alice = site.visitor(ALICE)
    body = {"plugin": "add", "arguments": {"first": 1, "second": 2.5}}

    accepted = alice.post_json(f"{MANAGER}/ask", body)

    assert accepted.status == 202
    assert alice.ask_for_json(accepted.headers["Location"]).status == 202
    cancel = f"{accepted.headers['Location']}/cancel"
    assert alice.post_json(cancel, {}, {"Sec-Fetch-Site": "cross-site"}).status == 403
    assert alice.post_json(cancel, {}).status == 200
    assert alice.ask_for_json(accepted.headers["Location"]).json["outcome"] == "cancelled"


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        17,
        {"plugin": "objects"},
        {"plugin": ["add"]},
        {"plugin": "add", "arguments": [1, 2]},
        {"plugin": "add", "arguments": {"first": 1, "second": 2, "third": 3}},
        {"plugin": "add", "arguments": {"first": True, "second": 2}},
        {"plugin": "add", "arguments": {"first": {"x": 1}, "second": [2]}},
        {"plugin": "report", "arguments": {"title": "x" * 10_001}},
    ],
)
def test_a_program_that_asks_wrongly_is_told_so(site: Site, body: Any):
    answer = site.visitor(ALICE).post_json(f"{MANAGER}/ask", body)

    assert answer.status == 400
    assert answer.json["error"]


def test_a_program_must_not_send_json_as_a_form_does(site: Site):
    alice = site.visitor(ALICE)
    kind = {"Content-Type": "text/plain", "Accept": "application/json"}

    answer = alice.get(f"{MANAGER}/ask", kind, data=b'{"plugin": "add"}')

    assert answer.status == 403


# Browsers without a user


def test_an_anonymous_visitor_is_known_by_a_cookie_that_only_we_can_make(site: Site):
    """Row 4: session calls belong to the browser, which without Products.Sessions we name."""
    forget_sessions(site)
    path = script(site, "anybody", "here.asynchronous_call_manager.putSessionCall('add', 1, 2).id")
    page = f"{MANAGER}/calls"
    allow(site, "Make asynchronous session calls", "Anonymous")
    try:
        first, second = site.visitor(), site.visitor()
        answer = first.get(path)
        assert answer.status == 200, answer.body
        call_id = answer.find("p")[0].text
        assert second.get(path).status == 200  # another browser, with a name of its own
    finally:
        allow(site, "Make asynchronous session calls", "Authenticated")

    [cookie] = first.cookies
    assert first.get(f"{page}/{call_id}").status == 202
    assert call_id in first.get(page).body
    assert second.get(f"{page}/{call_id}").status == 404
    assert cookie.has_nonstandard_attr("HttpOnly") or cookie.has_nonstandard_attr("httponly")
    assert cookie.get_nonstandard_attr("SameSite") == "Lax"
    for forged in ("x" * 22, f"{'x' * 22}.{'0' * 64}", cookie.value[:-1] + "x"):
        cookie.value = forged
        assert first.get(f"{page}/{call_id}").status == 404


def test_with_products_sessions_an_anonymous_visitor_is_known_by_its_browser_id(site: Site):
    """Row 4."""
    pytest.importorskip("Products.Sessions")
    path = script(
        site, "session_id", "here.asynchronous_call_manager.putSessionCall('add', 1, 2).id"
    )
    page = f"{MANAGER}/calls"
    remember_sessions(site)
    allow(site, "Make asynchronous session calls", "Anonymous")
    try:
        first = site.visitor()
        call_id = first.get(path).find("p")[0].text
        browser_id = next(cookie for cookie in first.cookies if cookie.name == "_ZopeId")

        assert first.get(f"{page}/{call_id}").status == 202
        # An id in the address is one that somebody else may have chosen.
        assert site.visitor().get(f"{page}/{call_id}?_ZopeId={browser_id.value}").status == 404
    finally:
        allow(site, "Make asynchronous session calls", "Authenticated")
        forget_sessions(site)


def forget_sessions(site: Site) -> None:
    """As if Products.Sessions were not there."""
    with site.transaction() as manager:
        root = manager._p_jar.root()["Application"]
        if hasattr(root, "browser_id_manager"):
            root._delOb("browser_id_manager")
            root._objects = tuple(
                each for each in root._objects if each["id"] != "browser_id_manager"
            )


def remember_sessions(site: Site) -> None:
    from Products.Sessions.BrowserIdManager import BrowserIdManager

    with site.transaction() as manager:
        root = manager._p_jar.root()["Application"]
        if not hasattr(root, "browser_id_manager"):
            root._setOb("browser_id_manager", BrowserIdManager("browser_id_manager"))


def allow(site: Site, permission: str, *roles: str) -> None:
    """Give `permission` on the call manager to `roles` and managers."""
    with site.transaction() as manager:
        manager.manage_permission(permission, [*roles, "Manager"], 0)


# Where it is found


def test_the_style_sheet_and_the_script_are_for_everybody(site: Site):
    for name, kind in (("zasync.css", "text/css"), ("zasync.js", "javascript")):
        answer = site.visitor().get(f"/++resource++zasync/{name}")
        assert answer.status == 200
        assert kind in answer.headers["Content-Type"]


def test_behind_a_proxy_addresses_and_cookies_are_those_of_the_outside(site: Site):
    call_id = put_call(site, OF_ALICE)
    outside = "https://www.example.com/intranet"
    inside = "/VirtualHostBase/https/www.example.com:443/VirtualHostRoot/_vh_intranet"
    alice = site.visitor(ALICE)

    told = alice.ask_for_json(f"{inside}{MANAGER}/calls/{call_id}")
    page = alice.get(f"{inside}{MANAGER}/calls/{call_id}")

    assert told.headers["Location"] == f"{outside}{MANAGER}/calls/{call_id}"
    assert told.json["url"] == f"{outside}{MANAGER}/calls/{call_id}"
    links = [tag.attributes["href"] for tag in page.find("a")]
    assert links
    assert all(link.startswith(outside) for link in links)
    assert page.find("link")[0].attributes["href"] == "/intranet/++resource++zasync/zasync.css"
    assert "Path=/intranet" in page.headers["Set-Cookie"]
    assert "Secure" in page.headers["Set-Cookie"]


def test_users_of_a_folder_use_a_manager_beside_their_user_folder(site: Site):
    """Zope lets nobody use what lies outside the folder of their user folder."""
    from OFS.Folder import Folder
    from OFS.userfolder import UserFolder

    with site.transaction() as manager:
        app = manager._p_jar.root()["Application"]
        app._setOb("branch", Folder("branch"))
        app.branch._setOb("acl_users", UserFolder())
        app.branch.__allow_groups__ = app.branch.acl_users.aq_base
        app.branch.acl_users._doAddUser("alice", "third-password", (), [])
    given = {"id": "calls_of_branch", "poll_interval": "2"}
    added = site.manager().fill_in("/branch/+/addAsynchronousCallManager.html", given)
    settings = f"{added.headers['Location'].rpartition('/')[0]}/manage_settings"
    assert site.manager().fill_in(settings, {"offered:list": ["add"]}).status == 303
    alice = site.visitor(("alice", "third-password"))
    body = {"plugin": "add", "arguments": {"first": 1, "second": 2}}

    made = alice.post_json("/branch/calls_of_branch/ask", body)

    assert made.status == 202, made.body
    assert made.json["owner"] == "alice (/branch/acl_users)"
    assert alice.get(made.headers["Location"]).status == 202
    assert site.visitor(ALICE).get(made.headers["Location"]).status == 404  # she is another one
    assert site.manager().get(made.headers["Location"]).status == 202
    assert alice.post_json(f"/branch{MANAGER}/ask", body).status == 401  # that of the root


# Numbers in addresses, and headers


@pytest.mark.parametrize("name", ["start", "size"])
@pytest.mark.parametrize(
    "value",
    ["0", "-1", "1", "999999999999", "9" * 3000, "1e9", "0x10", "٣", "NaN", "", "' OR 1", "1.5"],
)
@pytest.mark.parametrize("page", ["manage_calls", "calls"])
def test_numbers_in_an_address_are_bounded(site: Site, page: str, name: str, value: str):
    from urllib.parse import quote

    for suffix in ("", ":list", ":int", ":record"):
        answer = site.manager().get(f"{MANAGER}/{page}?{name}{suffix}={quote(value)}")
        assert answer.status in ((200,) if suffix != ":int" else (200, 400, 404, 500))
        assert answer.body.count("<tr>") <= 201


def test_a_list_goes_on_page_by_page(site: Site):
    for _ in range(5):
        put_call(site, OF_ALICE)
    manager = site.manager()
    with site.transaction() as stored:
        ids = [call.id for call in stored.register]

    seen: list[str] = []
    path: str | None = f"{MANAGER}/manage_calls?size=2"
    while path is not None and len(seen) < 6:
        page = manager.get(path)
        links = [tag.attributes["href"] for tag in page.find("a")]
        seen += [link.partition("?id=")[2] for link in links if "?id=" in link]
        path = next(
            (a.attributes["href"] for a in page.find("a") if a.text.strip() == "Older"), None
        )

    assert seen[:6] == ids[:6]


def test_calls_are_listed_by_state(site: Site):
    call_id = put_call(site, OF_ALICE, int, "no number")
    perform(site, call_id)

    failed = site.manager().get(f"{MANAGER}/manage_calls?state=failed").body
    succeeded = site.manager().get(f"{MANAGER}/manage_calls?state=succeeded").body

    assert call_id in failed
    assert call_id not in succeeded


@pytest.mark.parametrize("page", [*MANAGEMENT, "ask", "calls", "calls/{id}"])
def test_every_page_forbids_scripts_that_are_not_ours(site: Site, page: str):
    path = f"{MANAGER}/{page.format(id=put_call(site, OF_ALICE))}"
    separator = "&" if "?" in path else "?"

    answer = site.manager().get(f"{path}{separator}id={put_call(site, OF_ALICE)}")

    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert all("src" in tag.attributes for tag in answer.find("script"))
    assert not answer.find("style")
    assert not [tag for tag in answer.tags if "style" in tag.attributes]


# Counts and pings


def test_counts_tell_new_accepted_and_resolved_calls(site: Site):
    """Row 16."""
    with site.transaction() as manager:
        before = (manager.lenNewCalls(), manager.lenAcceptedCalls(), manager.lenResolvedCalls())
    put_call(site, None)
    perform(site, put_call(site, None))

    with site.transaction() as manager:
        after = (manager.lenNewCalls(), manager.lenAcceptedCalls(), manager.lenResolvedCalls())

    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 0, 1]


def test_a_ping_is_answered_by_whoever_works_the_queue(site: Site):
    """Row 22."""
    manager = site.manager()
    answer = manager.fill_in(f"{MANAGER}/manage_main", {}, to=f"{MANAGER}/manage_sendPing")
    assert answer.status == 303

    with site.transaction() as stored:
        asked = stored.getLastPing()
        assert asked is not None
        assert stored.getLastPong() is None
        assert stored.ping() == asked  # none is added while one waits
        question = stored._ping.job
        question.queue.remove(question)
        question()
    with site.transaction() as stored:
        answered = stored.getLastPong()
        assert answered >= asked
        assert stored.ping() >= answered
        assert stored.getLastPong() == answered  # until the next answer

    page = manager.get(f"{MANAGER}/manage_main").body
    assert "No worker is alive" in page


def test_a_call_that_nobody_knows_is_a_lookup_error(site: Site):
    with site.transaction() as manager, pytest.raises(CallNotFound):
        manager.register.get("nothing")


def test_admin_is_nobody_special_for_calls(site: Site):
    """A manager may ask, too, and has calls of his own."""
    manager = site.visitor(ADMIN)

    answer = manager.post_json(f"{MANAGER}/ask", {"plugin": "mail", "arguments": {"to": "all"}})

    assert answer.status == 202
    assert answer.json["id"] in manager.get(f"{MANAGER}/calls").body
