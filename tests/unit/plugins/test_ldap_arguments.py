# SPDX-License-Identifier: ZPL-2.1
"""What ldap_search refuses where its job is made, and what is no directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from zasync import plugins
from zasync.plugins import credentials, directories, filters
from zasync.plugins.credentials import CredentialError
from zasync.plugins.directories import Directory, UnknownDirectory
from zasync.plugins.filters import BadFilter


@pytest.mark.parametrize(
    "text",
    [
        "(cn=Ada)",
        "(cn=*)",
        "(cn=A*d*a)",
        "(&(objectClass=person)(|(cn=Ada)(!(sn=Lovelace))))",
        "(&)",
        "(cn>=5)",
        "(cn~=ada)",
        "(cn;lang-de=Ada)",
        "(cn:dn:2.4.6.8.10:=Ada)",
        "(1.2.840.113556.1.4.803:1.2.3:=2)",
        r"(cn=\28x\29\2a\5c)",
        "(cn=Ädä und so)",
        "(cn=)",
    ],
)
def test_a_filter_is_taken(text: str) -> None:
    filters.check(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"'\(' is missing at character 1"),
        ("cn=Ada", r"'\(' is missing at character 1"),
        ("(cn=Ada", r"'\)' is missing, or a character is not escaped at character 8"),
        ("(cn=Ada))", "something follows the filter at character 9"),
        ("(cn=Ada)(sn=x)", "something follows the filter"),
        ("(cn=(Ada))", "is not escaped at character 5"),
        ("(cn=A\\xa)", "is not escaped"),
        ("(cn=A\0)", "is not escaped"),
        ("(=Ada)", "attribute=value is missing at character 2"),
        ("(cn)", "attribute=value is missing"),
        ("()", "attribute=value is missing"),
        ("(!)", r"'\(' is missing"),
        ("(!(cn=a)(cn=b))", r"'\)' is missing"),
        ("(&(cn=a)", r"'\)' is missing"),
        ("(!" * 30 + "(cn=a)" + ")" * 30, "more than 20 filters are in each other"),
        ("(cn=" + "x" * 9000 + ")", "at most 8192 characters"),
    ],
)
def test_what_is_no_filter_is_refused_at_the_call(text: str, message: str) -> None:
    with pytest.raises(BadFilter, match=message):
        plugins.job_for("ldap_search", "company", text)


def test_values_are_escaped_where_they_are_filled_in() -> None:
    assert filters.escape("*)(uid=*\\\0") == r"\2a\29\28uid=\2a\5c\00"
    assert filters.escape(b"\xffA") == r"\ff\41"
    assert filters.escape(7) == "7"
    assert filters.fill("(&(uid={uid})(sn={sn}))", uid="a(b", sn="{uid}") == (
        r"(&(uid=a\28b)(sn={uid}))"
    )
    with pytest.raises(KeyError):
        filters.fill("(uid={uid})", sn="x")
    with pytest.raises(BadFilter):
        filters.fill("uid={uid}", uid="x")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"directory": None}, TypeError, "a directory is named"),
        ({"directory": ""}, TypeError, "a directory is named"),
        ({"filter": 7}, TypeError, "a search filter is text"),
        ({"base": 7}, TypeError, "base is the DN"),
        ({"base": "x" * 9000}, TypeError, "base is the DN"),
        ({"scope": "all"}, ValueError, "scope is one of base, one, subtree, not 'all'"),
        ({"attributes": "cn"}, TypeError, "a sequence of names, not 'cn'"),
        ({"attributes": []}, ValueError, "1 to 200 names"),
        ({"attributes": ["cn"] * 201}, ValueError, "1 to 200 names"),
        ({"attributes": ["c n"]}, ValueError, "'c n' is no name of an attribute"),
        ({"attributes": [7]}, ValueError, "7 is no name of an attribute"),
        ({"size_limit": 0}, ValueError, "size_limit is more than 0"),
        ({"size_limit": 1.5}, TypeError, "size_limit is a number"),
        ({"time_limit": -1}, ValueError, "time_limit is more than 0"),
        ({"time_limit": float("nan")}, ValueError, "time_limit is more than 0"),
        ({"time_limit": True}, TypeError, "time_limit is a number"),
        ({"password": "hush"}, TypeError, "password"),
    ],
)
def test_options_must_make_sense(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    call = {"directory": "company", "filter": "(cn=a)", **options}
    with pytest.raises(error, match=message):
        plugins.job_for("ldap_search", **call)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "http://example.com"}, "is no URL of an LDAP server"),
        ({"url": "ldap://"}, "is no URL of an LDAP server"),
        ({"url": "ldap://ada:hush@example.com"}, "is no URL of an LDAP server"),
        ({"url": "ldap://example.com:99999"}, "is no URL of an LDAP server"),
        ({"url": "ldap://example.com:0"}, "is no URL of an LDAP server"),
        ({"url": 7}, "is no URL of an LDAP server"),
        ({"url": "ldaps://x", "start_tls": True}, "encrypted from the start"),
        ({"url": "ldap://x", "size_limit": 0}, "size_limit of a directory is more than 0"),
        ({"url": "ldap://x", "time_limit": "5"}, "time_limit of a directory"),
        ({"url": "ldap://x", "page_size": True}, "page_size of a directory"),
    ],
)
def test_a_directory_must_make_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Directory(**options)


def test_a_directory_knows_its_address() -> None:
    assert (Directory("ldap://A.example").host, Directory("ldap://a").port) == ("a.example", 389)
    assert Directory("ldaps://[::1]:7000").port == 7000
    assert Directory("ldaps://[::1]").host == "::1"
    assert Directory("ldaps://a").port == 636


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    file = tmp_path / "credentials.toml"
    file.touch(0o600)
    monkeypatch.setenv(credentials.VARIABLE, str(file))
    yield file
    directories.forget()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "this worker knows no directory 'company'"),
        ("[directory.company]\n", "missing"),
        ("[directory.company]\nurl = 'ldap://x'\ntls = true\n", "has no option 'tls'"),
        ("[directory.company]\nurl = 7\n", "url of the directory 'company' is a text"),
        ("[directory.company]\nurl = 'ldap://x'\nstart_tls = 'no'\n", "is true or false"),
        ("[directory.company]\nurl = 'http://x'\n", "the directory 'company': .* no URL"),
    ],
)
def test_a_bad_directory_in_the_file_is_named(file: Path, text: str, message: str) -> None:
    file.write_text(text)

    with pytest.raises(UnknownDirectory, match=message):
        directories.find("company")


def test_a_directory_is_found_in_the_process_first(file: Path) -> None:
    file.write_text("[directory.company]\nurl = 'ldap://x'\nsize_limit = 7\n")
    own = Directory("ldap://y")

    assert directories.find("company") == Directory("ldap://x", size_limit=7)
    directories.provide("company", own)
    assert directories.find("company") is own
    directories.forget("company")
    file.chmod(0o644)
    with pytest.raises(CredentialError, match="chmod 600"):
        directories.find("company")
