# SPDX-License-Identifier: ZPL-2.1
"""Sessions with lines of text, against a real server on the loopback."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import transaction

from tests.support import handlers
from tests.support.chat import Chat
from tests.support.ldap import silent_server
from tests.support.running import Runner, Site, running, until
from tests.support.servers import Certificates, LineServer
from zasync import plugins
from zasync.foundation import platform
from zasync.interfaces import NotStorableError
from zasync.job import Job, NeverRetry
from zasync.plugins import Plugin, UnknownPlugin, addresses, credentials
from zasync.plugins.addresses import RefusedAddress
from zasync.plugins.credentials import Credential, CredentialError
from zasync.plugins.errors import SessionLost
from zasync.plugins.session import (
    Session,
    SessionClosed,
    SessionFull,
    SessionNotFound,
    Sessions,
    SessionStatus,
    holder,
    register,
)

pytestmark = pytest.mark.usefixtures("loopback", "quick")

CONNECTED, CLOSED = SessionStatus.CONNECTED, SessionStatus.CLOSED
FAILED, LOST = SessionStatus.FAILED, SessionStatus.LOST


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost connection is made again at once; the outbox is looked at after hints only."""
    monkeypatch.setattr(holder, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(holder, "LONGEST_PAUSE", 0.1)
    monkeypatch.setattr(holder, "LOOK_EVERY", 3600.0)


@pytest.fixture
def server() -> Iterator[LineServer]:
    server = LineServer()
    yield server
    server.stop()


@pytest.fixture
def chat(site: Site, runner: Runner) -> Iterator[Chat]:
    chat = Chat(site)
    yield chat
    for session in site.sees(lambda: list(chat.sessions)):
        chat.close(session)


def test_what_is_heard_becomes_jobs_and_what_is_put_is_sent(chat: Chat, server: LineServer) -> None:
    session = chat.open(server, label="a chat")
    chat.until(session, CONNECTED)
    assert session.state.connected_at is not None

    server.say("hello", "Ähem")
    chat.send(session, "one", "two")
    chat.until_heard("hello", "Ähem")
    server.wait_until(lambda: server.heard == ["one", "two"])
    chat.site.until(lambda: session.unsent == 0, "all to be sent")

    chat.send(session, "bye")
    assert chat.close(session, "the user left") is True
    chat.until(session, CLOSED)
    assert server.heard == ["one", "two", "bye"]
    assert session.job.result == {
        "closed": "the user left",
        "heard": 2,
        "sent": 3,
        "refused": 0,
        "unsent": 0,
        "error": "",
    }
    server.wait_until(lambda: not server.connections)


def test_the_handler_gets_the_session_and_is_told_the_number(
    chat: Chat, server: LineServer
) -> None:
    chat.open(server, owner="bob")
    server.say("first", "second")
    chat.until_heard("first", "second", owner="bob")

    kept = dict(chat.site.root["heard"].items())

    assert kept == {
        ("bob", 1): ("first", {"number": 1}),
        ("bob", 2): ("second", {"number": 2}),
    }


def test_nothing_is_sent_for_a_transaction_that_is_aborted(chat: Chat, server: LineServer) -> None:
    session = chat.open(server)
    chat.site.manager.begin()
    session.send("never")
    chat.site.manager.abort()
    chat.send(session, "yes")

    server.wait_until(lambda: server.heard)
    assert server.heard == ["yes"]


def test_many_requests_send_at_once_and_each_message_arrives_once(
    db: Any, chat: Chat, server: LineServer
) -> None:
    session = chat.open(server)
    oid = session._p_oid

    def produce(name: str) -> None:
        manager = transaction.TransactionManager()
        connection = db.open(transaction_manager=manager)
        for number in range(25):
            for attempt in manager.attempts(50):
                with attempt:
                    connection.get(oid).send(f"{name}{number}")
        connection.close()

    threads = [threading.Thread(target=produce, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    server.wait_until(lambda: len(server.heard) >= 100)
    chat.site.until(lambda: session.unsent == 0, "all to be sent")
    for name in "abcd":
        own = [line for line in server.heard if line.startswith(name)]
        assert own == [f"{name}{number}" for number in range(25)]


def test_a_handler_may_be_a_plugin_or_a_job_with_options(chat: Chat, server: LineServer) -> None:
    plugins.register(Plugin("hear", handlers.hear, timeout=timedelta(hours=1), retry=False))
    options = Job(handlers.hear)
    options.run_limit = timedelta(hours=2)

    by_name = chat.open(server, handler="hear")
    by_job = chat.open(server, handler=options, owner="bob")
    server.wait_until(lambda: len(server.connections) == 2)
    server.say("hello")
    chat.until_heard("hello")
    chat.until_heard("hello", owner="bob")

    jobs = [session.state.unhandled[1] for session in (by_name, by_job)]
    assert jobs[0].timeout == timedelta(hours=1)
    assert isinstance(jobs[0].getRetryPolicy(), NeverRetry)
    assert jobs[1].run_limit == timedelta(hours=2)


# Whose it is


def test_a_session_belongs_to_its_owner(chat: Chat, server: LineServer) -> None:
    first, second = chat.open(server), chat.open(server)
    other = chat.open(server, owner="bob")
    sessions = chat.sessions

    assert sessions.get(first.id, owner="ada") is first
    assert sessions.get(first.id) is first
    for wrong in [
        lambda: sessions.get(first.id, owner="bob"),
        lambda: sessions.get(first.id, owner=None),
        lambda: sessions.get("nothing"),
        lambda: sessions.get(None),  # type: ignore[arg-type]
    ]:
        with pytest.raises(SessionNotFound, match="there is no session"):
            wrong()
    assert list(sessions.owned_by("ada")) == [second, first]
    assert list(sessions.owned_by("eve")) == []
    assert list(sessions) == [other, second, first]
    assert len(sessions) == 3
    assert len({first.id, second.id, other.id}) == 3


def test_sessions_that_have_ended_can_be_forgotten(chat: Chat, server: LineServer) -> None:
    session, open_one = chat.open(server), chat.open(server, owner=None)
    with pytest.raises(ValueError, match="has not ended; close it first"):
        chat.sessions.forget(session)
    chat.close(session)
    chat.until(session, CLOSED)

    assert chat.site.commit(lambda: chat.sessions.prune(timedelta(hours=1))) == 0
    assert chat.site.commit(lambda: chat.sessions.prune(timedelta())) == 1
    assert list(chat.sessions) == [open_one]
    assert list(chat.sessions.owned_by("ada")) == []


# What goes wrong on the way


def test_a_connection_that_is_cut_is_made_again(chat: Chat, server: LineServer) -> None:
    session = chat.open(server)
    server.say("before")
    chat.until_heard("before")

    server.cut()
    server.wait_until(lambda: server.accepted == 2)
    chat.send(session, "still there")
    server.say("after")

    chat.until_heard("before", "after")
    server.wait_until(lambda: server.heard == ["still there"])
    chat.until(session, CONNECTED)


def test_a_server_that_is_down_is_waited_for(chat: Chat) -> None:
    port = platform.free_loopback_port()
    session = chat.open({"host": "127.0.0.1", "port": port})
    chat.until(session, LOST)
    chat.site.until(lambda: session.state.attempts > 2, "several attempts")
    assert "Connect" in session.state.error
    chat.send(session, "at last")

    server = LineServer(port=port)
    server.wait_until(lambda: server.heard == ["at last"])
    chat.until(session, CONNECTED)
    assert session.state.error == ""
    server.stop()


def test_it_is_given_up_after_the_time_that_was_agreed(chat: Chat) -> None:
    port = platform.free_loopback_port()
    session = chat.open(
        {"host": "127.0.0.1", "port": port}, give_up_after=timedelta(milliseconds=100)
    )
    chat.until(session, FAILED)

    assert session.job.result.type is SessionLost
    assert "in vain for 0.1 s: " in session.job.result.getErrorMessage()
    with pytest.raises(SessionClosed, match="sends nothing any more"):
        session.send("too late")
    assert session.close() is False


def test_without_reconnecting_a_proper_end_is_one_and_a_cut_is_not(
    chat: Chat, server: LineServer
) -> None:
    def bye(connection: Any, line: str) -> None:
        connection.sendall(b"last words")
        connection.shutdown(1)

    server.on_line = bye
    ended = chat.open(server, reconnect=False)
    chat.send(ended, "QUIT")
    chat.until(ended, CLOSED)
    lost = chat.open({"host": "127.0.0.1", "port": platform.free_loopback_port()}, reconnect=False)
    chat.until(lost, FAILED)

    assert ended.job.result["closed"] == "the other side has ended it"
    chat.until_heard("last words")
    assert lost.job.result.type is SessionLost


def test_one_that_cannot_be_connected_can_be_closed(chat: Chat) -> None:
    port = platform.free_loopback_port()
    session = chat.open({"host": "127.0.0.1", "port": port})
    chat.send(session, "never")
    chat.until(session, LOST)
    chat.close(session)
    chat.until(session, CLOSED)

    assert session.job.result["unsent"] == 1
    assert session.job.result["error"]


def test_one_that_is_closed_before_a_worker_took_it_ends_without_connecting(
    site: Site, db: Any, server: LineServer
) -> None:
    chat = Chat(site)
    session = chat.open(server)
    assert session.status is SessionStatus.WAITING
    chat.close(session)
    with running(db, poll_interval=0.5):
        chat.until(session, CLOSED)

    assert server.accepted == 0


def test_a_line_without_end_is_not_kept_in_memory(chat: Chat, server: LineServer) -> None:
    server.greeting = b"x" * 200_000
    session = chat.open(server)

    chat.site.until(lambda: "more than 65536 bytes" in session.state.error, "the error")


def test_silence_counts_as_lost_if_that_is_agreed(chat: Chat, server: LineServer) -> None:
    session = chat.open({"host": "127.0.0.1", "port": server.port, "idle_timeout": 0.1})

    chat.site.until(lambda: session.state.error == "nothing was heard for 0.1 s", "the error")
    server.wait_until(lambda: server.accepted >= 2)


# Bounds


def test_an_outbox_has_bounds(site: Site, server: LineServer) -> None:
    chat = Chat(site)  # without a worker
    session = chat.open(server, most_unsent=3)
    chat.send(session, "1", "2", "3")

    with pytest.raises(SessionFull, match=r"3 messages of the session .* wait already"):
        session.send("4")


def test_no_more_is_heard_than_is_handled(chat: Chat, server: LineServer) -> None:
    session = chat.open(server, handler=handlers.hear_slowly, most_unhandled=2)
    server.say(*map(str, range(30)))
    chat.site.until(lambda: session.state.heard == 2, "the first jobs")
    for _ in range(5):
        server.wait_until(lambda: server.connections)
        assert chat.site.sees(lambda: session.state.heard) == 2

    handlers.go_on.set()
    chat.until_heard(*map(str, range(30)), seconds=60)


@pytest.mark.parametrize("text", ["two\nlines", "a\rb", "a\0b", "x" * 70_000])
def test_a_message_must_be_one_line(site: Site, server: LineServer, text: str) -> None:
    session = Chat(site).open(server)

    with pytest.raises(ValueError, match="line"):
        session.send(text)
    with pytest.raises(TypeError, match="a message is text"):
        session.send(b"bytes")  # type: ignore[arg-type]
    assert session.unsent == 0


# What is refused when it is opened


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"host": ""}, ValueError, "needs the name of a host"),
        ({"host": "a\nb"}, ValueError, "needs the name of a host"),
        ({"port": 0}, ValueError, "needs a port, not 0"),
        ({"port": 70000}, ValueError, "needs a port"),
        ({"port": "80"}, TypeError, "the option 'port' must not be '80'"),
        ({"port": True}, TypeError, "the option 'port' must not be True"),
        ({"tls": 1}, TypeError, "the option 'tls' must not be 1"),
        ({"prot": 80}, TypeError, r"no option 'prot'; there are \['ca_file'"),
        ({"password": "hush"}, TypeError, "no option 'password'"),
        ({"connect_timeout": 0}, ValueError, "connect_timeout is more than 0"),
        ({"idle_timeout": -1}, ValueError, "idle_timeout is more than 0"),
        ({"login": "USER"}, TypeError, "the option 'login'"),
        ({"login": ["a\nb"]}, ValueError, "line breaks"),
    ],
)
def test_options_must_make_sense(
    site: Site, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    chat = Chat(site)

    with pytest.raises(error, match=message):
        chat.open({"host": "localhost", "port": 80, **change})
    assert len(chat.sessions) == 0


class Secretive:
    """A driver that would take a password among its options."""

    def check_options(self, options: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"driver": "carrier pigeon"}, ValueError, r"there are \['events', 'lines'\]"),
        ({"driver": 7}, TypeError, "a driver is a class"),
        ({"driver": type("Local", (), {})}, NotStorableError, "not found under that name"),
        ({"driver": Secretive, "to": {"password": "x"}}, ValueError, "name a credential instead"),
        ({"handler": "nothing"}, UnknownPlugin, "nothing"),
        ({"handler": "aggregate"}, ValueError, "makes jobs"),
        ({"handler": lambda *args: None}, NotStorableError, "a lambda"),
        ({"handler": handlers.hear_in_a_coroutine}, TypeError, "is a coroutine function"),
        ({"handler": Job(handlers.hear, 1)}, ValueError, "a new one without arguments"),
        ({"most_unsent": 0}, ValueError, "most_unsent is a number from 1 on"),
        ({"most_unhandled": "5"}, ValueError, "most_unhandled is a number"),
    ],
)
def test_what_cannot_be_is_refused_at_the_call(
    site: Site, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    chat = Chat(site)
    to = arguments.pop("to", {"host": "localhost", "port": 80})

    with pytest.raises(error, match=message):
        chat.open(to, **arguments)


def test_the_register_must_be_in_a_database(site: Site) -> None:
    with pytest.raises(ValueError, match="in no database yet"):
        Sessions().open("lines", {}, queue=site.queue, handler=handlers.hear)


# TLS, credentials, addresses


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[LineServer, str]]:
    certificates = Certificates()
    server = LineServer(certificates.server("localhost"))
    yield server, certificates.file(tmp_path)
    server.stop()


