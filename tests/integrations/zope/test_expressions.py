# SPDX-License-Identifier: ZPL-2.1
"""zope_exec and TALES callbacks: refused when asked for, evaluated as the user who asked."""

from __future__ import annotations

from typing import Any

import pytest
import transaction
from AccessControl import SpecialUsers
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.unauthorized import Unauthorized
from OFS.Folder import Folder
from Products.PageTemplates.ZopePageTemplate import ZopePageTemplate

from tests.integrations.zope import jobs
from tests.support.zope_place import Place
from zasync import plugins
from zasync.integrations.zope.execution import PLUGIN, zope_exec
from zasync.integrations.zope.expressions import BadExpression, tales_callback
from zasync.integrations.zope.identity import (
    SYSTEM,
    Identity,
    NotTrusted,
    SpecialUser,
    UserGone,
)
from zasync.integrations.zope.job import NoSuchObject, ZopeJob
from zasync.interfaces import NotStorableError


class Helper(Folder):
    """A folder whose method templates may call, to ask for what they should not get."""

    def ask_for_trust(self) -> None:
        """Ask for a trusted expression."""
        tales_callback(ZopeJob(jobs.nothing), "python: 1", trusted=True)

    ask_for_trust__roles__ = None


def put(place: Place, name: str, /, *args: Any, **options: Any) -> Any:
    with place.logged_in(name):
        return place.queue.put(zope_exec(*args, **options))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("python: here.title.upper()", "THE NEWS"),
        ("here/title", "The news"),
        ("string:${context/title}!", "The news!"),
        ("python: user.getId()", "alice"),
        ("python: request.form['idxs'] + [number]", ["Title", 3]),
        ("python: request['idxs']", ["Title"]),
        ("python: root.news.title", "The news"),
        ("python: path('here/title')", "The news"),
    ],
)
def test_an_expression_is_evaluated_as_the_user(
    place: Place, expression: str, expected: Any
) -> None:
    job = put(place, "alice", "/news", expression, {"idxs": ["Title"]}, {"number": 3})

    place.performed(job)

    assert job.result == expected


@pytest.mark.parametrize("context", ["/news", "/news/", ("", "news"), "object"])
def test_the_context_is_a_path_or_an_object(place: Place, context: Any) -> None:
    given = place.app.news if context == "object" else context
    job = put(place, "alice", given, "absolute_url_path")

    place.performed(job)

    assert job.result == "/news"


def test_the_root_is_a_context_too(place: Place) -> None:
    for root in ("", "/"):
        job = put(place, "boss", root, "python: list(here.objectIds())")
        place.performed(job)
        assert "closed" in job.result


def test_a_method_gets_arguments_and_the_request(place: Place) -> None:
    job = put(place, "boss", "/news", "manage_changeProperties", kwargs={"title": "Changed"})
    place.performed(job)

    assert not job.failed, job.result
    assert place.app.news.title == "Changed"


def test_the_site_and_the_language_can_be_given(place: Place) -> None:
    place.make_site("news")
    job = put(place, "alice", "", "here/title", site="/news", language="cs")

    assert job.identity == Identity("/acl_users", "alice", "/news", "cs")


def test_a_user_can_be_given_by_trusted_code(place: Place) -> None:
    boss = Identity("/acl_users", "boss")
    job = put(place, "alice", "/closed", "python: user.getId()", user=boss)

    place.performed(job)

    assert job.result == "boss"


def test_zope_itself_can_be_named_by_trusted_code(place: Place) -> None:
    newSecurityManager(None, SpecialUsers.system)
    with pytest.raises(SpecialUser):
        place.queue.put(zope_exec("/closed", "here/title_or_id"))
    job = place.queue.put(zope_exec("/closed", "here/title_or_id", user=SYSTEM))

    place.performed(job)

    assert job.result == "closed"


# What is refused at once


@pytest.mark.parametrize(
    "expression",
    [
        "python: 1 +",
        "python: context._p_jar",
        "python: [x for x in ().__class__.__bases__]",
        "pyhton: 1",
        "here/",
        "",
        "python:",
        "python: exec('1')",
        "python: import os",
        None,
        7,
    ],
)
def test_an_expression_that_does_not_compile_is_refused(place: Place, expression: Any) -> None:
    with pytest.raises(BadExpression):
        put(place, "alice", "/news", expression)

    with pytest.raises(BadExpression):
        tales_callback(ZopeJob(jobs.nothing), expression)


def test_an_expression_takes_no_arguments(place: Place) -> None:
    with pytest.raises(BadExpression, match="variables"):
        put(place, "alice", "/news", "python: 1", args=(1,))


@pytest.mark.parametrize("path", ["/missing", "/news/missing", "/news/title", "/news/../closed"])
def test_a_path_that_does_not_exist_is_refused_when_put(place: Place, path: str) -> None:
    with pytest.raises(NoSuchObject, match="no object"):
        put(place, "boss", path, "title_or_id")

    assert not len(place.queue)


def test_a_path_that_begins_somewhere_is_refused(place: Place) -> None:
    with pytest.raises(LookupError, match="begins with '/'"):
        put(place, "alice", "news", "title_or_id")


