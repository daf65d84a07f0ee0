# SPDX-License-Identifier: ZPL-2.1
"""ldap_search against real LDAP servers, plain and over TLS, and against bad ones."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support import ldap, programs
from tests.support.ldap import BASE, PEOPLE, READER, SECRET, LdapServer
from tests.support.running import Runner, Site, until
from zasync import plugins
from zasync.failure import Failure
from zasync.foundation import platform
from zasync.interfaces import TimeoutError
from zasync.plugins import credentials, directories, filters
from zasync.plugins.credentials import Credential, CredentialError
from zasync.plugins.directories import Directory, UnknownDirectory
from zasync.plugins.errors import DirectoryError, ExtraMissing, TooLarge

pytestmark = pytest.mark.process

KINDS = ["ldaptor", "slapd"]


@pytest.fixture(scope="module", params=KINDS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LdapServer]:
    if request.param == "slapd":
        programs.need("slapd")
    with getattr(ldap, request.param)(tmp_path_factory.mktemp(request.param)) as server:
        yield server


@pytest.fixture(scope="module")
def openldap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LdapServer]:
    """For what ldaptor's server cannot do."""
    programs.need("slapd")
    with ldap.slapd(tmp_path_factory.mktemp("openldap")) as server:
        yield server


@pytest.fixture(autouse=True)
def worker() -> Iterator[None]:
    """The worker has a credential; what else it knows is up to the test."""
    credentials.provide("reader", Credential(READER, SECRET, ("localhost", "127.0.0.1")))
    credentials.provide("wrong", Credential(READER, "not it", ("localhost",), plain=True))
    yield
    credentials.forget()
    directories.forget()


def encrypted(server: LdapServer, **options: Any) -> Directory:
    known = {"credential": "reader", "ca_file": server.ca_file, "base": BASE, **options}
    return Directory(server.tls, **known)


def searched(site: Site, directory: Directory, filter: str, **options: Any) -> Any:
    """The result of a job that searches `directory`."""
    directories.provide("company", directory)
    job = site.put(plugins.job_for("ldap_search", "company", filter, **options))
    site.completed(job, seconds=60)
    return job.result


def failed(
    site: Site,
    directory: Directory,
    error: type[Exception] = DirectoryError,
    filter: str = "(uid=ada)",
    **options: Any,
) -> Any:
    """The failure of such a job."""
    result = searched(site, directory, filter, **options)
    assert isinstance(result, Failure)
    assert result.type is error, result.getTraceback()
    assert SECRET not in result.getTraceback()
    return result


@pytest.mark.parametrize("how", ["plain", "starttls", "ldaps"])
def test_entries_are_found_plain_and_over_tls(
    site: Site, runner: Runner, server: LdapServer, how: str
) -> None:
    directory = {
        "plain": Directory(server.plain, base=BASE),
        "starttls": Directory(
            server.plain,
            base=BASE,
            start_tls=True,
            credential="reader",
            ca_file=server.ca_file,
        ),
        "ldaps": encrypted(server),
    }[how]

    found = searched(site, directory, "(uid=ada)", attributes=["cn", "sn", "jpegPhoto"])

    assert [entry["dn"] for entry in found] == [f"uid=ada,ou=people,{BASE}"]
    assert found[0]["attributes"] == {
        "cn": ["Äda"],
        "sn": ["Byron"],
        "jpegPhoto": [b"\xff\xd8\xff\xe0"],
    }


def test_scope_base_and_attributes_choose_what_is_answered(
    site: Site, runner: Runner, server: LdapServer
) -> None:
    directory = encrypted(server)
    people = f"ou=people, {BASE.upper()}"

    below = searched(site, directory, "(objectClass=*)", base=people, scope="one")
    itself = searched(site, directory, "(objectClass=*)", base=f"ou=people,{BASE}", scope="base")
    one = searched(site, directory, "(uid=p003)", attributes=["mail"])

    assert len(below) == PEOPLE + 1
    assert [entry["dn"] for entry in itself] == [f"ou=people,{BASE}"]
    assert {name.lower() for name in one[0]["attributes"]} == {"mail"}
    assert sorted(one[0]["attributes"]["mail"]) == ["3@a.b", "p3@example.com"]
    assert searched(site, directory, "(uid=nobody)") == []


def test_a_value_in_a_filter_means_itself(site: Site, runner: Runner, server: LdapServer) -> None:
    directory = encrypted(server)

    literal = searched(site, directory, filters.fill("(sn={name})", name="(Per*son)"))
    harmless = searched(site, directory, filters.fill("(uid={uid})", uid="*)(uid=*"))

    assert len(literal) == PEOPLE
    assert harmless == []