def test_lines_go_over_tls(chat: Chat, secure: tuple[LineServer, str]) -> None:
    server, ca_file = secure
    session = chat.open({"host": "localhost", "port": server.port, "tls": True, "ca_file": ca_file})
    chat.send(session, "hello")
    server.say("hi")

    server.wait_until(lambda: server.heard == ["hello"])
    chat.until_heard("hi")


@pytest.mark.parametrize(("host", "trusted"), [("localhost", False), ("127.0.0.1", True)])
def test_a_wrong_certificate_is_told(
    chat: Chat, secure: tuple[LineServer, str], host: str, trusted: bool
) -> None:
    server, ca_file = secure
    options = {"host": host, "port": server.port, "tls": True}
    session = chat.open({**options, "ca_file": ca_file} if trusted else options)
    chat.until(session, LOST)

    assert f"the certificate of {host}:{server.port} is refused" in session.state.error


def test_a_login_has_the_workers_credential_which_is_nowhere_else(
    chat: Chat, server: LineServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "canary-55d1"
    credentials.provide("chat", Credential("ada", secret, ("127.0.0.1",), plain=True))
    session = chat.open(
        {
            "host": "127.0.0.1",
            "port": server.port,
            "credential": "chat",
            "login": ["PASS {secret}", "NICK {user}"],
        }
    )
    chat.send(session, "{secret}")

    server.wait_until(lambda: len(server.heard) == 3)
    assert server.heard == [f"PASS {secret}", "NICK ada", "{secret}"]
    assert secret.encode() not in (tmp_path / "Data.fs").read_bytes()
    assert secret not in caplog.text


@pytest.mark.parametrize(
    "credential",
    [
        Credential("ada", "x", ("chat.example.com",), plain=True),
        Credential("ada", "x", ("127.0.0.1",)),
        Credential("ada", "x\nQUIT", ("127.0.0.1",), plain=True),
    ],
)
def test_a_credential_that_must_not_be_sent_ends_the_session(
    chat: Chat, server: LineServer, credential: Credential
) -> None:
    credentials.provide("chat", credential)
    session = chat.open(
        {"host": "127.0.0.1", "port": server.port, "credential": "chat", "login": ["{secret}"]}
    )
    chat.until(session, FAILED)

    assert session.job.result.type is CredentialError
    assert server.accepted == 0


def test_a_private_address_ends_the_session_unless_it_is_allowed(
    chat: Chat, server: LineServer
) -> None:
    addresses.forbid_all()
    session = chat.open(server)
    chat.until(session, FAILED)

    assert session.job.result.type is RefusedAddress
    assert server.accepted == 0


# Workers come and go


def test_a_worker_that_stops_hands_its_sessions_over_at_once(
    db: Any, site: Site, server: LineServer
) -> None:
    chat = Chat(site)
    with running(db, poll_interval=0.5, grace=60.0) as first:
        session = chat.open(server)
        chat.until(session, CONNECTED)
        with running(db, poll_interval=0.5) as second:
            first.stop()
            assert first.dispatcher.outlasted == []
            server.wait_until(lambda: server.accepted == 2)
            chat.send(session, "hello")
            server.wait_until(lambda: server.heard == ["hello"])
            assert second.uuid == session.job.agent.parent.UUID
            server.wait_until(lambda: len(server.connections) == 1)
            chat.close(session)
            chat.until(session, CLOSED)


def test_a_worker_that_was_taken_for_dead_lets_go_of_the_session(
    db: Any, site: Site, runner: Runner, server: LineServer
) -> None:
    chat = Chat(site)
    session = chat.open(server)
    chat.until(session, CONNECTED)

    def take_away() -> None:
        session.job._token = 4711  # as another worker does that takes it up

    server.wait_until(lambda: server.connections)  # it may hear of it later than the client
    (first,) = server.connections
    site.commit(take_away)
    with contextlib.suppress(OSError):  # it has let go already
        first.sendall(b"whose is this?\n")

    # Its job is soon taken up again, by the same dispatcher here, which connects anew.
    server.wait_until(lambda: first not in server.connections)
    assert chat.heard() == []
    assert session.state.heard == 0


def test_a_message_that_was_sent_when_its_worker_died_may_be_sent_again(
    db: Any, site: Site, server: LineServer
) -> None:
    chat = Chat(site)
    session = chat.open(server)
    chat.send(session, "one")
    site.commit(lambda: session.outbox.remove([]))
    ((key, text),) = session.outbox.first(5)
    with running(db, poll_interval=0.5):
        server.wait_until(lambda: server.heard == ["one"])
        site.until(lambda: session.unsent == 0, "it to be noted")

        def forget() -> None:  # as if that had not been committed
            session.outbox._messages[key] = text
            session.outbox.count.change(1)
            session._wake()

        site.commit(forget)
        server.wait_until(lambda: server.heard == ["one", "one"])
        chat.close(session)
        chat.until(session, CLOSED)


def test_a_repr_says_which_it_is(site: Site, server: LineServer) -> None:
    session = Chat(site).open(server)

    assert repr(session) == f"<zasync.plugins.session.Session {session.id}>"
    assert isinstance(session, Session)
    assert until(lambda: session.driver(), "its driver")


# Drivers of an application's own


def test_an_application_may_have_a_driver_of_its_own(chat: Chat) -> None:
    session = chat.open({}, handlers.Echo)
    chat.send(session, "one", "two")
    chat.until_heard("one", "two")
    with pytest.raises(ValueError, match="say something"):
        session.send("")

    chat.send(session, "END")
    until(lambda: len(handlers.Echo.connections) == 2, "the next connection")
    chat.send(session, "three")
    chat.until_heard("one", "two", "three")
    assert [each.resume for each in handlers.Echo.connections] == ["", "id of two"]
    assert handlers.Echo.connections[0].closed
    chat.close(session)
    chat.until(session, CLOSED)


def test_whatever_a_driver_raises_while_it_speaks_counts_as_a_lost_connection(chat: Chat) -> None:
    session = chat.open({}, handlers.Echo)
    chat.send(session, "FAIL")

    chat.site.until(lambda: session.state.error, "the error")
    assert session.state.error == "RuntimeError: \\x1b[31mred"
    assert session.unsent == 1


@pytest.mark.parametrize("error", [ValueError, TypeError, LookupError, PermissionError])
def test_an_error_that_does_not_pass_ends_the_session(chat: Chat, error: type[Exception]) -> None:
    handlers.Echo.errors.append(error("for good"))
    session = chat.open({}, handlers.Echo)
    chat.until(session, FAILED)

    assert session.job.result.type is error
    assert handlers.Echo.connections == []


def test_an_error_that_may_pass_is_tried_again(chat: Chat) -> None:
    handlers.Echo.errors.extend([OSError("for now"), RuntimeError("for now")])
    session = chat.open({}, handlers.Echo)
    chat.until(session, CONNECTED)

    assert len(handlers.Echo.connections) == 1


def test_a_session_waits_for_a_worker_that_has_its_driver(
    site: Site, db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(register, "RETRY_LATER", timedelta(milliseconds=50))
    chat = Chat(site)
    session = chat.open({}, handlers.Echo)
    driver = handlers.Echo
    monkeypatch.delattr(handlers, "Echo")
    with running(db, poll_interval=0.5):
        site.until(lambda: session.job.begin_after > session.opened_at, "it to be put off")
        site.until(lambda: session.status is SessionStatus.WAITING, "it to wait")
        monkeypatch.setattr(handlers, "Echo", driver, raising=False)
        chat.until(session, CONNECTED)
        chat.close(session)
        chat.until(session, CLOSED)


@pytest.mark.parametrize("tls", [True, False])
def test_a_server_that_does_not_speak_the_protocol_is_given_up_in_time(
    chat: Chat, tls: bool
) -> None:
    login = ["x" * 60_000] * 200  # more than fits into the buffers of a silent server
    with silent_server() as port:
        session = chat.open(
            {
                "host": "127.0.0.1",
                "port": port,
                "tls": tls,
                "connect_timeout": 0.5,
                "login": [] if tls else login,
            }
        )
        chat.site.until(lambda: session.state.error, "the error")
    assert session.state.error == f"127.0.0.1:{port} does not answer within 0.5 s"


def test_a_server_without_tls_is_told(chat: Chat, server: LineServer) -> None:
    server.greeting = b"hello, this is plain text\n"
    session = chat.open({"host": "127.0.0.1", "port": server.port, "tls": True})

    chat.site.until(lambda: "SSLError" in session.state.error, "the error")


def test_without_credential_a_login_is_sent_as_it_is(chat: Chat, server: LineServer) -> None:
    chat.open({"host": "127.0.0.1", "port": server.port, "login": ["USER {user}"]})

    server.wait_until(lambda: server.heard == ["USER {user}"])


def test_the_job_that_holds_a_session_can_be_cancelled(chat: Chat, server: LineServer) -> None:
    session = chat.open(server)
    chat.until(session, CONNECTED)
    server.wait_until(lambda: server.connections)

    assert chat.site.commit(lambda: session.job.cancel("no more")) is True
    chat.until(session, CLOSED)
    server.wait_until(lambda: not server.connections)
    with pytest.raises(SessionClosed):
        session.send("too late")
