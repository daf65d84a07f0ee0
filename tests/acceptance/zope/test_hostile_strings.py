# SPDX-License-Identifier: ZPL-2.1
"""Whatever a call, its owner, a worker or a request says, no page takes it for markup.

Each payload is put into every field that a page shows; the pages are read as a parser of HTML
reads them, and a few as a real browser does.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest

from tests.support.chromium import browser, need_browser
from tests.support.visitors import Answer
from tests.support.zope_instance import ADMIN
from tests.support.zope_site import ALICE, MANAGER, Site
from zasync.job import Job

pytestmark = [pytest.mark.process, pytest.mark.zeo, pytest.mark.slow, pytest.mark.timeout(600)]

CODE = "document.canary=1"
PAYLOADS = [
    f"<script>{CODE}</script>",
    f"</script><script>{CODE}</script>",
    f"<SCRIPT SRC=//canary.invalid></SCRIPT><script>{CODE}</script>",
    f"<img src=x onerror={CODE}>",
    f"<svg/onload={CODE}>",
    f"<svg><script>{CODE}</script></svg>",
    f"<body onload={CODE}>",
    f"<iframe src=javascript:{CODE}></iframe>",
    f'<a href="javascript:{CODE}">canary</a>',
    f"<details open ontoggle={CODE}>canary",
    f"<input autofocus onfocus={CODE}>",
    f"<video><source onerror={CODE}>",
    f"<math><mtext></form><form><mglyph><style></math><img src onerror={CODE}>",
    f"<noscript><p title='</noscript><img src=x onerror={CODE}>'>",
    f"<!--><img src=x onerror={CODE}>-->",
    f"<![CDATA[><img src=x onerror={CODE}>]]>",
    f"<?xml ?><img src=x onerror={CODE}>",
    f"<base href=//canary.invalid/><script src=canary.js></script>{CODE}",
    f"<meta http-equiv=refresh content='0;url=javascript:{CODE}'>",
    f"<form action=//canary.invalid><button>{CODE}",
    f"<link rel=stylesheet href=//canary.invalid>{CODE}",
    f"<style>*{{background:url(//canary.invalid)}}</style>{CODE}",
    f'"><script>{CODE}</script>',
    f"'><script>{CODE}</script>",
    f'" onmouseover="{CODE}" x="',
    f"' onmouseover='{CODE}' x='",
    f'" autofocus onfocus={CODE} "',
    f"` onmouseover={CODE} `",
    f"javascript:{CODE}",
    f"data:text/html,<script>{CODE}</script>",
    f"</textarea><script>{CODE}</script>",
    f"</title><script>{CODE}</script>",
    f"</pre></main><script>{CODE}</script>",
    f"</noscript></style></template><script>{CODE}</script>",
    f"<<script>{CODE}//<</script>",
    f"<scr<script>ipt>{CODE}</scr</script>ipt>",
    f"<script\x0b>{CODE}</script>",
    f"<img\x0csrc=x\x0conerror={CODE}>",
    f"\x00<script>{CODE}</script>",
    f"+ADw-script+AD4-{CODE}+ADw-/script+AD4-",
    f"%3Cscript%3E{CODE}%3C/script%3E",
    f"&lt;script&gt;{CODE}&lt;/script&gt;",
    f"&#60;script&#62;{CODE}&#60;/script&#62;",
    f"\\u003cscript\\u003e{CODE}\\u003c/script\\u003e",
    f"\uff1cscript\uff1e{CODE}\uff1c/script\uff1e",
    f"{{{{constructor.constructor('{CODE}')()}}}}",
    f"${{{CODE}}}",
    f"${{python:1/0}}{CODE}",
    f"<tal:x content='python:1/0'>{CODE}</tal:x>",
    f"<dtml-var expr='1/0'>{CODE}",
    f"structure string:<b>{CODE}</b>",
    f"\r\nSet-Cookie: canary=1\r\n\r\n<script>{CODE}</script>",
    f"\u2028<script>{CODE}</script>\u2029",
    f"\u202e<script>{CODE}</script>",
    f"\x1b]0;{CODE}\x07",
    f"<x-canary>{CODE}</x-canary>" * 50,
    f"{'<' * 50}script>{CODE}",
    f"<template shadowrootmode=open><script>{CODE}</script></template>",
    f"<object data=javascript:{CODE}>",
    f"<embed src=javascript:{CODE}>",
]

_TAGS = """
    a body br button code dd div dl dt form h1 h2 head header html i input label li link main
    meta nav noscript ol option p pre progress script select span strong table tbody td th thead
    title tr ul