def test_results_come_page_by_page(site: Site, runner: Runner, openldap: LdapServer) -> None:
    directory = encrypted(openldap, page_size=4)

    found = searched(site, directory, "(uid=p*)", attributes=["uid"])

    assert len({entry["dn"] for entry in found}) == PEOPLE


def test_too_many_entries_are_an_error_unless_the_rest_may_go(
    site: Site, runner: Runner, server: LdapServer
) -> None:
    directory = encrypted(server, page_size=4)

    exactly = searched(site, directory, "(uid=p*)", size_limit=PEOPLE)
    some = searched(site, directory, "(uid=p*)", size_limit=7, truncate=True)
    failure = failed(site, directory, filter="(uid=p*)", size_limit=PEOPLE - 1)
    own = failed(site, replace(directory, size_limit=3), filter="(uid=p*)", size_limit=50)

    assert len(exactly) == PEOPLE
    assert len(some) == 7
    assert failure.value.code == own.value.code == "sizeLimitExceeded"
    assert failure.getErrorMessage().startswith(f"more than {PEOPLE - 1} entries match: ")
    assert own.getErrorMessage().startswith("more than 3 entries match: ")


def test_the_servers_own_limit_is_told(site: Site, runner: Runner, openldap: LdapServer) -> None:
    anonymous = Directory(openldap.plain, base=BASE)

    failure = failed(site, anonymous, filter="(uid=p*)")
    some = searched(site, anonymous, "(uid=p*)", truncate=True)

    assert failure.value.code == "sizeLimitExceeded"
    assert "does not answer that many entries" in failure.getErrorMessage()
    assert len(some) == 10


