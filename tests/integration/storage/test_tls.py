# SPDX-License-Identifier: ZPL-2.1
"""ZEO with TLS: with the right certificates it works, with others it is refused in time."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest
import trustme

from tests.integration.dispatcher import jobs_for_tests as jobs
from tests.support.running import Site, running
from tests.support.zeo import ZeoServer
from zasync.job import Job
from zasync.storage import (
    BadConfiguration,
    StorageError,
    StorageUnreachable,
    close_database,
    open_database,
)

pytestmark = pytest.mark.zeo
YESTERDAY = datetime.now(UTC) - timedelta(days=1)
ZCONFIG = """\
%import ZEO
<zodb main>
  <clientstorage>
    server {address}
    <ssl>
      certificate {certificate}
      key {key}
      authenticate {authority}
    </ssl>
  </clientstorage>
</zodb>
"""


@dataclasses.dataclass(frozen=True)
class Papers:
    """The files of one side."""

    certificate: Path
    key: Path
    authority: Path

    def options(self) -> dict[str, str]:
        return {
            "ssl_certificate": str(self.certificate),
            "ssl_key": str(self.key),
            "ssl_authenticate": str(self.authority),
        }


class TlsServer(ZeoServer):
    """Admits clients whose certificate is of its authority."""

    def __init__(self, path: Path, papers: Papers) -> None:
        super().__init__(str(path), tcp=True)
        self._papers = papers

    def _configuration(self, directory: Path) -> Path:
        config = super()._configuration(directory)
        papers = self._papers
        section = (
            f"<ssl>\ncertificate {papers.certificate}\nkey {papers.key}\n"
            f"authenticate {papers.authority}\n</ssl>\n</zeo>"
        )
        config.write_text(config.read_text().replace("</zeo>", section))
        return config


class Office:
    """Issues papers into a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = trustme.CA()
        self._file = directory / "ca.pem"
        directory.mkdir()
        self._authority.cert_pem.write_to_path(str(self._file))

    def issue(self, name: str, not_after: datetime | None = None) -> Papers:
        issued = self._authority.issue_cert(
            name, not_before=datetime(2020, 1, 1, tzinfo=UTC), not_after=not_after
        )
        certificate, key = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        with certificate.open("wb") as file:
            file.writelines(blob.bytes() for blob in issued.cert_chain_pems)
        issued.private_key_pem.write_to_path(str(key))
        return Papers(certificate, key, self._file)


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path / "papers")


@pytest.fixture
def server(tmp_path: Path, office: Office) -> Iterator[TlsServer]:
    with TlsServer(tmp_path / "Data.fs", office.issue("127.0.0.1")) as server:
        yield server


def uri(server: ZeoServer, papers: Papers, **more: str) -> str:
    return f"{server.uri}?{urlencode(papers.options() | more)}"


def zconfig(server: ZeoServer, papers: Papers, directory: Path) -> str:
    config = directory / "client.conf"
    config.write_text(ZCONFIG.format(address=server.address, **dataclasses.asdict(papers)))
    return f"zconfig://{config}#main"


def refused(uri: str, error: type[StorageError] = StorageUnreachable) -> str:
    begin = time.monotonic()
    with pytest.raises(error) as caught:
        open_database(uri, wait=timedelta(seconds=2))
    assert time.monotonic() - begin < 10, "not ZEO's own thirty seconds"
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("kind", ["uri", "zconfig"])
def test_a_client_with_the_right_certificate_works(
    server: TlsServer, office: Office, tmp_path: Path, kind: str
) -> None:
    jobs.reset()
    papers = office.issue("client")
    db = open_database(
        uri(server, papers, connection_pool_size="3")
        if kind == "uri"
        else zconfig(server, papers, tmp_path)
    )
    site = Site(db)
    with running(db, poll_interval=0.2):
        site.completed(site.put(Job(jobs.note, 1)))
    site.close()
    close_database(db)


@pytest.mark.parametrize("kind", ["uri", "zconfig"])
@pytest.mark.parametrize("fault", ["wrong", "expired"])
def test_a_client_with_another_certificate_is_refused(
    server: TlsServer, office: Office, tmp_path: Path, kind: str, fault: str
) -> None:
    papers = (
        Office(tmp_path / "other").issue("client")
        if fault == "wrong"
        else office.issue("client", not_after=YESTERDAY)
    )
    papers = dataclasses.replace(papers, authority=tmp_path / "papers" / "ca.pem")
    message = refused(uri(server, papers) if kind == "uri" else zconfig(server, papers, tmp_path))
    assert server.address in message
    assert "do not trust each other" in message
    assert "does not accept this client's certificate" in message


def test_a_client_without_tls_is_refused(server: TlsServer) -> None:
    assert f"no ZEO server answered at {server.address}" in refused(server.uri)


def test_a_client_without_a_certificate_is_refused_at_once(
    server: TlsServer, office: Office
) -> None:
    authority = office.issue("client").authority
    message = refused(f"{server.uri}?ssl_authenticate={authority}", BadConfiguration)
    assert "add ssl_certificate=FILE" in message


def test_a_file_that_is_missing_is_named(server: TlsServer, office: Office) -> None:
    papers = dataclasses.replace(office.issue("client"), key=Path("/no/such.key"))
    assert "ssl_key: there is no file /no/such.key" in refused(
        uri(server, papers), BadConfiguration
    )


def test_a_file_that_is_no_certificate_is_refused(
    server: TlsServer, office: Office, tmp_path: Path
) -> None:
    (tmp_path / "odd.pem").write_text("nothing of the kind")
    papers = dataclasses.replace(office.issue("client"), certificate=tmp_path / "odd.pem")
    assert "one of these is no file with a certificate" in refused(
        uri(server, papers), BadConfiguration
    )


@pytest.mark.parametrize("fault", ["expired", "elsewhere", "unknown"])
def test_a_server_that_cannot_be_trusted_is_refused(
    office: Office, tmp_path: Path, fault: str
) -> None:
    papers = {
        "expired": lambda: office.issue("127.0.0.1", not_after=YESTERDAY),
        "elsewhere": lambda: office.issue("zeo.example.org"),
        "unknown": lambda: Office(tmp_path / "other").issue("127.0.0.1"),
    }[fault]()
    with TlsServer(tmp_path / "Data.fs", papers) as server:
        message = refused(uri(server, office.issue("client")))
    assert "do not trust each other" in message
    assert "certificate verify failed" in message


def test_the_name_in_the_servers_certificate_may_be_given(office: Office, tmp_path: Path) -> None:
    with TlsServer(tmp_path / "Data.fs", office.issue("zeo.example.org")) as server:
        options = {"ssl_server_hostname": "zeo.example.org"}
        close_database(open_database(uri(server, office.issue("client"), **options)))


def test_a_server_without_tls_is_refused(
    zeo_server: ZeoServer, office: Office, tmp_path: Path
) -> None:
    with ZeoServer(str(tmp_path / "other.fs"), tcp=True) as plain:
        message = refused(uri(plain, office.issue("client")))
    assert plain.address in message


def test_a_demo_takes_no_options_for_tls() -> None:
    with pytest.raises(BadConfiguration, match="write a ZConfig file"):
        open_database("demo:(zeo://localhost?ssl_certificate=x)/(memory://)")
