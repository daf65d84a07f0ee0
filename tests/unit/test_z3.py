# SPDX-License-Identifier: ZPL-2.1
"""Jobs of the Zope Toolkit: real sites, interactions, principals, proxies and policies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import zope.component
from persistent import Persistent
from zope.authentication.interfaces import IAuthentication, PrincipalLookupError
from zope.component.hooks import getSite, setSite
from zope.configuration import xmlconfig
from zope.interface import implementer
from zope.principalregistry.principalregistry import PrincipalRegistry
from zope.security import management
from zope.security.checker import NamesChecker, ProxyFactory
from zope.security.interfaces import IPrincipal, NoInteraction, Unauthorized
from zope.security.simplepolicies import ParanoidSecurityPolicy
from zope.site.folder import Folder
from zope.site.site import LocalSiteManager

import zasync
from tests.support.bench import Bench
from tests.support.benches import bench, standing
from tests.support.running import Site as Database
from tests.support.running import running
from tests.unit.job import things
from zasync.interfaces import (
    COMPLETED,
    BadStatusError,
    IJob,
    NotStorableError,
    ParkedError,
)
from zasync.z3 import Job, Participation, PrincipalGone

__all__ = ["bench", "standing"]


class Vault:
    """Something that only those may read who have the permission."""

    content = "gold"


vault = ProxyFactory(Vault(), NamesChecker(["content"], "vault.Read"))


class Policy(ParanoidSecurityPolicy):  # type: ignore[misc]
    """Ada may do anything, others nothing."""

    def checkPermission(self, permission: str, object: Any) -> bool:
        return all(each.principal.id == "ada" for each in self.participations)


@implementer(IPrincipal)
class Principal(Persistent):
    title = description = ""

    def __init__(self, id: str) -> None:
        self.id = id


@implementer(IAuthentication)
class LocalAuthentication(Persistent):
    """The authentication utility of a site, which knows people that are nowhere else."""

    def __init__(self, *ids: str) -> None:
        self.ids = ids

    def getPrincipal(self, id: str) -> Any:
        if id not in self.ids:
            raise PrincipalLookupError(id)
        return Principal(id)


@pytest.fixture(autouse=True)
def security() -> Iterator[PrincipalRegistry]:
    before = management.setSecurityPolicy(Policy)
    registry = PrincipalRegistry()
    for name in ("ada", "bob"):
        registry.definePrincipal(name, name.title(), login=name)
    registry.defineDefaultPrincipal("anybody", "Anybody")
    zope.component.provideUtility(registry, IAuthentication)
    yield registry
    management.endInteraction()
    management.setSecurityPolicy(before)
    setSite(None)


@pytest.fixture
def folder(bench: Bench) -> Any:
    """A stored site with an authentication utility of its own."""
    folder = Folder()
    bench.root["folder"] = folder
    folder.setSiteManager(LocalSiteManager(folder))
    folder.getSiteManager().registerUtility(LocalAuthentication("ada", "cleo"), IAuthentication)
    bench.commit()
    return folder


def interact(*ids: str) -> None:
    management.endInteraction()
    management.newInteraction(*(Participation(Principal(each)) for each in ids))


def read_vault() -> str:
    return str(vault.content)


def who() -> Any:
    interaction = management.queryInteraction()
    if interaction is None:
        return None
    return [each.principal.id for each in interaction.participations]


def where() -> Any:
    return getSite()


def done(bench: Bench, job: Any) -> Any:
    job = bench.queue.put(job)
    bench.commit()
    management.endInteraction()
    setSite(None)
    bench.work()
    assert job.status == COMPLETED
    assert management.queryInteraction() is None
    assert getSite() is None
    return job.result


def test_a_job_may_do_what_those_may_who_asked_for_it(bench: Bench) -> None:
    interact("ada")
    assert done(bench, Job(read_vault)) == "gold"
    interact("bob")
    assert done(bench, Job(read_vault)).check(Unauthorized)
    interact("ada", "bob")
    assert done(bench, Job(read_vault)).check(Unauthorized)


def test_the_principals_are_looked_up_when_it_runs(bench: Bench) -> None:
    interact("ada", "bob")
    job = Job(who)
    assert job.participants == ("ada", "bob")
    assert done(bench, job) == ["ada", "bob"]


def test_one_who_has_not_logged_in_stays_who_he_is(
    bench: Bench, security: PrincipalRegistry
) -> None:
    management.newInteraction(Participation(security.unauthenticatedPrincipal()))
    assert done(bench, Job(who)) == ["anybody"]


def test_without_an_interaction_there_is_none(bench: Bench) -> None:
    job = Job(who)
    assert job.participants is None
    assert done(bench, job) is None
    assert done(bench, Job(read_vault)).check(NoInteraction, AttributeError)


def test_the_system_can_ask_for_something_too(bench: Bench) -> None:
    management.newInteraction(Participation(management.system_user))
    assert done(bench, Job(who)) == [management.system_user.id]


def test_a_principal_who_is_gone_is_replaced_by_nobody_and_the_job_is_parked(bench: Bench) -> None:
    interact("dora")
    result = done(bench, Job(things.act, "it"))
    assert result.check(PrincipalGone, ParkedError)
    assert "'dora'" in result.getErrorMessage()
    assert "is not known globally any more" in result.getErrorMessage()
    assert len(bench.queue.parked) == 1
    assert things.acts == []


def test_once_there_is_such_a_principal_it_can_be_put_back(
    bench: Bench, security: PrincipalRegistry
) -> None:
    interact("dora")
    done(bench, Job(who))
    security.definePrincipal("dora", "Dora", login="dora")
    again = bench.queue.parked.put_back(next(iter(bench.queue.parked)))
    bench.commit()
    bench.work()
    assert again.result == ["dora"]


def test_without_an_authentication_utility_it_is_parked(bench: Bench, folder: Any) -> None:
    interact("ada")
    job = bench.queue.put(Job(who))
    bench.commit()
    management.endInteraction()
    zope.component.getGlobalSiteManager().unregisterUtility(provided=IAuthentication)
    bench.work()
    assert "there is no authentication utility globally" in job.result.getErrorMessage()


def test_it_runs_in_the_site_in_which_it_was_made(bench: Bench, folder: Any) -> None:
    setSite(folder)
    job = Job(where)
    assert job.site is folder
    assert done(bench, job) is folder


def test_principals_are_those_of_the_site(bench: Bench, folder: Any) -> None:
    setSite(folder)
    interact("cleo")
    assert done(bench, Job(who)) == ["cleo"]
    setSite(folder)
    interact("bob")
    result = done(bench, Job(who))
    assert result.check(PrincipalGone)
    assert "in the site zope.site.folder.Folder" in result.getErrorMessage()


def test_a_site_that_is_not_stored_is_refused_when_the_job_is_put(bench: Bench) -> None:
    class Elsewhere:
        def getSiteManager(self) -> Any:
            return zope.component.getGlobalSiteManager()

    setSite(Elsewhere())
    with pytest.raises(NotStorableError, match=r"the site of .*who cannot be stored"):
        bench.queue.put(Job(who))
    job = Job(who)
    job.site = None
    bench.queue.put(job)


def test_site_and_participants_can_be_set_while_it_is_new(bench: Bench, folder: Any) -> None:
    interact("bob")
    job = Job(who)
    job.site, job.participants = ProxyFactory(folder), ["cleo"]
    assert job.site is folder
    with pytest.raises(TypeError, match="not the single string 'cleo'"):
        job.participants = "cleo"
    assert done(bench, job) == ["cleo"]
    for name in ("site", "participants"):
        with pytest.raises(BadStatusError, match=f"{name} of .* can be set while it is new only"):
            setattr(job, name, None)
    job = Job(who)
    job.participants = None
    assert done(bench, job) is None


def test_a_job_called_by_hand_leaves_site_and_interaction_as_they_were(
    bench: Bench, folder: Any
) -> None:
    setSite(folder)
    interact("cleo")
    job = bench.stored(who, kind=Job)
    gone = bench.stored(who, kind=Job)
    setSite(None)
    interact("bob")
    mine = management.getInteraction()
    assert job() == ["cleo"]
    assert (management.getInteraction(), getSite()) == (mine, None)

    folder.getSiteManager().getUtility(IAuthentication).ids = ()
    assert gone().check(PrincipalGone)
    assert (management.getInteraction(), getSite()) == (mine, None)
    gone.tearDown(None)
    assert management.getInteraction() is mine


def test_it_is_asked_for_again_for_the_same_people(bench: Bench, folder: Any) -> None:
    setSite(folder)
    interact("cleo")
    job = Job(things.boom)
    done(bench, job)
    interact("bob")
    again = job.again()
    assert (again.site, again.participants) == (folder, ("cleo",))


def test_callbacks_run_for_those_who_added_them(bench: Bench) -> None:
    interact("ada")
    job = Job(things.multiply, 2)
    interact("bob")
    callback = job.addCallback(Job(describe_and_tell))
    done(bench, job)
    assert callback.result == (4, ["bob"])


def describe_and_tell(result: Any) -> Any:
    return result, who()


def test_proxies_are_no_arguments(bench: Bench) -> None:
    """What is protected for one who asks must not become bare for the job, nor the reverse."""
    interact("ada")
    with pytest.raises(NotStorableError, match=r"argument 0 of .*same cannot be stored"):
        bench.queue.put(Job(things.same, vault))


def test_callables_become_such_jobs_by_zcml(bench: Bench) -> None:
    context = xmlconfig.file("meta.zcml", zope.component)
    xmlconfig.string(
        """\
        <configure xmlns="http://namespaces.zope.org/zope">
          <include package="zasync" file="dispatcher.zcml" />
          <includeOverrides package="zasync" file="z3.zcml" />
        </configure>""",
        context,
    )
    interact("ada")
    for callable in (read_vault, len, bench.commit, [].__len__):
        assert type(IJob(callable)) is Job
    assert IJob(read_vault).participants == ("ada",)
    assert zasync.job.Job is not Job


def test_a_real_dispatcher_sets_it_all_up_in_its_threads(database: Any) -> None:
    site = Database(database)
    try:
        folder = site.root["folder"] = Folder()
        folder.setSiteManager(LocalSiteManager(folder))
        folder.getSiteManager().registerUtility(LocalAuthentication("ada"), IAuthentication)
        site.manager.commit()
        setSite(folder)
        interact("ada")
        jobs = [site.put(Job(read_vault)) for _ in range(5)]
        interact("bob")
        refused = site.put(Job(read_vault))
        with running(database, poll_interval=0.05):
            site.completed(*jobs, refused)
        assert [job.result for job in jobs] == ["gold"] * 5
        assert refused.result.check(PrincipalGone)
        assert who() == ["bob"]
    finally:
        site.close()


def test_a_method_of_something_protected_is_refused_by_name(bench: Bench) -> None:
    interact("ada")
    bench.root["counter"] = counter = things.Counter()
    bench.commit()
    protected = ProxyFactory(counter, NamesChecker(["add"], "vault.Read"))
    with pytest.raises(NotStorableError, match="add"):
        bench.queue.put(Job(protected.add))
