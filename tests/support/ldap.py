# SPDX-License-Identifier: ZPL-2.1
"""Real LDAP servers in processes of their own: ldaptor's, and OpenLDAP's where it is installed.

Both serve the same people, plain with StartTLS and over TLS, on free ports of the loopback.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.support import programs
from tests.support.running import until
from tests.support.servers import Certificates
from zasync.foundation import platform

BASE = "dc=example,dc=com"
READER = f"uid=reader,ou=staff,{BASE}"
SECRET = "canary-91c4"
PEOPLE = 25


def ldif() -> str:
    """The entries: an organisation, a reader with a password, and PEOPLE people."""
    entries = [
        f"dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: Example",
        f"dn: ou=staff,{BASE}\nobjectClass: organizationalUnit\nou: staff",
        f"dn: ou=people,{BASE}\nobjectClass: organizationalUnit\nou: people",
        f"dn: {READER}\nobjectClass: inetOrgPerson\nuid: reader\ncn: reader\nsn: reader\n"
        f"userPassword: {SECRET}",
    ]
    entries += [
        f"dn: uid=p{number:03},ou=people,{BASE}\nobjectClass: inetOrgPerson\nuid: p{number:03}\n"
        f"cn: Person {number}\nsn: (Per*son)\nmail: p{number}@example.com\nmail: {number}@a.b"
        for number in range(PEOPLE)
    ]
    # A value that is no UTF-8, and a name that is more than ASCII.
    entries.append(
        f"dn: uid=ada,ou=people,{BASE}\nobjectClass: inetOrgPerson\nuid: ada\ncn:: "
        f"w4RkYQ==\nsn: Byron\njpegPhoto:: /9j/4A=="
    )
    return "\n\n".join(entries) + "\n\n"


class LdapServer:
    """A running server."""

    def __init__(self, plain: int, tls: int, certificates: Certificates, ca_file: str) -> None:
        self.plain = f"ldap://localhost:{plain}"
        self.tls = f"ldaps://localhost:{tls}"
        self.tls_by_address = f"ldaps://127.0.0.1:{tls}"
        self.certificates = certificates
        self.ca_file = ca_file


LDAPTOR = """\
import sys
from io import BytesIO
from twisted.internet import reactor, ssl, protocol
from ldaptor import inmemory
from ldaptor.interfaces import IConnectedLDAPEntry
from ldaptor.protocols import pureldap
from ldaptor.protocols.ldap import ldaperrors, ldapserver
from twisted.python.components import registerAdapter

plain, tls, pem, data = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
context = ssl.PrivateCertificate.loadPEM(open(pem, "rb").read()).options()


class Server(ldapserver.LDAPServer):
    def handle_LDAPExtendedRequest(self, request, controls, reply):
        if request.requestName != pureldap.LDAPStartTLSRequest.oid:
            return super().handle_LDAPExtendedRequest(request, controls, reply)
        reply(pureldap.LDAPStartTLSResponse(resultCode=ldaperrors.Success.resultCode))
        self.transport.startTLS(context)


class Factory(protocol.ServerFactory):
    protocol = Server

    def __init__(self, root):
        self.root = root


registerAdapter(lambda factory: factory.root, Factory, IConnectedLDAPEntry)


def serve(root):
    reactor.listenTCP(plain, Factory(root), interface="127.0.0.1")
    reactor.listenSSL(tls, Factory(root), context, interface="127.0.0.1")
    print("serving", flush=True)


inmemory.fromLDIFFile(BytesIO(open(data, "rb").read())).addCallback(serve)
reactor.run()
"""


@contextlib.contextmanager
def ldaptor(directory: Path) -> Iterator[LdapServer]:
    """The server that the package ldaptor has."""
    data = directory / "people.ldif"
    data.write_text(ldif(), encoding="utf-8")
    program = directory / "server.py"
    program.write_text(LDAPTOR)
    certificates = Certificates()
    pem = directory / "server.pem"
    certificates.authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        str(pem)
    )
    ports = platform.free_loopback_port(), platform.free_loopback_port()
    command = [sys.executable, str(program), *map(str, ports), str(pem), str(data)]
    with _running(command, ports, directory):
        yield LdapServer(*ports, certificates, certificates.file(directory))


SLAPD_CONF = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {directory}/slapd.pid
argsfile {directory}/slapd.args
TLSCertificateFile {directory}/server.pem
TLSCertificateKeyFile {directory}/server.pem
TLSCACertificateFile {directory}/authority.pem
database mdb
suffix "{base}"
rootdn "cn=admin,{base}"
directory {directory}/db
access to attrs=userPassword by anonymous auth by * none
access to * by * read
limits dn.exact="{reader}" size=unlimited
sizelimit 10
"""


@contextlib.contextmanager
def slapd(directory: Path) -> Iterator[LdapServer]:
    """OpenLDAP's server, which knows paged results, and answers strangers 10 entries at most."""
    program = programs.find("slapd")
    assert program is not None
    certificates = Certificates()
    certificates.file(directory)
    certificates.authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        str(directory / "server.pem")
    )
    (directory / "db").mkdir()
    conf, data = directory / "slapd.conf", directory / "people.ldif"
    conf.write_text(SLAPD_CONF.format(directory=directory, base=BASE, reader=READER))
    data.write_text(ldif(), encoding="utf-8")
    subprocess.run(
        [program, "-T", "add", "-f", str(conf), "-l", str(data)], check=True, capture_output=True
    )
    ports = platform.free_loopback_port(), platform.free_loopback_port()
    urls = f"ldap://127.0.0.1:{ports[0]}/ ldaps://127.0.0.1:{ports[1]}/"
    with _running([program, "-d", "0", "-h", urls, "-f", str(conf)], ports, directory):
        yield LdapServer(*ports, certificates, str(directory / "authority.pem"))


@contextlib.contextmanager
def _running(command: list[str], ports: tuple[int, ...], directory: Path) -> Iterator[None]:
    with (directory / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def listens(port: int) -> bool:
        assert process.poll() is None, (directory / "server.log").read_text()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        return False

    try:
        for port in ports:
            until(lambda port=port: listens(port), "the LDAP server", 60)  # type: ignore[misc]
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)


@contextlib.contextmanager
def silent_server(context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A port on which someone accepts connections and never says anything."""
    listener = socket.create_server(("127.0.0.1", 0))
    kept: list[socket.socket] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                kept.append(listener.accept()[0])

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in kept:
            connection.close()
        thread.join(10)
