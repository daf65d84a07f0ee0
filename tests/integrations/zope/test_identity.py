# SPDX-License-Identifier: ZPL-2.1
"""Whose rights a job has: those that the user who asked has when it runs, and nobody else's."""

from __future__ import annotations

from typing import Any

import pytest
import transaction
import Zope2
from AccessControl import SpecialUsers
from AccessControl.SecurityManagement import getSecurityManager, newSecurityManager
from AccessControl.unauthorized import Unauthorized
from AccessControl.users import SpecialUser as SpecialUser_
from AccessControl.users import UnrestrictedUser
from OFS.Application import Application
from OFS.Folder import Folder
from OFS.userfolder import UserFolder
from Products.PageTemplates.ZopePageTemplate import ZopePageTemplate
from zope.component.hooks import getSite, setSite
from zope.globalrequest import getRequest, setRequest
from zope.security.management import endInteraction, newInteraction, queryInteraction

from tests.integrations.zope import jobs
from tests.support.zope_place import Place, opened_place
from zasync.failure import Failure
from zasync.integrations.zope.identity import (
    ANONYMOUS,
    SYSTEM,
    Identity,
    NotTrusted,
    SpecialUser,
    UserGone,
    acting_as,
    current_identity,
    find_user,
)
from zasync.integrations.zope.job import NoSuchObject, ZopeJob
from zasync.integrations.zope.surroundings import NoApplication, make_request
from zasync.interfaces import BadStatusError
from zasync.job import Job

ALICE = Identity("/acl_users", "alice")


class Helper(Folder):
    """A folder whose methods templates may call."""

    security: Any = None

    def ask_for(self, identity: Identity) -> None:
        """Ask, as no template should, for a job of somebody else."""
        ZopeJob(jobs.nothing).identity = identity

    ask_for__roles__ = None  # anybody may call it


def test_a_job_runs_as_the_user_who_put_it(place: Place) -> None:
    with place.logged_in("alice"):
        job = place.queue.put(jobs.who_am_i)

    place.performed(job)

    assert job.result["user"] == "alice"
    assert job.result["authenticated"] == "alice"
    assert job.result["interaction"]
    assert job.identity == ALICE


def test_what_anybody_puts_runs_with_no_rights(place: Place) -> None:
    job = place.queue.put(jobs.who_am_i)
    refused = place.queue.put(ZopeJob(jobs.title_of, place.app.news))
    refused.args[0] = type(refused.args[0])("/closed")

    place.performed(job, refused)

    assert job.result["name"] == "Anonymous User"
    assert job.identity == ANONYMOUS
    assert refused.result.type is Unauthorized


def test_the_roles_are_those_of_the_moment_of_the_run(place: Place) -> None:
    with place.logged_in("boss") as app:
        job = place.queue.put(ZopeJob(jobs.title_of, app.closed))
    place.app.acl_users._doChangeUser("boss", None, [], [])

    place.performed(job)

    assert job.result.type is Unauthorized


def test_a_user_who_is_gone_parks_the_job_and_nobody_else_runs_it(place: Place) -> None:
    with place.logged_in("alice"):
        job = place.queue.put(jobs.who_am_i)
        callback = job.addCallback(jobs.who_am_i)
    place.app.acl_users._doDelUsers(["alice"])

    place.performed(job)

    assert job.result.check(UserGone)
    assert "user 'alice' of /acl_users is not there any more" in job.result.getErrorMessage()
    assert list(place.queue.parked) == [callback, job]
    assert callback.result.check(UserGone)


def test_a_parked_job_is_put_back_once_the_user_is_there_again(place: Place) -> None:
    with place.logged_in("alice"):
        job = place.queue.put(jobs.who_am_i)
    place.app.acl_users._doDelUsers(["alice"])
    place.performed(job)

    place.app.acl_users._doAddUser("alice", "other", [], [])
    again = place.queue.parked.put_back(job)
    place.performed(again)

    assert again.result["user"] == "alice"
    assert not place.queue.parked


