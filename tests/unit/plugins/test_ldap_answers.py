# SPDX-License-Identifier: ZPL-2.1
"""How the answers of LDAP servers that tests cannot provoke are told."""

from __future__ import annotations

from typing import Any

import pytest
from ldap3.core.exceptions import (
    LDAPSessionTerminatedByServerError,
    LDAPSocketReceiveError,
    LDAPStartTLSError,
)

from zasync.interfaces import TimeoutError
from zasync.plugins.directories import Directory
from zasync.plugins.ldap3 import Search

URL = "ldap://ldap.example.com"


@pytest.fixture
def search() -> Search:
    return Search(
        Directory(URL),
        None,
        filter="(cn=a)",
        base=None,
        scope="subtree",
        attributes=("*",),
        size_limit=5,
        seconds=7.5,
        truncate=False,
    )


@pytest.mark.parametrize(
    ("number", "code", "said", "message"),
    [
        (3, "timeLimitExceeded", "", f"{URL} gave up the search after 8 s"),
        (50, "insufficientAccessRights", "no\n", f"{URL} answers insufficientAccessRights (no\\n)"),
        (53, "unwillingToPerform", None, f"{URL} answers unwillingToPerform"),
    ],
)
def test_an_answer_is_told(search: Search, number: int, code: str, said: Any, message: str) -> None:
    error: Any = search._answer({"result": number, "description": code, "message": said})

    assert str(error) == message
    assert isinstance(error, TimeoutError) if number == 3 else error.code == code


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (LDAPStartTLSError("no"), "startTLS", f"{URL} does not start TLS: no"),
        (LDAPSocketReceiveError("x: timed out"), None, f"{URL} does not answer within 8 s"),
        (
            LDAPSessionTerminatedByServerError("bye"),
            "connection",
            f"{URL}: LDAPSessionTerminatedByServerError: bye",
        ),
    ],
)
def test_a_lost_connection_is_told(
    search: Search, error: Any, code: str | None, message: str
) -> None:
    told: Any = search._told(error, None)

    assert str(told) == message
    assert isinstance(told, TimeoutError) if code is None else told.code == code