def test_an_object_without_a_place_is_refused(place: Place) -> None:
    with pytest.raises(LookupError, match="acquisition context"):
        put(place, "alice", Folder("loose"), "title_or_id")


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("unrestrictedTraverse", Unauthorized),
        ("getPhysicalRoot", Unauthorized),
        ("checkValidId", NoSuchObject),
        ("missing", NoSuchObject),
        ("title", NoSuchObject),
        ("_setObject", BadExpression),
    ],
)
def test_a_method_that_is_not_there_or_private_is_refused_when_put(
    place: Place, name: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        put(place, "boss", "/news", name)


def test_a_closed_object_is_refused_when_put(place: Place) -> None:
    with pytest.raises(Unauthorized):
        put(place, "alice", "/closed", "title_or_id")


def test_a_user_who_is_gone_is_refused_when_put(place: Place) -> None:
    with pytest.raises(UserGone):
        put(place, "alice", "/news", "title_or_id", user=Identity("/acl_users", "nemo"))


def test_a_site_that_is_not_there_is_refused_when_put(place: Place) -> None:
    with pytest.raises(LookupError, match="no site /away"):
        put(place, "alice", "/news", "title_or_id", site="/away")


# What is refused later


def test_a_path_that_is_gone_by_then_fails_the_job(place: Place) -> None:
    job = put(place, "alice", "/news", "title_or_id")
    place.app._delObject("news")

    place.performed(job)

    assert job.result.check(NoSuchObject)


@pytest.mark.parametrize(
    "expression",
    ["python: root.closed.title", "root/closed/title", "python: here.manage_delObjects([])"],
)
def test_what_the_user_may_not_do_fails_the_job(place: Place, expression: str) -> None:
    job = put(place, "alice", "/news", expression)

    place.performed(job)

    assert job.result.type.__name__ in ("Unauthorized", "NotFound"), job.result


def test_a_method_that_the_user_may_call_no_more_fails_the_job(place: Place) -> None:
    job = put(place, "boss", "/news", "manage_delObjects", args=([],))
    place.app.acl_users._doChangeUser("boss", None, [], [])

    place.performed(job)

    assert job.result.type is Unauthorized


def test_a_result_that_cannot_be_stored_fails_the_job(place: Place) -> None:
    job = put(place, "boss", "/news", "python: request")

    place.performed(job)

    assert job.result.check(NotStorableError)


def test_the_values_cannot_take_the_place_of_the_user(place: Place) -> None:
    forged = {"AUTHENTICATED_USER": "boss", "user": "boss", "context": None}
    job = put(place, "alice", "/news", "python: [user.getId(), context.title]", forged, forged)

    place.performed(job)

    assert job.result == ["alice", "The news"]


# As a plugin


def test_it_is_a_plugin(place: Place) -> None:
    plugins.register(PLUGIN)
    try:
        with place.logged_in("alice"):
            job = place.queue.put(plugins.job_for("zope_exec", "/news", "here/title"))
    finally:
        plugins.unregister("zope_exec")

    place.performed(job)

    assert job.result == "The news"


# Callbacks


def called_back(place: Place, function: Any, expression: str, **options: Any) -> Any:
    """What the callback of bob makes of alice's job."""
    with place.logged_in("alice"):
        job = place.queue.put(function)
    with place.logged_in("bob"):
        callback = tales_callback(job, expression, **options)
    place.performed(job)
    return callback


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("python: result['user']", "alice"),
        ("python: user.getId()", "bob"),
        ("python: failure is None", True),
        ("job/callable", "tests.integrations.zope.jobs.who_am_i"),
        ("here/title", "The news"),
        ("context/title", "The news"),
        ("python: request.get('URL')", "http://zasync.invalid"),
    ],
)
def test_a_callback_sees_the_result_and_runs_as_whoever_added_it(
    place: Place, expression: str, expected: Any
) -> None:
    callback = called_back(place, jobs.who_am_i, expression, context="/news")

    assert callback.result == expected


def test_a_callback_after_a_failure_sees_it(place: Place) -> None:
    expression = "python: [result, failure.type, failure.message]"
    callback = called_back(place, jobs.break_down, expression, on="failure")

    assert callback.result == [None, "ValueError", "it broke"]


@pytest.mark.parametrize("function", [jobs.nothing, jobs.break_down])
def test_a_callback_on_both_runs_in_either_case(place: Place, function: Any) -> None:
    callback = called_back(place, function, "python: failure is None", on="both")

    assert callback.result is (function is jobs.nothing)


def test_a_callback_on_success_does_not_run_after_a_failure(place: Place) -> None:
    callback = called_back(place, jobs.break_down, "python: 1")

    assert callback.status == "new-status"


def test_a_callback_on_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="success, failure, both"):
        tales_callback(ZopeJob(jobs.nothing), "python: 1", on="error")


def test_a_callback_has_the_rights_of_whoever_added_it_and_no_more(place: Place) -> None:
    with place.logged_in("boss"):
        job = place.queue.put(jobs.nothing)
    with place.logged_in("alice"):
        callback = tales_callback(job, "python: root.closed.title")

    place.performed(job)

    assert callback.result.type is Unauthorized


def test_trusted_code_may_use_the_engine_without_restrictions(place: Place) -> None:
    expression = "python: [job.result, here._p_oid is not None]"
    callback = called_back(place, jobs.nothing, expression, trusted=True, context="/news")

    assert callback.result == [None, True]


def test_a_template_may_not(place: Place) -> None:
    place.app._setObject("helper", Helper("helper"))
    page = ZopePageTemplate("page", '<p tal:define="x here/ask_for_trust" />')
    place.app.helper._setObject("page", page)
    transaction.commit()
    newSecurityManager(None, place.user("boss"))

    with pytest.raises(NotTrusted):
        place.app.helper.page()


def test_a_callback_to_a_user_who_is_gone_is_parked(place: Place) -> None:
    with place.logged_in("alice"):
        job = place.queue.put(jobs.nothing)
    with place.logged_in("bob"):
        callback = tales_callback(job, "python: 1", on="both")
    place.app.acl_users._doDelUsers(["bob"])

    place.performed(job)

    assert not job.failed
    assert callback in place.queue.parked
