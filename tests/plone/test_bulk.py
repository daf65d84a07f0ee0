# SPDX-License-Identifier: ZPL-2.1
"""An editor publishes five hundred documents; and what may come in between."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

from tests.plone.conftest import queue_of
from tests.plone.plone_instance import (
    ADMIN,
    ANNA,
    CHIEF,
    EDITOR,
    MEMBER,
    PloneInstance,
    site_here,
)

DOCUMENTS = 500

Documents = Callable[[int], list[str]]


def start(plone: PloneInstance, items: list[str], user: Any = EDITOR, **options: Any) -> str:
    """Ask for the transition; where to ask what became of it."""
    answer, document = plone.rest("@bulk-transition", user, {"items": items, **options})
    assert answer.status == 202, answer.body
    assert document["@id"] == answer.headers["Location"]
    assert int(answer.headers["Retry-After"]) >= 1
    return str(answer.headers["Location"])


def states(folder: str) -> dict[str, int]:
    """How many documents of the folder the catalog has in each state."""
    with site_here(as_admin=True) as site:
        found: dict[str, int] = {}
        path = f"/Plone{folder}"
        for brain in site.portal_catalog(path=path, portal_type="Document"):
            found[brain.review_state] = found.get(brain.review_state, 0) + 1
        return found


def test_an_editor_publishes_five_hundred_documents_while_another_edits_them(
    plone: PloneInstance, worker: Any, documents: Documents
) -> None:
    paths = documents(DOCUMENTS)
    folder, contested = paths[0].rpartition("/")[0], paths[123]
    name = contested.rpartition("/")[2]
    (plone.signs / f"stop-{name}").touch()

    url = start(plone, paths, comment="spring edition")

    # The step that has this document in its hands is held up; meanwhile Anna saves it.
    stopped = plone.signs / f"stopped-{name}"
    plone.wait_until(stopped.exists, "the job has come to the contested document")
    answer, running = plone.rest(url, EDITOR)
    assert answer.status == 202
    assert running["progress"]["total"] == DOCUMENTS
    assert 0 < running["progress"]["done"] <= 123
    answer, _ = plone.rest(contested[1:], ANNA, {"title": "Anna was here"}, method="PATCH")
    assert answer.status == 204, answer.body
    (plone.signs / f"go-{name}").touch()
    # And she goes on saving others, as fast as she can, until the job has ended.
    ended = threading.Event()
    saved = threading.Thread(target=keep_saving, args=(plone, paths, ended))
    saved.start()
    seen = [running["progress"]["done"]]
    try:
        plone.wait_until(lambda: has_ended(plone, url, seen), "the job has ended")
    finally:
        ended.set()
        saved.join(60)

    answer, document = plone.rest(url, EDITOR)
    assert document["outcome"] == "succeeded", document
    result = document["result"]
    assert (result["total"], result["changed"], result["problems"]) == (DOCUMENTS, DOCUMENTS, [])
    assert seen == sorted(seen)
    assert len(set(seen)) > 3  # the progress could be seen
    assert states(folder) == {"published": DOCUMENTS}
    with site_here(as_admin=True) as site:
        for path in paths:
            last = site.unrestrictedTraverse(path[1:]).workflow_history
            last = last["simple_publication_workflow"][-1]
            assert (last["actor"], last["action"]) == ("editor", "publish")
            assert last["comments"] == "spring edition"
        contested_one = site.unrestrictedTraverse(contested[1:])
        assert contested_one.Title() == "Anna was here"
        conflicts = conflicts_of(site, url)
        assert conflicts >= 1
    began, ended_at = (datetime.fromisoformat(document[key]) for key in ("started_at", "ended_at"))
    print(f"{DOCUMENTS} documents in {ended_at - began}, {conflicts} steps done again")
    answer, history = plone.rest(f"{contested[1:]}/@history", EDITOR)
    published = [entry for entry in history if entry.get("review_state") == "published"]
    assert [entry["actor"]["id"] for entry in published] == ["editor"], history


def keep_saving(plone: PloneInstance, paths: list[str], ended: threading.Event) -> None:
    """Be Anna, who gives new descriptions to documents all over the place."""
    number = 0
    while not ended.is_set():
        path = paths[(number * 37) % len(paths)]
        number += 1
        with contextlib.suppress(OSError):
            plone.rest(path[1:], ANNA, {"description": f"edit {number}"}, method="PATCH")


def has_ended(plone: PloneInstance, url: str, seen: list[float]) -> bool:
    answer, document = plone.rest(url, EDITOR)
    if answer.status == 202:
        assert int(answer.headers["Retry-After"]) >= 1
        seen.append(document["progress"]["done"])
    return answer.status == 200


def conflicts_of(site: Any, url: str) -> int:
    """How often steps of the job were done again after a conflict."""
    from zasync.integrations.plone.register import jobs_of

    job = jobs_of(site).calls.get(url.rpartition("/")[2]).job
    return sum(step.getRetryPolicy().data.get("conflicts", 0) for step in job.args)


def test_what_the_editor_may_not_publish_is_told_and_the_rest_is_published(
    plone: PloneInstance, worker: Any, documents: Documents
) -> None:
    paths = documents(5)
    folder = paths[0].rpartition("/")[0]
    with plone.changed() as site:
        hidden = site.unrestrictedTraverse(paths[0][1:])
        hidden.manage_permission("View", ["Manager"], acquire=0)
        locked = site.unrestrictedTraverse(paths[1][1:])
        locked._Review_portal_content_Permission = ("Manager",)
        uid = site.unrestrictedTraverse(paths[2][1:]).UID()
        site.portal_workflow.doActionFor(site.unrestrictedTraverse(paths[3][1:]), "publish")
    address = f"{plone.plone}{paths[4]}"

    url = start(plone, [paths[0], paths[1], uid, paths[3], address, "/nowhere", "0" * 32])
    document = plone.finished(url, EDITOR)

    result = document["result"]
    assert document["outcome"] == "succeeded"
    assert result["changed"] == 2
    assert result["already"] == 1
    problems = {each["item"]: each["problem"] for each in result["problems"]}
    assert problems == {
        paths[0]: "missing",  # as if it were not there: he may not see it
        paths[1]: "refused",
        "/nowhere": "missing",
        "0" * 32: "missing",
    }
    assert all(each["reason"] for each in result["problems"])
    assert states(folder) == {"published": 3, "private": 2}


def test_a_document_whose_change_raises_is_told_and_is_left_as_it_was(
    plone: PloneInstance, worker: Any, documents: Documents
) -> None:
    paths = documents(3)
    with plone.changed() as site:
        folder = site.unrestrictedTraverse(paths[0].rpartition("/")[0][1:])
        folder.manage_renameObject("d1", "d-explodes")
    bad = paths[1].replace("d1", "d-explodes")

    document = plone.finished(start(plone, [paths[0], bad, paths[2]]), EDITOR)

    assert document["result"]["changed"] == 2
    assert document["result"]["problems"] == [
        {
            "item": bad,
            "problem": "failed",
            "reason": "RuntimeError: this one <b>explodes</b>",
        }
    ]
    with site_here(as_admin=True) as site:
        left = site.unrestrictedTraverse(bad[1:])
        assert site.portal_workflow.getInfoFor(left, "review_state") == "private"


def test_rights_that_are_lost_meanwhile_are_lost_for_the_job(
    plone: PloneInstance, worker: Any, no_places: None, documents: Documents
) -> None:
    from tests.plone.conftest import set_size

    paths = documents(2)
    url = start(plone, paths, ANNA)
    with plone.changed() as site:
        site.acl_users.userFolderEditUser("anna", None, ["Member"], [])
    try:
        set_size(2)
        document = plone.finished(url, ANNA)
    finally:
        with plone.changed() as site:
            roles = ["Member", "Contributor", "Editor", "Reviewer"]
            site.acl_users.userFolderEditUser("anna", None, roles, [])

    assert document["result"]["changed"] == 0
    assert {each["problem"] for each in document["result"]["problems"]} <= {"refused", "missing"}
    assert len(document["result"]["problems"]) == 2


def test_a_user_who_goes_in_the_middle_ends_it_and_what_was_done_stays(
    plone: PloneInstance, worker: Any, documents: Documents
) -> None:
    roles = ["Member", "Contributor", "Editor", "Reviewer"]
    with plone.changed() as site:
        site.acl_users.userFolderAddUser("brief", "a long secret", roles, [])
    paths = documents(30)
    (plone.signs / "stop-d25").touch()
    url = start(plone, paths, ("brief", "a long secret"))
    stopped = plone.signs / "stopped-d25"
    plone.wait_until(stopped.exists, "the job is in its third step")
    with plone.changed() as site:
        site.acl_users.userFolderDelUsers(["brief"])
        # So that the third step has to be done again, and by then he is not there any more.
        site.unrestrictedTraverse(paths[25][1:]).setTitle("edited")
    (plone.signs / "go-d25").touch()

    document = plone.finished(url, CHIEF)

    assert document["outcome"] == "failed"
    assert document["failure"]["type"].endswith("UserGone")
    assert document["progress"]["done"] == 20
    with site_here() as site:
        assert len(queue_of(site).parked) == 1
    with plone.changed() as site:
        site.acl_users.userFolderAddUser("brief", "a long secret", roles, [])
    assert plone.rest(f"{url}/retry", CHIEF, {})[0].status == 202
    assert plone.finished(url, CHIEF)["result"]["changed"] == 30
    with site_here() as site:
        assert len(queue_of(site).parked) == 0
    for sign in (stopped, plone.signs / "go-d25"):
        sign.unlink()


def test_two_editors_publish_the_same_documents_at_once_and_each_is_done_once(
    plone: PloneInstance, worker: Any, documents: Documents
) -> None:
    paths = documents(60)

    urls = [(start(plone, paths, EDITOR), EDITOR), (start(plone, paths[::-1], ANNA), ANNA)]
    results = [plone.finished(url, user)["result"] for url, user in urls]

    assert sum(result["changed"] for result in results) == 60
    assert [result["changed"] + result["already"] for result in results] == [60, 60]
    assert states(paths[0].rpartition("/")[0]) == {"published": 60}


def test_the_root_s_manager_can_do_it_too(
    plone: PloneInstance, worker: Any, documents: Documents
) -> None:
    document = plone.finished(start(plone, documents(1), ADMIN), ADMIN)

    assert document["user"] == "admin"
    assert document["result"]["changed"] == 1


def test_what_cannot_be_done_is_refused_in_the_request(
    plone: PloneInstance, documents: Documents
) -> None:
    cases: list[tuple[Any, str]] = [
        (["/a"], "Malformed body"),
        ({"items": []}, "no items"),
        ({"items": "abc"}, "must be a list"),
        ({}, "must be a list"),
        ({"items": [7]}, "an item is a UID"),
        ({"items": [" "]}, "an item is a UID"),
        ({"items": ["/a"], "transition": "publsh"}, "near to it: publish"),
        ({"items": ["/a"], "transition": 5}, "transition must be a text"),
        ({"items": ["/a/../../b"]}, "leads out of"),
        ({"items": ["https://example.com/a"]}, "is no address in the site"),
        ({"items": ["/a"], "wait": True}, "no option wait"),
        ({"items": [f"/a{n}" for n in range(10_001)]}, "more than the 10000"),
        ({"items": ["/a"], "comment": "x" * 2001}, "at most 2000 characters"),
    ]
    for body, message in cases:
        answer, document = plone.rest("@bulk-transition", EDITOR, body)
        assert answer.status == 400, (body, answer.body)
        assert message in document["message"]


def test_one_who_may_not_change_many_is_refused(plone: PloneInstance) -> None:
    for user in (MEMBER, None):
        answer, _ = plone.rest("@bulk-transition", user, {"items": ["/a"]})
        assert answer.status == 401


def test_local_roles_count_where_the_service_is_called(
    plone: PloneInstance, worker: Any, documents: Documents
) -> None:
    paths = documents(2)
    folder = paths[0].rpartition("/")[0]
    with plone.changed() as site:
        place = site.unrestrictedTraverse(folder[1:])
        place.manage_setLocalRoles("member", ["Editor", "Reviewer", "Contributor"])
        place.reindexObjectSecurity()

    answer, document = plone.rest(f"{folder[1:]}/@bulk-transition", MEMBER, {"items": paths})

    assert answer.status == 202, answer.body
    assert plone.finished(document["@id"], MEMBER)["result"]["changed"] == 2


def test_a_cancelled_one_stops_after_the_step_it_is_at(
    plone: PloneInstance, worker: Any, documents: Documents
) -> None:
    paths = documents(40)
    folder = paths[0].rpartition("/")[0]
    (plone.signs / "stop-d15").touch()
    url = start(plone, paths)
    stopped = plone.signs / "stopped-d15"
    plone.wait_until(stopped.exists, "the job is in its second step")

    answer, _ = plone.rest(url, EDITOR, method="DELETE")
    (plone.signs / "go-d15").touch()

    assert answer.status == 204
    document = plone.finished(url, EDITOR)
    assert document["outcome"] == "cancelled"
    assert document["progress"]["done"] == 10
    plone.wait_until(worker_is_idle, "the worker has given the step up")
    assert states(folder) == {"published": 10, "private": 30}
    for sign in (stopped, plone.signs / "go-d15"):
        sign.unlink()

    answer, again = plone.rest(f"{url}/retry", EDITOR, {})
    assert answer.status == 202
    assert again["@id"] == url
    document = plone.finished(url, EDITOR)
    assert document["outcome"] == "succeeded"
    assert document["result"]["changed"] == 40  # it went on where it was
    assert states(folder) == {"published": 40}


def worker_is_idle() -> bool:
    with site_here() as site:
        records = queue_of(site).dispatchers.values()
        return all(len(agent) == 0 for record in records for agent in record.values())


def test_a_worker_that_is_killed_loses_nothing(
    plone: PloneInstance, worker: Any, documents: Documents
) -> None:
    paths = documents(30)
    folder = paths[0].rpartition("/")[0]
    (plone.signs / "stop-d12").touch()
    other = plone.start_worker()
    url = start(plone, paths)
    plone.wait_until((plone.signs / "stopped-d12").exists, "a worker is in the second step")

    victim = process_of_running_step()
    assert victim in (other.pid, worker.pid)
    for process in (other, worker):
        if process.pid == victim:
            process.kill()
            process.wait(60)
    (plone.signs / "go-d12").touch()
    plone.start_worker()  # in its place, as whatever supervises workers does

    document = plone.finished(url, EDITOR)
    assert document["result"]["changed"] == 30
    assert states(folder) == {"published": 30}


def process_of_running_step() -> int:
    with site_here() as site:
        for record in queue_of(site).dispatchers.values():
            if any(job.status == "active-status" and job.args for job in running_of(record)):
                return int(record.process["pid"])
    raise AssertionError("no worker runs a step")


def running_of(record: Any) -> Any:
    from zasync.integrations.plone.job import PloneJob

    return [job for agent in record.values() for job in agent if isinstance(job, PloneJob)]


def test_a_manager_sees_the_editor_s_job(
    plone: PloneInstance, worker: Any, documents: Documents
) -> None:
    url = start(plone, documents(1), label="One for <i>you</i>")
    plone.finished(url, EDITOR)

    answer, document = plone.rest(url, CHIEF)

    assert answer.status == 200
    assert document["user"] == "editor"
    assert document["label"] == "One for <i>you</i>"
