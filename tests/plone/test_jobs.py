# SPDX-License-Identifier: ZPL-2.1
"""Jobs of an application in a Plone site, and what the REST API tells of them to whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import transaction

from tests.plone import meddling
from tests.plone.conftest import queue_of, set_size
from tests.plone.plone_instance import (
    ANNA,
    CHIEF,
    EDITOR,
    JSON,
    MEMBER,
    PloneInstance,
    site_here,
)

Documents = Callable[[int], list[str]]


def put_as(
    plone: PloneInstance,
    user_id: str,
    function: Any,
    *args: Any,
    language: str = "en",
    label: str = "",
) -> str:
    """Put a job as that user, as a view of an application would; the path of its address."""
    from zasync.integrations.plone.putting import put

    def ask(site: Any) -> Any:
        placed = [site.restrictedTraverse(arg[1:]) if is_path(arg) else arg for arg in args]
        return put(function, *placed, label=label)

    return asked_as(plone, user_id, ask, language)


def asked_as(plone: PloneInstance, user_id: str, ask: Any, language: str = "en") -> str:
    """Do `ask(site)` as that user, and commit; the path of the address of the call it answers.

    The web process hears of the commit a moment later.
    """
    from AccessControl.SecurityManagement import newSecurityManager
    from zope.globalrequest import getRequest

    with site_here() as site:
        user = site.acl_users.getUserById(user_id)
        newSecurityManager(None, user.__of__(site.acl_users))
        getRequest()["LANGUAGE"] = language
        call = ask(site)
        transaction.commit()
        url = f"@jobs/{call.id}"
    plone.wait_until(lambda: plone.rest(url, CHIEF)[0].status != 404, "the web has heard of it")
    return url


def is_path(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("/")


def test_a_job_runs_as_the_user_who_asked_in_the_site_and_language(
    plone: PloneInstance, worker: Any, documents: Documents
) -> None:
    make = meddling.make_document
    folder = folder_of(documents)
    url = put_as(plone, "editor", make, folder, "made", language="de", label="Make one")

    document = plone.finished(url, EDITOR)

    assert document["outcome"] == "succeeded", document
    assert document["label"] == "Make one"
    assert document["result"]["creators"] == ["editor"]
    assert document["result"]["user"] == "editor"
    assert document["result"]["language"] == "de"
    assert document["result"]["translated"] == "Ordner"
    assert document["result"]["layer"] is True
    with site_here(as_admin=True) as site:
        found = site.portal_catalog(path=f"/Plone{folder}/made")
        assert [brain.Creator for brain in found] == ["editor"]


def folder_of(documents: Documents) -> str:
    return documents(1)[0].rpartition("/")[0]


def test_what_is_put_in_a_queue_without_saying_more_enters_the_site_too(site: Any) -> None:
    from zasync.integrations.plone.job import PloneJob
    from zasync.interfaces import IJob

    for callable in (meddling.fail_until, len, [].append):
        assert type(IJob(callable)) is PloneJob


def test_the_catalog_can_be_brought_up_to_date_within_a_job(
    plone: PloneInstance, worker: Any, documents: Documents
) -> None:
    url = put_as(plone, "editor", meddling.finds_what_it_made, folder_of(documents))

    assert plone.finished(url, EDITOR)["result"] == 2


def test_somebody_else_s_job_is_404_for_everything(
    plone: PloneInstance, worker: Any, no_places: None
) -> None:
    url = put_as(plone, "editor", meddling.fail_until, "never")

    for method, path in (("GET", url), ("DELETE", url), ("POST", f"{url}/retry")):
        body = {} if method == "POST" else None
        mine, _ = plone.rest(path, EDITOR, body, method=method)
        theirs, document = plone.rest(path, ANNA, body, method=method)
        nobodys, other = plone.rest(path.replace(url, "@jobs/nothing"), ANNA, body, method=method)
        assert mine.status != 404
        assert theirs.status == nobodys.status == 404
        assert document == other  # not even the message tells that there is one
        assert plone.rest(path, CHIEF, body, method=method)[0].status != 404
    assert plone.rest(url, None)[0].status == 401


def test_the_list_has_mine_and_for_managers_all_with_filters(
    plone: PloneInstance, worker: Any, no_places: None
) -> None:
    editors = put_as(plone, "editor", meddling.fail_until, "never", label="the editor's")
    annas = put_as(plone, "anna", meddling.fail_until, "never", label="Anna's")

    def ids(user: Any, query: str = "") -> set[str]:
        answer, document = plone.rest(f"@jobs{query}", user)
        assert answer.status == 200, answer.body
        return {"@jobs/" + each["id"] for each in document["items"]}

    assert editors in ids(EDITOR)
    assert annas not in ids(EDITOR)
    assert ids(MEMBER) == set()
    assert {editors, annas} <= ids(CHIEF, "?b_size=1000")
    assert annas not in ids(CHIEF, "?user=editor&b_size=1000")
    assert editors in ids(CHIEF, "?user=editor&state=new")
    assert editors not in ids(CHIEF, "?user=editor&state=succeeded&b_size=1000")
    assert plone.rest("@jobs?state=odd", EDITOR)[0].status == 400
    assert plone.rest("@jobs?user=anna", EDITOR)[0].status == 400
    assert plone.rest("@jobs", None)[0].status == 401
    _, batch = plone.rest("@jobs?b_size=1", CHIEF)
    assert len(batch["items"]) == 1
    assert batch["items_total"] >= 2
    assert "next" in batch["batching"]


def test_a_waiting_job_is_answered_by_202_and_can_be_cancelled_once(
    plone: PloneInstance, worker: Any, no_places: None
) -> None:
    waiting = jobs_that_wait()
    url = put_as(plone, "editor", meddling.fail_until, "never")

    answer, document = plone.rest(url, EDITOR)
    assert (answer.status, document["state"]) == (202, "new")
    assert answer.headers["Location"].endswith(url)
    assert answer.headers["Retry-After"]

    assert plone.rest(url, EDITOR, method="DELETE")[0].status == 204
    answer, document = plone.rest(url, EDITOR)
    assert (answer.status, document["outcome"]) == (200, "cancelled")
    assert plone.rest(url, EDITOR, method="DELETE")[0].status == 409
    assert jobs_that_wait() == waiting


def jobs_that_wait() -> int:
    with site_here() as site:
        return len(queue_of(site))


def test_a_failed_job_tells_why_without_traceback_and_can_be_done_again(
    plone: PloneInstance, worker: Any
) -> None:
    url = put_as(plone, "editor", meddling.fail_until, "now-there")
    document = plone.finished(url, EDITOR)
    assert document["outcome"] == "failed"
    assert "<script>alert('no')</script> is not there yet" in str(document)
    assert "Traceback" not in str(document)
    assert plone.rest(url, EDITOR, method="DELETE")[0].status == 409
    (plone.signs / "now-there").touch()

    answer, _ = plone.rest(f"{url}/retry", EDITOR, {})

    assert answer.status == 202
    assert plone.finished(url, EDITOR)["result"] == "done"
    answer, document = plone.rest(f"{url}/retry", EDITOR, {})
    assert (answer.status, document["type"]) == (409, "Conflict")


def test_a_user_who_is_gone_when_the_job_runs_parks_it_and_nobody_else_does_it(
    plone: PloneInstance, worker: Any, no_places: None, documents: Documents
) -> None:
    folder = folder_of(documents)
    with plone.changed() as site:
        site.acl_users.userFolderAddUser("leaver", "a long secret", ["Editor", "Contributor"], [])
    url = put_as(plone, "leaver", meddling.make_document, folder, "never-made")
    with plone.changed() as site:
        site.acl_users.userFolderDelUsers(["leaver"])
    set_size(2)

    document = plone.finished(url, CHIEF)

    assert document["outcome"] == "failed"
    assert "UserGone" in str(document)
    assert "leaver" in str(document)
    with site_here(as_admin=True) as site:
        assert not site.portal_catalog(path=f"/Plone{folder}/never-made")
        assert len(queue_of(site).parked) == 1

    # The user comes back, and the manager has the job done after all.
    with plone.changed() as site:
        site.acl_users.userFolderAddUser("leaver", "a long secret", ["Editor", "Contributor"], [])
    assert plone.rest(f"{url}/retry", CHIEF, {})[0].status == 202
    document = plone.finished(url, CHIEF)
    assert document["result"]["creators"] == ["leaver"]
    with site_here() as site:
        assert len(queue_of(site).parked) == 0


def test_a_folder_that_is_gone_when_the_job_runs_is_told(
    plone: PloneInstance, worker: Any, no_places: None, documents: Documents
) -> None:
    folder = folder_of(documents)
    url = put_as(plone, "editor", meddling.make_document, folder, "never-made")
    with plone.changed() as site:
        site.manage_delObjects([folder[1:]])
    set_size(2)

    document = plone.finished(url, EDITOR)

    assert document["outcome"] == "failed"
    assert folder[1:] in str(document)


def test_steps_that_see_to_nothing_end(plone: PloneInstance, worker: Any) -> None:
    from zasync.integrations.plone.putting import put_job
    from zasync.integrations.plone.steps import Stepwise
    from zasync.integrations.plone.work import Work

    def ask(site: Any) -> Any:
        return put_job(Stepwise(meddling.sees_to_nothing, Work(["a", "b"])))

    document = plone.finished(asked_as(plone, "editor", ask), EDITOR)

    assert document["outcome"] == "failed"
    assert "sees_to_nothing has seen to nothing, with 0 of 2 done" in str(document["failure"])


@pytest.mark.parametrize("path", ["@jobs/a/b", "@jobs/a/retry", "@bulk-transition/x"])
def test_an_address_that_means_nothing_is_404(plone: PloneInstance, path: str) -> None:
    assert plone.rest(path, EDITOR, {}, method="POST")[0].status == 404


def test_a_page_of_another_site_cannot_make_the_browser_put_a_job(plone: PloneInstance) -> None:
    """A form cannot send JSON headers, and without them there is no such service."""
    path = "@bulk-transition"
    answer = plone.get(path, EDITOR, {"Accept": "text/html"}, data=b"items=1")
    assert answer.status == 404
    assert JSON["Accept"] != "text/html"