"""
OUR_TAGS = frozenset(_TAGS.split())


def fail_with(text: str) -> None:
    raise type(f"Error {text}", (ValueError,), {})(text)


def give(value: Any) -> Any:
    return value


def give_set(text: str) -> set[str]:
    return {text}


def check(answer: Answer, payload: str, *, told: bool = True) -> None:
    """Nothing of the page comes from the payload; and the payload is there, if it is `told`."""
    assert answer.headers["Content-Type"].startswith("text/html")
    for tag in answer.tags:
        assert tag.name in OUR_TAGS, (tag.name, tag.attributes)
        for name, value in tag.attributes.items():
            assert not name.startswith("on"), (tag.name, name, value)
            assert name not in ("style", "srcdoc", "ping"), (tag.name, name, value)
            if name in ("href", "src", "action", "formaction", "data"):
                assert value.startswith(("http://127.0.0.1:", "/", "manage_zmi_logout")), value
                assert "canary.invalid" not in value
        if tag.name == "script":
            assert tag.attributes["src"].endswith("/zasync.js")
            assert tag.text.strip() == ""
        if tag.name == "meta" and "http-equiv" in tag.attributes:
            assert tag.attributes["content"].isdigit()
    if told:
        everything = [tag.text for tag in answer.tags]
        everything += [value for tag in answer.tags for value in tag.attributes.values()]
        assert any(CODE in text for text in everything), payload


def hostile_calls(manager: Any, payload: str, owner: str) -> list[str]:
    """A call in each state, with the payload wherever there is a text; answers their ids."""
    register, ids = manager.register, []
    for function, performed in ((give, False), (give, True), (give_set, True), (fail_with, True)):
        call = register.put(Job(function, payload), owner=owner, label=payload)
        job = call.job
        manager._p_jar.transaction_manager.savepoint()
        if performed:
            job.queue.remove(job)
            job()
        job._progress = (job.oid, job._active_start, payload)
        ids.append(str(call.id))
    return ids


@pytest.fixture(scope="module")
def calls(site: Site) -> dict[str, list[str]]:
    """For each payload the ids of the calls that have it."""
    with site.transaction() as manager:
        return {
            payload: hostile_calls(manager, payload, "user:/acl_users:alice")
            for payload in PAYLOADS
        }


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_call_is_text_on_all_its_pages(site: Site, calls: dict[str, list[str]], payload: str):
    manager, alice = site.manager(), site.visitor(ALICE)

    for call_id in calls[payload]:
        check(manager.get(f"{MANAGER}/manage_call?id={call_id}"), payload)
        check(alice.get(f"{MANAGER}/calls/{call_id}"), payload)
        told = alice.ask_for_json(f"{MANAGER}/calls/{call_id}")
        assert told.headers["Content-Type"] == "application/json; charset=utf-8"
        assert told.headers["X-Content-Type-Options"] == "nosniff"
        assert isinstance(told.json, dict)


def test_calls_are_text_in_lists(site: Site, calls: dict[str, list[str]]):
    manager, alice = site.manager(), site.visitor(ALICE)

    for start in range(0, 4 * len(PAYLOADS), 50):
        check(manager.get(f"{MANAGER}/manage_calls?size=50&start={start}"), "all")
    check(alice.get(f"{MANAGER}/calls"), "all")


@pytest.fixture(scope="module")
def hostile(site: Site) -> dict[str, tuple[str, str]]:
    """For each payload the address of a manager with it, and the id of a call of such an owner."""
    from zasync.integrations.zope.manager import AsynchronousCallManager

    found = {}
    with site.transaction() as manager:
        app = manager._p_jar.root()["Application"]
        for number, payload in enumerate(PAYLOADS):
            name = f"hostile-{number}"
            app._setOb(name, AsynchronousCallManager(name, payload))
            app._getOb(name).offered = (payload,)
            record = manager.queue().dispatchers.register(UUID(int=number + 1))
            record.process = {"host": payload, "pid": payload}
        manager._p_jar.transaction_manager.savepoint()
        for number, payload in enumerate(PAYLOADS):
            hostile = app._getOb(f"hostile-{number}")
            owner = f"user:/acl_users:{payload}".replace("\0", " ")[:500]
            call = hostile.register.put(Job(give, 1), owner=owner, label="of whom")
            call.job.queue.remove(call.job)
            call.job()
            hostile._queue_name = payload
            found[payload] = (f"/hostile-{number}", str(call.id))
    return found


@pytest.mark.parametrize("payload", PAYLOADS)
def test_owners_and_settings_are_text(
    site: Site, hostile: dict[str, tuple[str, str]], payload: str
):
    admin, (path, call_id) = site.manager(), hostile[payload]

    for page in (
        "manage_main",
        "manage_calls",
        f"manage_call?id={call_id}",
        "manage_settings",
        "ask",
        f"calls/{call_id}",
    ):
        check(admin.get(f"{path}/{page}"), payload)


def test_workers_are_text(site: Site, hostile: dict[str, tuple[str, str]]):
    page = site.manager().get(f"{MANAGER}/manage_main")

    check(page, "all")
    assert page.body.count("document.canary") >= len(PAYLOADS)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_what_a_request_says_is_text(site: Site, payload: str):
    admin, alice = site.manager(), site.visitor(ALICE)
    given = quote(payload)

    names = ("state", "start", "size", "done", "id:list", "zmi_dialog", "manage_tabs_message")
    query = "&".join(f"{name}={given}" for name in names)
    for page in ("manage_calls", "manage_main", "manage_settings", "ask", "calls"):
        check(admin.get(f"{MANAGER}/{page}?{query}"), payload, told=False)
    check(alice.get(f"{MANAGER}/ask?plugin={given}"), payload, told=False)
    fields = {"title": payload, "poll_interval": payload, "rotation_period": payload, "id": payload}
    for path in (f"{MANAGER}/manage_settings", "/+/addAsynchronousCallManager.html"):
        answer = admin.fill_in(path, fields)
        assert answer.status == 200
        check(answer, payload)
    refused = admin.fill_in(
        f"{MANAGER}/manage_settings", {"title": "Calls", "offered:list": [payload, "add"]}
    )
    check(refused, payload)
    wrong = {"argument_first": payload, "argument_second": payload}
    check(alice.fill_in(f"{MANAGER}/ask?plugin=add", wrong), payload)
    elsewhere = alice.fill_in(f"{MANAGER}/ask?plugin=add", {"plugin": payload})
    check(elsewhere, payload, told=False)
    missing = alice.get(f"{MANAGER}/calls/{given.replace('%2F', '').replace('/', '')}")
    assert missing.status == 404
    assert CODE not in missing.body


@pytest.mark.parametrize(
    "name", ["<script>document.canary=1</script>", '" onmouseover="document.canary=1', "<b>x"]
)
def test_the_name_of_a_user_is_text(site: Site, name: str):
    user = site.instance.add_user(name, "a-password")
    visitor = site.visitor(user)

    for page in ("ask", "calls"):
        answer = visitor.get(f"{MANAGER}/{page}")
        check(answer, name, told=False)
        assert name in [tag.text.strip() for tag in answer.find("span", **{"class": "who"})]
    made = visitor.post_json(f"{MANAGER}/ask", {"plugin": "mail", "arguments": {"to": "me"}})
    assert made.status == 202
    check(site.manager().get(f"{MANAGER}/manage_calls"), name, told=False)


def test_a_real_browser_runs_nothing_of_it(site: Site, calls: dict[str, list[str]]):
    need_browser()
    with browser(site.address) as window:
        window.log_in(*ADMIN, f"{MANAGER}/manage_main")
        pages = [f"manage_calls?size=100&start={start}" for start in (0, 100, 200)]
        for payload in PAYLOADS[::6]:
            pages += [f"manage_call?id={call_id}" for call_id in calls[payload]]
            pages += [f"calls/{call_id}" for call_id in calls[payload]]
        for page in pages:
            window.go(f"{MANAGER}/{page}")
            found = window.driver.execute_script(
                "return [document.canary, document.querySelectorAll("
                "'x-canary, iframe, img, svg, object, embed, style, template, video').length]"
            )
            assert found == [None, 0], page


def test_the_script_shows_progress_as_text(site: Site):
    """What comes while the page is open goes through the script, not through a template."""
    need_browser()
    payload = PAYLOADS[3]
    with site.transaction() as manager:
        job = Job(give, 1)
        call = manager.register.put(job, owner="user:/acl_users:alice", label="slow")
        call_id = call.id
    with browser(site.address) as window:
        window.log_in(*ALICE, f"{MANAGER}/ask")
        window.go(f"{MANAGER}/calls/{call_id}")
        window.see("Working on it")
        with site.transaction() as manager:
            job = manager.register.get(call_id).job
            job._progress = (job.oid, job._active_start, payload)
        window.see(payload)
        assert window.driver.execute_script("return document.canary") is None
        assert window.count("img") == 0
        with site.transaction() as manager:
            job = manager.register.get(call_id).job
            job._progress = (job.oid, job._active_start, "half", (1, 2))
        window.wait_until(
            lambda: window.find("progress").get_attribute("value") == "1", "the bar moves"
        )
