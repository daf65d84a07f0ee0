# SPDX-License-Identifier: ZPL-2.1
"""Credentials by name: found in the process or in its file, and sent only where they belong."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zasync.plugins import credentials
from zasync.plugins.credentials import Credential, CredentialError

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def nothing_provided(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(credentials.VARIABLE, raising=False)
    yield
    credentials.forget()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    def write(text: str | bytes, mode: int = 0o600) -> Path:
        path = tmp_path / "credentials.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        monkeypatch.setenv(credentials.VARIABLE, str(path))
        return path

    return write


def test_the_process_provides_one() -> None:
    own = Credential("ada", "hush", ("example.com",))
    credentials.provide("shop", own)

    assert credentials.find("shop") is own
    credentials.forget("shop")
    with pytest.raises(CredentialError, match=r"no credential 'shop' .*names no file"):
        credentials.find("shop")


def test_a_file_has_them(write: Write, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from a file\n")
    secret.chmod(0o400)
    path = write(
        '[credential.shop]\nuser = "ada"\nsecret = "hush"\nhosts = ["example.com:443"]\n'
        f'[credential.bank]\nsecret_file = "{secret}"\nhosts = ["bank"]\nplain = true\n'
    )

    assert credentials.find("shop") == Credential("ada", "hush", ("example.com:443",))
    assert credentials.find("bank") == Credential("", "from a file", ("bank",), plain=True)
    with pytest.raises(CredentialError, match=f"no credential 'x' in {path}"):
        credentials.find("x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[credential.shop", "is not TOML: "),
        ("[credential]\nshop = 'hush'\n", r"credential\.shop in .* is no table"),
        ("credential = 1\n", "has no credential 'shop'"),
        ("[credential.shop]\nsecret = 'hush'\n", "needs hosts"),
        ("[credential.shop]\nsecret = 'hush'\nhosts = 'x'\n", "needs hosts"),
        ("[credential.shop]\nhosts = ['x']\n", "needs secret or secret_file"),
        (
            "[credential.shop]\nhosts = ['x']\nsecret = 'hush'\nsecret_file = 'y'\n",
            "needs secret or secret_file",
        ),
        ("[credential.shop]\nhosts = ['x']\nsecret = 7\n", "are texts"),
        ("[credential.shop]\nhosts = ['x']\npassword = 'hush'\n", "no option 'password'"),
        ("[credential.shop]\nhosts = ['x']\nsecret_file = '/no/such'\n", "cannot be read"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"#" * (2**20 + 1), "too large for secrets"),
    ],
)
def test_a_bad_file_is_named_without_its_secrets(
    write: Write, text: str | bytes, message: str
) -> None:
    write(text)

    with pytest.raises(CredentialError, match=message) as raised:
        credentials.find("shop")
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o622, 0o644])
def test_a_file_that_others_may_use_is_refused(write: Write, mode: int) -> None:
    write("[credential.shop]\nsecret = 'hush'\nhosts = ['x']\n", mode)

    with pytest.raises(CredentialError, match=f"mode {mode:04o}.*chmod 600"):
        credentials.find("shop")


def test_a_link_a_directory_and_a_pipe_are_refused(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(write("x"))
    os.mkfifo(pipe, 0o600)

    for path, message in [
        (link, "cannot be read"),
        (pipe, "no plain file"),
        (tmp_path, "no plain file"),
        (tmp_path / "nothing", "cannot be read"),
    ]:
        monkeypatch.setenv(credentials.VARIABLE, str(path))
        with pytest.raises(CredentialError, match=message):
            credentials.find("shop")


def test_a_file_of_another_user_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("x")
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        status = list(real(descriptor))
        status[4] = 4711  # the owner
        return os.stat_result(status)

    monkeypatch.setattr(credentials.os, "fstat", fstat)

    with pytest.raises(CredentialError, match=f"{path} belongs to another user"):
        credentials.find("shop")


def test_it_is_sent_to_its_hosts_only_and_not_without_encryption() -> None:
    own = Credential("ada", "hush", ("Example.com", "chat.example.com:6697"))

    own.check_host("shop", "example.COM", 443, encrypted=True)
    own.check_host("shop", "chat.example.com", 6697, encrypted=True)
    for host, port in [("example.org", 443), ("chat.example.com", 25), ("a.example.com", 443)]:
        with pytest.raises(CredentialError, match=f"'shop' must not be sent to {host}:{port}"):
            own.check_host("shop", host, port, encrypted=True)
    with pytest.raises(CredentialError, match="without TLS"):
        own.check_host("shop", "example.com", 80, encrypted=False)


def test_its_secret_is_neither_shown_nor_stored() -> None:
    own = Credential("ada", "hush", ("example.com",))

    assert "hush" not in repr(own)
    with pytest.raises(TypeError, match="is not stored"):
        pickle.dumps(own)