def test_a_result_has_bounds(
    site: Site, runner: Runner, server: LdapServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zasync.plugins import ldap3

    monkeypatch.setattr(ldap3, "LARGEST_RESULT", 500)

    failure = failed(site, encrypted(server), TooLarge, filter="(uid=p*)")

    assert "ask for fewer attributes" in failure.getErrorMessage()


# What goes wrong


def test_bad_credentials_are_told_without_the_secret(
    site: Site, runner: Runner, server: LdapServer
) -> None:
    failure = failed(site, encrypted(server, credential="wrong"))

    assert failure.value.code == "invalidCredentials"
    assert "refuses the credential 'wrong': invalidCredentials" in failure.getErrorMessage()
    assert "not it" not in failure.getTraceback()


def test_an_unknown_base_is_told(site: Site, runner: Runner, server: LdapServer) -> None:
    failure = failed(site, encrypted(server), base=f"ou=nowhere,{BASE}")

    assert failure.value.code == "noSuchObject"
    assert f"has no entry 'ou=nowhere,{BASE}'" in failure.getErrorMessage()


@pytest.mark.parametrize(
    ("base", "code"),
    [
        ("dc=com", "insufficientAccessRights"),
        ("", "insufficientAccessRights"),
        ("ou=people,dc=other,dc=com", "insufficientAccessRights"),
        (f"ou=x\\,{BASE}", "invalidDNSyntax"),
        ("nonsense", "invalidDNSyntax"),
    ],
)
def test_a_search_does_not_leave_the_base_of_its_directory(
    site: Site, runner: Runner, server: LdapServer, base: str, code: str
) -> None:
    assert failed(site, encrypted(server), base=base).value.code == code


def test_a_certificate_of_an_unknown_authority_is_refused(
    site: Site, runner: Runner, server: LdapServer
) -> None:
    for directory in [
        encrypted(server, ca_file=None),
        replace(encrypted(server, ca_file=None), url=server.plain, start_tls=True),
    ]:
        failure = failed(site, directory)
        assert failure.value.code == "certificate"
        assert f"the certificate of {directory.url} is refused: " in failure.getErrorMessage()


def test_a_certificate_for_another_name_is_refused(
    site: Site, runner: Runner, server: LdapServer
) -> None:
    failure = failed(site, replace(encrypted(server), url=server.tls_by_address))

    assert failure.value.code == "certificate"
    assert "IP address mismatch" in failure.getErrorMessage()


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_bad_file_of_certificates_is_named(
    site: Site, runner: Runner, server: LdapServer, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "authority.pem"
    if content is not None:
        file.write_text(content)

    failure = failed(site, encrypted(server, ca_file=str(file)))

    assert failure.value.code == "certificate"
    assert f"the certificates in {file} cannot be read" in failure.getErrorMessage()


@pytest.mark.parametrize("scheme", ["ldap", "ldaps"])
def test_a_server_that_is_down_is_named(site: Site, runner: Runner, scheme: str) -> None:
    url = f"{scheme}://localhost:{platform.free_loopback_port()}"

    failure = failed(site, Directory(url))

    assert failure.value.code == "unreachable"
    assert failure.getErrorMessage().startswith(f"{url} cannot be reached: ")


@pytest.mark.parametrize("scheme", ["ldap", "ldaps"])
def test_a_server_that_says_nothing_is_given_up_and_no_thread_stays(
    site: Site, runner: Runner, scheme: str
) -> None:
    with ldap.silent_server() as port:
        directory = Directory(f"{scheme}://127.0.0.1:{port}", time_limit=0.5)
        failure = failed(site, directory, TimeoutError)
        until(lambda: not searching_threads(), "the end of the thread")

    assert failure.getErrorMessage() == (
        "the search in the directory 'company' took longer than 0.5 s"
    )


def searching_threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name == "zasync ldap_search"]


def test_the_timeout_of_the_plugin_ends_it_too(site: Site, runner: Runner) -> None:
    shipped = plugins.get("ldap_search")
    plugins.register(replace(shipped, timeout=timedelta(seconds=0.3)))

    with ldap.silent_server() as port:
        failure = failed(site, Directory(f"ldap://127.0.0.1:{port}"), TimeoutError)
        until(lambda: not searching_threads(), "the end of the thread")

    assert failure.getErrorMessage() == "the job took longer than its timeout of 0.3 s"


def test_a_server_that_breaks_off_is_told(site: Site, runner: Runner) -> None:
    with ldap.silent_server() as port:
        directories.provide("company", Directory(f"ldap://127.0.0.1:{port}"))
        job = site.put(plugins.job_for("ldap_search", "company", "(uid=ada)"))
        site.until(searching_threads, "the search")
    site.completed(job, seconds=60)

    assert job.result.type is DirectoryError
    assert job.result.value.code in ("connection", "unreachable")


def test_no_worker_thread_with_its_transaction_is_held_meanwhile(
    site: Site, runner: Runner
) -> None:
    with ldap.silent_server() as port:
        directories.provide("company", Directory(f"ldap://127.0.0.1:{port}", time_limit=30))
        searches = [
            site.put(plugins.job_for("ldap_search", "company", "(uid=ada)")) for _ in range(2)
        ]
        site.until(lambda: len(searching_threads()) == 2, "both searches")
        assert all(job.status == "active-status" for job in searches)
        (pool,) = runner.dispatcher.pools()
        until(lambda: pool._free == len(pool.threads), "all threads to be free")
    site.completed(*searches, seconds=60)


# Credentials


def test_a_credential_is_not_sent_in_the_clear_nor_to_another_host(
    site: Site, runner: Runner, server: LdapServer
) -> None:
    plain = Directory(server.plain, credential="reader", base=BASE)
    credentials.provide("elsewhere", Credential(READER, SECRET, ("ldap.example.com",)))
    credentials.provide("empty", Credential(READER, "", ("localhost",)))

    assert "without TLS" in failed(site, plain, CredentialError).getErrorMessage()
    for name, message in [
        ("elsewhere", "must not be sent to localhost"),
        ("empty", "needs a user, which is a DN, and a secret"),
        ("nobody's", "has no credential"),
    ]:
        failure = failed(site, encrypted(server, credential=name), CredentialError)
        assert message in failure.getErrorMessage()


def test_directory_and_credential_come_from_a_file(
    site: Site,
    runner: Runner,
    server: LdapServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "credentials.toml"
    file.write_text(
        f"""
        [directory.office]
        url = "{server.tls}"
        ca_file = "{server.ca_file}"
        base = "{BASE}"
        credential = "office"

        [credential.office]
        user = "{READER}"
        secret = "{SECRET}"
        hosts = ["localhost"]
        """
    )
    file.chmod(0o600)
    monkeypatch.setenv(credentials.VARIABLE, str(file))

    job = site.put(plugins.job_for("ldap_search", "office", "(uid=ada)"))
    site.completed(job)

    assert job.result[0]["dn"] == f"uid=ada,ou=people,{BASE}"
    assert SECRET.encode() not in (tmp_path / "Data.fs").read_bytes()
    assert READER.encode() not in (tmp_path / "Data.fs").read_bytes()
    assert SECRET not in caplog.text


def test_a_directory_that_the_worker_does_not_know_is_refused(site: Site, runner: Runner) -> None:
    job = site.put(plugins.job_for("ldap_search", "ldap://evil.example.com", "(uid=ada)"))
    site.completed(job)

    assert job.result.type is UnknownDirectory
    assert "this worker knows no directory" in job.result.getErrorMessage()


def test_a_worker_without_the_package_says_how_to_get_it(
    site: Site, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "zasync.plugins.ldap3", raising=False)
    monkeypatch.setitem(sys.modules, "ldap3", None)

    failure = failed(site, Directory("ldap://127.0.0.1"), ExtraMissing)

    assert "install 'zasync[ldap]' there" in failure.getErrorMessage()