def test_a_user_folder_that_is_gone_parks_the_job(place: Place) -> None:
    place.app.news._setObject("acl_users", UserFolder())
    place.app.news.acl_users._doAddUser("carol", "secret", [], [])
    folder = place.app.news.acl_users
    newSecurityManager(None, folder.getUserById("carol").__of__(folder))
    job = place.queue.put(jobs.who_am_i)
    assert job.identity == Identity("/news/acl_users", "carol")

    # One further up, which would be acquired, has another person of that name.
    place.app.acl_users._doAddUser("carol", "secret", ["Manager"], [])
    place.app.news._delObject("acl_users")
    place.performed(job)

    assert job.result.check(UserGone)
    assert "there is no user folder /news/acl_users" in job.result.getErrorMessage()
    assert job in place.queue.parked


def test_a_folder_that_answers_somebody_else_is_not_believed(place: Place) -> None:
    folder = place.app.acl_users
    folder.aq_base.getUserById = lambda name, default=None: folder.getUser("boss")

    with pytest.raises(UserGone):
        find_user(place.app, ALICE)


def test_zope_itself_runs_a_job_only_if_trusted_code_says_so(place: Place) -> None:
    newSecurityManager(None, SpecialUsers.system)
    with pytest.raises(SpecialUser, match="identity = SYSTEM"):
        place.queue.put(jobs.who_am_i)

    job = place.queue.put(ZopeJob.run_as(SYSTEM, jobs.who_am_i))
    place.performed(job)

    assert job.result["name"] == "System Processes"


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_emergency_user_can_run_no_jobs(place: Place, wrapped: bool) -> None:
    user: Any = UnrestrictedUser("emergency", "secret", ["manage"], [])
    newSecurityManager(None, user.__of__(place.app.acl_users) if wrapped else user)

    with pytest.raises(SpecialUser, match="'emergency'"):
        place.queue.put(jobs.nothing)
    with pytest.raises(SpecialUser):
        current_identity()


def test_a_job_with_no_identity_is_refused_also_by_another_user(place: Place) -> None:
    newSecurityManager(None, SpecialUsers.system)
    job = ZopeJob(jobs.nothing)
    newSecurityManager(None, place.user("alice"))

    with pytest.raises(SpecialUser, match="has no identity"):
        place.queue.put(job)


def test_a_template_cannot_ask_for_another_identity(place: Place) -> None:
    place.app._setObject("helper", Helper("helper"))
    text = "<p tal:define=\"x python: here.ask_for(options['identity'])\" />"
    place.app.helper._setObject("page", ZopePageTemplate("page", text))
    transaction.commit()
    newSecurityManager(None, place.user("alice"))

    place.app.helper.page(identity=ALICE)  # oneself is always allowed
    for other in (SYSTEM, Identity("/acl_users", "boss")):
        with pytest.raises(NotTrusted, match="in the file system only"):
            place.app.helper.page(identity=other)


def test_the_identity_is_set_while_the_job_is_new_only(place: Place) -> None:
    job = place.queue.put(jobs.nothing)

    with pytest.raises(BadStatusError):
        job.identity = ALICE


def test_callbacks_run_as_whoever_added_them(place: Place) -> None:
    with place.logged_in("boss"):
        job = place.queue.put(jobs.who_am_i)
    with place.logged_in("bob"):
        callback = job.addCallback(jobs.who_am_i)
        proxy = job.addCallbacks(success=jobs.who_am_i)

    place.performed(job)

    assert job.result["user"] == "boss"
    assert callback.result["user"] == "bob"
    assert proxy.result["user"] == "bob"


def test_a_callback_to_a_finished_job_runs_as_whoever_adds_it(place: Place) -> None:
    with place.logged_in("boss"):
        job = place.queue.put(jobs.nothing)
    place.performed(job)

    newSecurityManager(None, place.user("bob"))
    callback = job.addCallback(jobs.who_am_i)

    assert callback.result["user"] == "bob"
    assert getSecurityManager().getUser().getId() == "bob"


