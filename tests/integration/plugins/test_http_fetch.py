# SPDX-License-Identifier: ZPL-2.1
"""http_fetch against a real HTTP server: what arrives, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ZODB
from ZODB.FileStorage import FileStorage
from ZODB.POSException import ConflictError

from tests.support.running import Runner, Site, running, until
from tests.support.servers import Certificates, HttpServer
from zasync import plugins
from zasync.failure import Failure
from zasync.interfaces import TimeoutError
from zasync.plugins import addresses, credentials, files, http_fetch
from zasync.plugins.addresses import RefusedAddress
from zasync.plugins.credentials import Credential, CredentialError
from zasync.plugins.errors import ExtraMissing, FetchError, HttpStatusError, NoBlobs, TooLarge
from zasync.plugins.fetched import Fetched

pytestmark = pytest.mark.usefixtures("loopback")

BIG = os.urandom(3 * 2**20)


@pytest.fixture
def server() -> Iterator[HttpServer]:
    server = HttpServer()
    yield server
    server.stop()


def fetched(site: Site, url: str, **options: Any) -> Any:
    """The result of a job that fetches `url`."""
    job = site.put(plugins.job_for("http_fetch", url, **options))
    site.completed(job, seconds=60)
    return job.result


def failed(site: Site, url: str, error: type[Exception], **options: Any) -> str:
    """The message that such a job fails with."""
    result = fetched(site, url, **options)
    assert isinstance(result, Failure)
    assert result.type is error, result.getTraceback()
    assert result.getErrorMessage() in result.getTraceback()
    return result.getErrorMessage()


def leftovers(tmp_path: Path) -> list[Path]:
    """The files of downloads, and of blobs that were not committed."""
    directories = [tmp_path / "blobs" / "tmp", Path(tempfile.gettempdir())]
    return [*directories[0].glob("*"), *directories[1].glob("zasync-fetch-*")]


def test_a_download_is_in_a_blob_with_all_that_is_known_of_it(
    site: Site, runner: Runner, server: HttpServer, tmp_path: Path
) -> None:
    server.answers["/big"] = lambda handler: handler.reply(
        BIG, Content_Type="image/png", ETag='"7"', Last_Modified="Mon, 02 Jan 2006 15:04:05 GMT"
    )

    result = fetched(site, server.url("/big?token=hush"), headers={"Accept": "image/*"})

    assert type(result) is Fetched
    with result.open() as file:
        assert file.read() == BIG
    assert result.url == server.url("/big")
    assert result.size == len(BIG)
    assert result.sha256 == hashlib.sha256(BIG).hexdigest()
    assert (result.status, result.content_type, result.etag) == (200, "image/png", '"7"')
    assert result.last_modified == "Mon, 02 Jan 2006 15:04:05 GMT"
    assert result.fetched_at is not None
    path, headers, _ = server.requests[0]
    assert path == "/big?token=hush"
    assert headers["Accept"] == "image/*"
    until(lambda: not leftovers(tmp_path), "the removal of all files")


def test_progress_is_noted_while_it_runs(site: Site, runner: Runner, server: HttpServer) -> None:
    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BIG)))
        handler.end_headers()
        handler.wfile.write(BIG[: 2**20])
        server.released.wait(60)
        handler.wfile.write(BIG[2**20 :])

    server.answers["/slow"] = answer
    job = site.put(plugins.job_for("http_fetch", server.url("/slow")))

    site.until(lambda: (job.progress or "").endswith(" of 3.0 MiB"), "a line of progress")
    assert job.status == "active-status"
    assert job.progress_numbers is not None
    assert job.progress_numbers[1] == 3 * 2**20
    server.released.set()
    site.completed(job)
    assert job.result.size == len(BIG)


def test_a_conflict_of_the_end_downloads_nothing_again(
    site: Site, runner: Runner, server: HttpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.answers["/x"] = lambda handler: handler.reply(BIG)
    conflicts = iter([True, True])
    original = http_fetch._keep

    def keep(*args: Any) -> Any:
        kept = original(*args)
        if next(conflicts, False):
            raise ConflictError("as asked for")
        return kept

    monkeypatch.setattr(http_fetch, "_keep", keep)

    result = fetched(site, server.url("/x"))

    with result.open() as file:
        assert file.read() == BIG
    assert len(server.requests) == 1
    until(lambda: not leftovers(tmp_path), "the removal of all files")


def test_a_file_on_a_disk_without_links_is_copied(
    site: Site, runner: Runner, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*args: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(files.os, "link", no_link)
    server.answers["/x"] = lambda handler: handler.reply(b"abc")

    with fetched(site, server.url("/x")).open() as file:
        assert file.read() == b"abc"


def test_what_a_killed_process_left_is_removed_by_the_next_download(
    db: Any, site: Site, runner: Runner, server: HttpServer, tmp_path: Path
) -> None:
    old = tmp_path / "blobs" / "tmp" / "zasync-fetch-old"
    old.write_bytes(b"half of it")
    under_way = files.Download(db)
    under_way.write(b"some")
    under_way.close()
    server.answers["/x"] = lambda handler: handler.reply(b"abc")

    fetched(site, server.url("/x"))

    assert not old.exists()
    assert under_way.path.exists()
    under_way.discard()
    until(lambda: not leftovers(tmp_path), "the removal of all files")


@pytest.mark.parametrize("length", [None, 5])
def test_a_download_above_the_limit_ends_there(
    site: Site, runner: Runner, server: HttpServer, tmp_path: Path, length: int | None
) -> None:
    def answer(handler: Any) -> None:
        handler.send_response(200)
        if length is None:
            handler.send_header("Connection", "close")
        else:
            handler.send_header("Content-Length", "4000000000")
        handler.end_headers()
        handler.wfile.write(BIG)
        handler.close_connection = True

    server.answers["/x"] = answer

    message = failed(site, server.url("/x"), TooLarge, limit=2**20)

    if length is None:
        assert message == "more than 1,048,576 bytes have come, which is the limit"
    else:
        assert message == "the server has 4,000,000,000 bytes for us, and the limit is 1,048,576"
    until(lambda: not leftovers(tmp_path), "the removal of all files")


def test_an_answer_that_breaks_off_is_no_download(
    site: Site, runner: Runner, server: HttpServer, tmp_path: Path
) -> None:
    def answer(handler: Any) -> None:
        handler.reply(b"half", length=8)
        handler.close_connection = True

    server.answers["/x"] = answer

    message = failed(site, server.url("/x?token=hush"), FetchError)

    assert message == f"{server.url('/x')} broke off: the answer is not complete"
    until(lambda: not leftovers(tmp_path), "the removal of all files")


def test_a_server_that_does_not_answer_is_given_up(
    site: Site, runner: Runner, server: HttpServer
) -> None:
    server.answers["/x"] = lambda handler: server.released.wait(60)

    slow = failed(site, server.url("/x?token=hush"), TimeoutError, connect_timeout=0.2)
    long = failed(site, server.url("/x?token=hush"), TimeoutError, timeout=0.2)

    assert slow == f"{server.url('/x')} does not answer in the time allowed for that"
    assert long == f"the download of {server.url('/x')} took longer than 0.2 s"


def test_a_server_that_is_down_is_named(site: Site, runner: Runner, server: HttpServer) -> None:
    url = server.url("/x")
    server.stop()

    assert failed(site, url, FetchError).startswith(f"{url} cannot be reached: ")
    assert "cannot be reached" in failed(site, "http://nowhere.invalid/x", FetchError)


@pytest.mark.parametrize("status", [404, 500, 304])
def test_another_answer_than_was_asked_for_fails_with_its_status(
    site: Site, runner: Runner, server: HttpServer, status: int
) -> None:
    server.answers["/x"] = lambda handler: handler.reply(b"", status=status)

    result = fetched(site, server.url("/x"))

    assert result.type is HttpStatusError
    assert result.value.status == status
    assert result.getErrorMessage() == f"{server.url('/x')} answered with {status}"


def test_garbage_is_no_answer(site: Site, runner: Runner, server: HttpServer) -> None:
    server.answers["/x"] = lambda handler: handler.wfile.write(b"\x1b[31mHELLO\r\n\r\n")

    message = failed(site, server.url("/x"), FetchError)

    assert message.startswith(f"{server.url('/x')}: ")
    assert "\x1b" not in message


def test_the_checksum_must_be_right_if_one_is_given(
    site: Site, runner: Runner, server: HttpServer, tmp_path: Path
) -> None:
    server.answers["/x"] = lambda handler: handler.reply(b"abc")
    right = hashlib.sha256(b"abc").hexdigest()

    assert fetched(site, server.url("/x"), sha256=right.upper()).sha256 == right
    assert right in failed(site, server.url("/x"), ValueError, sha256="0" * 64)
    until(lambda: not leftovers(tmp_path), "the removal of all files")


def test_what_is_sent_compressed_is_kept_so_and_bounded_so(
    site: Site, runner: Runner, server: HttpServer
) -> None:
    bomb = gzip.compress(bytes(10 * 2**20))
    server.answers["/x"] = lambda handler: handler.reply(bomb, Content_Encoding="gzip")

    result = fetched(site, server.url("/x"), limit=2**20)

    assert result.content_encoding == "gzip"
    assert result.size == len(bomb)
    assert server.requests[0][1]["Accept-Encoding"] == "identity"


# Redirects


def redirect(target: str | None) -> Any:
    headers = {} if target is None else {"Location": target}
    return lambda handler: handler.reply(b"elsewhere", status=302, **headers)


def test_redirects_are_followed_and_the_last_address_is_told(
    site: Site, runner: Runner, server: HttpServer
) -> None:
    server.answers["/a"] = redirect("/b?x=1")
    server.answers["/b"] = redirect(server.url("/c"))
    server.answers["/c"] = lambda handler: handler.reply(b"abc")

    assert fetched(site, server.url("/a"), redirects=2).url == server.url("/c")
    message = failed(site, server.url("/a"), FetchError, redirects=1)
    assert message == f"more than 1 redirects, the last to {server.url('/c')}"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, "redirects, and does not say where to"),
        ("file:///etc/passwd", "only http and https are"),
        ("ftp://127.0.0.1/x", "only http and https are"),
        ("http://ada:hush@127.0.0.1/", "has a user or a password in it"),
        ("http://[::1", "Invalid IPv6 URL"),
        ("http://127.0.0.1:0/", "has the port 0"),
    ],
)
def test_a_redirect_to_what_is_not_fetched_ends_there(
    site: Site, runner: Runner, server: HttpServer, target: str | None, message: str
) -> None:
    server.answers["/a"] = redirect(target)

    told = failed(site, server.url("/a"), FetchError)

    assert message in told
    assert "hush" not in told


def test_headers_and_credentials_are_not_sent_to_where_a_redirect_leads(
    site: Site, runner: Runner, server: HttpServer
) -> None:
    credentials.provide("shop", Credential("", "hush", ("127.0.0.1",), plain=True))
    other = HttpServer()
    other.answers["/b"] = lambda handler: handler.reply(b"abc")
    server.answers["/a"] = redirect(other.url("/b"))

    fetched(site, server.url("/a"), headers={"X-Api-Key": "k"}, credential="shop")
    other.stop()

    assert server.requests[0][1]["Authorization"] == "Bearer hush"
    assert server.requests[0][1]["X-Api-Key"] == "k"
    assert not {"Authorization", "X-Api-Key"} & set(other.requests[0][1])


# Where it may connect to


def test_a_private_address_is_refused_unless_the_worker_allows_it(
    site: Site, runner: Runner, server: HttpServer
) -> None:
    server.answers["/x"] = lambda handler: handler.reply(b"abc")
    addresses.forbid_all()

    for host in ("127.0.0.1", "localhost", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"):
        message = failed(site, server.url("/x", host), RefusedAddress)
        assert "is not a public address" in message
    assert "not a canonical" in failed(site, server.url("/x", "2130706433"), FetchError)
    assert server.requests == []


def test_a_redirect_to_a_private_address_is_refused(
    site: Site, runner: Runner, server: HttpServer
) -> None:
    server.answers["/a"] = redirect("http://169.254.169.254/latest/meta-data/")

    message = failed(site, server.url("/a"), RefusedAddress)

    assert "169.254.169.254" in message


def test_proxies_of_the_environment_are_not_used(
    site: Site, runner: Runner, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server.answers["/x"] = lambda handler: handler.reply(b"abc")

    assert fetched(site, server.url("/x")).size == 3


# TLS


@pytest.fixture
def certificates() -> Certificates:
    return Certificates()


def test_a_certificate_is_checked(
    site: Site,
    runner: Runner,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    server = HttpServer(certificates.server("localhost"))
    server.answers["/x"] = lambda handler: handler.reply(b"abc")

    refused = failed(site, server.url("/x", "localhost"), FetchError)
    trust(monkeypatch, certificates.file(tmp_path))
    accepted = fetched(site, server.url("/x", "localhost"))
    wrong_name = failed(site, server.url("/x"), FetchError)
    server.stop()

    assert refused.startswith(f"the certificate of {server.url('/x', 'localhost')} is refused")
    assert accepted.size == 3
    assert "certificate of" in wrong_name


def trust(monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    """As SSL_CERT_FILE does for a process that starts with it."""
    import aiohttp.connector

    monkeypatch.setattr(
        aiohttp.connector, "_SSL_CONTEXT_VERIFIED", ssl.create_default_context(cafile=file)
    )


def test_a_redirect_from_https_to_http_is_not_followed(
    site: Site,
    runner: Runner,
    certificates: Certificates,
    server: HttpServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    secure = HttpServer(certificates.server("localhost"))
    secure.answers["/a"] = redirect(server.url("/b"))
    trust(monkeypatch, certificates.file(tmp_path))

    message = failed(site, secure.url("/a", "localhost"), FetchError)
    secure.stop()

    assert "from https to http" in message
    assert server.requests == []


# Credentials


def test_a_credential_is_sent_to_its_hosts_only_and_not_without_tls(
    site: Site, runner: Runner, server: HttpServer
) -> None:
    server.answers["/x"] = lambda handler: handler.reply(b"abc")
    here = f"127.0.0.1:{server.port}"
    credentials.provide("basic", Credential("ada", "hush", (here,), plain=True))
    credentials.provide("elsewhere", Credential("ada", "hush", ("example.com",), plain=True))
    credentials.provide("tls", Credential("ada", "hush", ("127.0.0.1",)))

    fetched(site, server.url("/x"), credential="basic")

    assert server.requests[0][1]["Authorization"] == "Basic YWRhOmh1c2g="
    for name, message in [
        ("elsewhere", f"must not be sent to {here}"),
        ("tls", "without TLS"),
        ("nobody's", "has no credential"),
    ]:
        assert message in failed(site, server.url("/x"), CredentialError, credential=name)
    assert len(server.requests) == 1


def test_no_secret_is_in_the_database_or_in_a_log(
    site: Site,
    runner: Runner,
    server: HttpServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "canary-7f3a"
    credentials.provide("shop", Credential("ada", secret, ("127.0.0.1",), plain=True))
    server.answers["/x"] = lambda handler: handler.reply(b"abc")
    server.answers["/y"] = lambda handler: handler.reply(b"", status=500)

    fetched(site, server.url("/x"), credential="shop")
    failed(site, server.url("/y"), HttpStatusError, credential="shop")

    assert secret.encode() not in (tmp_path / "Data.fs").read_bytes()
    assert secret not in caplog.text
    assert secret not in repr(credentials.find("shop"))


# Where the data cannot go


def test_a_storage_without_blobs_is_named(tmp_path: Path, server: HttpServer) -> None:
    db = ZODB.DB(FileStorage(str(tmp_path / "Plain.fs")))
    site = Site(db)
    server.answers["/x"] = lambda handler: handler.reply(b"abc")

    with running(db, poll_interval=0.5):
        message = failed(site, server.url("/x"), NoBlobs)
    site.close()
    db.close()

    assert "Plain.fs', keeps no blobs: open it with a directory for them" in message
    assert server.requests == []


def test_a_worker_without_the_package_says_how_to_get_it(
    site: Site, runner: Runner, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(__import__("sys").modules, "zasync.plugins.aiohttp", raising=False)
    monkeypatch.setitem(__import__("sys").modules, "aiohttp", None)

    assert "install 'zasync[http]' there" in failed(site, server.url("/x"), ExtraMissing)