def test_what_a_job_puts_runs_as_the_same_user(place: Place) -> None:
    with place.logged_in("alice"):
        job = place.queue.put(ZopeJob(put_another))

    place.performed(job)

    assert job.result == ALICE


def put_another() -> Identity | None:
    from zasync.local import getQueue

    return getQueue().put(jobs.who_am_i).identity  # type: ignore[no-any-return]


def test_a_plain_job_is_nobody_and_sees_nothing_of_the_jobs_before(place: Place) -> None:
    with place.logged_in("boss"):
        before = place.queue.put(jobs.who_am_i)
        fails = place.queue.put(jobs.break_down)
        plain = place.queue.put(Job(jobs.what_is_around))

    place.performed(before, fails, plain)

    assert plain.result == {
        "user": "Anonymous User",
        "site": None,
        "request": None,
        "interaction": None,
    }


def test_the_site_and_the_language_are_those_of_the_request(place: Place) -> None:
    setSite(place.make_site("news"))
    setRequest(make_request("cs", {}))
    with place.logged_in("alice"):
        job = place.queue.put(jobs.who_am_i)
    setSite(None)

    place.performed(job)

    assert job.identity == Identity("/acl_users", "alice", "/news", "cs")
    assert job.result["site"] == "/news"
    assert job.result["languages"] == ["cs"]


def test_a_site_that_is_gone_fails_the_job_and_leaves_nothing_behind(place: Place) -> None:
    job = ZopeJob(jobs.who_am_i)
    job.identity = Identity(None, None, "/away")
    with place.logged_in("alice"):
        place.queue.put(job)
        after = place.queue.put(Job(jobs.what_is_around))

    place.performed(job, after)

    assert isinstance(job.result, Failure)
    assert "there is no site /away" in job.result.getErrorMessage()
    assert after.result["site"] is None


def test_acting_as_another_gives_back_what_was_there(place: Place) -> None:
    newSecurityManager(None, place.user("bob"))
    setSite(place.make_site("news"))
    request = make_request(None, {})
    setRequest(request)
    newInteraction()
    interaction = queryInteraction()

    with acting_as(place.app, ALICE) as app:
        assert getSecurityManager().getUser().getId() == "alice"
        assert getSite() is None
        assert getRequest() is app.REQUEST is not request
        with pytest.raises(UserGone), acting_as(place.app, Identity("/acl_users", "nemo")):
            pass
        assert getSecurityManager().getUser().getId() == "alice"

    assert getSecurityManager().getUser().getId() == "bob"
    assert getSite() == place.app.news
    assert getRequest() is request
    assert queryInteraction() is interaction
    endInteraction()


# Objects of Zope


def test_an_object_is_found_again_with_its_context(place: Place) -> None:
    with place.logged_in("alice") as app:
        job = place.queue.put(ZopeJob(jobs.url_of, app.news))
        named = place.queue.put(ZopeJob(jobs.url_of, item=app.news))

    place.performed(job, named)

    assert job.result == named.result == "http://zasync.invalid/news"


def test_a_method_of_an_object_is_called_in_its_context(place: Place) -> None:
    with place.logged_in("alice") as app:
        job = place.queue.put(app.news.absolute_url_path)

    place.performed(job)

    assert job.result == "/news"
    assert job.callable_name == "zasync.integrations.zope.job.call_method"


def test_a_method_that_the_user_may_not_call_is_not_called(place: Place) -> None:
    with place.logged_in("alice") as app:
        job = place.queue.put(ZopeJob(app.news.manage_delObjects, ["old"]))

    place.performed(job)

    assert job.result.type is Unauthorized


def test_an_object_that_the_user_may_not_have_is_refused_when_put(place: Place) -> None:
    with pytest.raises(Unauthorized), place.logged_in("alice") as app:
        place.queue.put(ZopeJob(jobs.title_of, app.closed))


def test_an_object_that_is_gone_fails_the_job(place: Place) -> None:
    with place.logged_in("alice") as app:
        job = place.queue.put(ZopeJob(jobs.title_of, app.news))
    place.app._delObject("news")
    place.performed(job)

    assert job.result.check(NoSuchObject)
    assert "/news" in job.result.getErrorMessage()


def test_another_object_of_the_name_is_not_taken_for_one_that_is_gone(place: Place) -> None:
    place.app.news._setObject("closed", Folder("closed"))
    with place.logged_in("boss") as app:
        job = place.queue.put(ZopeJob(jobs.title_of, app.news.closed))
    place.app.news._delObject("closed")
    place.performed(job)

    assert job.result.check(NoSuchObject)


def test_what_a_job_changes_is_committed_with_its_result(place: Place) -> None:
    with place.logged_in("alice") as app:
        job = place.queue.put(ZopeJob(jobs.rename, app.news, "Renamed"))

    place.performed(job)

    assert place.app.news.title == "Renamed"


def test_an_object_can_be_a_result(place: Place) -> None:
    with place.logged_in("alice") as app:
        job = place.queue.put(ZopeJob(jobs.parent_of, app.news))

    place.performed(job)

    assert job.result == place.app.aq_base


def test_the_queues_may_lie_in_a_database_of_their_own() -> None:
    with opened_place("async") as place:
        with place.logged_in("alice") as app:
            job = place.queue.put(ZopeJob(jobs.rename, app.news, "Renamed"))
        place.performed(job)

        assert job._p_jar.db().database_name == "async"
        assert not job.failed
        assert place.app.news.title == "Renamed"


@pytest.mark.parametrize("identity", [Identity(None, "alice"), Identity("/acl_users", None)])
def test_half_an_identity_is_nobody_at_all(place: Place, identity: Identity) -> None:
    with pytest.raises(UserGone):
        find_user(place.app, identity)


def test_the_site_of_an_object_is_the_next_one_above_it(place: Place) -> None:
    place.app.news._setObject("sports", Folder("sports"))
    place.make_site("news")

    assert current_identity(place.app.news.sports).site_path == "/news"
    assert current_identity(place.app.closed).site_path is None


def test_an_anonymous_user_of_a_folder_is_nobody(place: Place) -> None:
    stranger: Any = SpecialUser_("Anonymous User", "", (), [])
    newSecurityManager(None, stranger.__of__(place.app.acl_users))

    assert current_identity() == ANONYMOUS


def test_trusted_code_may_name_a_user_where_there_is_none_of_its_own(place: Place) -> None:
    newSecurityManager(None, UnrestrictedUser("emergency", "secret", ["manage"], []))
    job = ZopeJob.run_as(ALICE, jobs.nothing)

    assert job.identity == ALICE


def test_a_job_that_got_into_a_queue_without_an_identity_fails(place: Place) -> None:
    job = place.queue.put(jobs.who_am_i)
    job._identity = None

    place.performed(job)

    assert job.result.check(SpecialUser)


def test_a_coroutine_gets_no_objects_of_zope(place: Place) -> None:
    with place.logged_in("alice") as app:
        job = place.queue.put(ZopeJob(jobs.later, app.news))

    place.performed(job)

    assert "cannot get the persistent object" in job.result.getErrorMessage()


def test_without_zope_in_the_databases_a_job_of_zope_fails(place: Place) -> None:
    del place.connection.root()["Application"]
    job = place.queue.put(jobs.who_am_i)

    place.performed(job)

    assert job.result.check(NoApplication)


def test_zopes_own_database_is_the_one_that_it_was_started_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with opened_place("async") as place:
        other = place.connection.get_connection("async").root()
        other["Application"] = Application()  # what Zope puts into each that it mounts
        monkeypatch.setattr(Zope2, "DB", place.db)
        with place.logged_in("alice") as app:
            job = place.queue.put(ZopeJob(jobs.title_of, app.news))
        place.performed(job)

        assert job.result == "The news"


def test_a_job_that_is_asked_for_again_runs_as_the_same_user(place: Place) -> None:
    with place.logged_in("alice"):
        job = place.queue.put(jobs.who_am_i)
    place.performed(job)

    newSecurityManager(None, place.user("boss"))
    again = place.queue.put(job.again())
    place.performed(again)

    assert again.result["user"] == "alice"
