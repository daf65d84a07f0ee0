# SPDX-License-Identifier: ZPL-2.1
"""RelStorage over a real PostgreSQL: opening by URI and ZConfig, and failing clearly."""

import threading
import time
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
import ZODB

from tests.support.postgres import USER, PostgresServer
from zasync.storage import (
    BadConfiguration,
    StorageError,
    StorageUnreachable,
    close_database,
    open_database,
)

pytestmark = pytest.mark.postgres
ZCONFIG = """\
%import relstorage
<zodb jobs>
  <relstorage>
    keep-history {keep_history}
    <postgresql>
      dsn {dsn}
    </postgresql>
  </relstorage>
</zodb>
"""


@pytest.fixture
def name(postgres_server: PostgresServer) -> str:
    """The name of a new database."""
    return postgres_server.create_database()


def kept_after_reopening(uri: str) -> bool:
    db = open_database(uri)
    with db.transaction() as connection:
        connection.root()["kept"] = 1
    close_database(db)
    db = open_database(uri)
    try:
        with db.transaction() as connection:
            return bool(connection.root()["kept"] == 1)
    finally:
        close_database(db)


@pytest.mark.parametrize("keep_history", ["true", "false"])
def test_a_database_is_made_and_opened_by_uri(
    postgres_server: PostgresServer, name: str, keep_history: str
):
    assert kept_after_reopening(postgres_server.uri(name, keep_history=keep_history))


@pytest.mark.parametrize("keep_history", ["true", "false"])
def test_a_database_can_be_named_in_a_zconfig_file(
    postgres_server: PostgresServer, name: str, keep_history: str, tmp_path: Path
):
    config = tmp_path / "zasync.conf"
    config.write_text(ZCONFIG.format(keep_history=keep_history, dsn=postgres_server.dsn(name)))

    assert kept_after_reopening(f"zconfig://{config}#jobs")


def test_a_unix_socket_will_do(postgres_server: PostgresServer, name: str):
    place = f"host={postgres_server.directory}&port={postgres_server.port}"

    assert kept_after_reopening(f"postgresql:///{name}?{place}&user={USER}")


def test_a_password_may_contain_anything(postgres_server: PostgresServer, name: str):
    password = "a b'c\\d@/:?#%e"
    quoted = password.replace("'", "''")
    postgres_server.execute(f"CREATE USER odd_{name} PASSWORD '{quoted}'")
    postgres_server.execute(f"ALTER DATABASE {name} OWNER TO odd_{name}")
    place = f"127.0.0.1:{postgres_server.port}/{name}"

    assert kept_after_reopening(f"postgresql://odd_{name}:{quote(password, safe='')}@{place}")


def refused(uri: str, error: type[StorageError]) -> str:
    begin = time.monotonic()
    with pytest.raises(error) as caught:
        open_database(uri, wait=timedelta(seconds=2))
    assert time.monotonic() - begin < 15
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_wrong_password_is_told_without_the_password(postgres_server: PostgresServer, name: str):
    uri = postgres_server.uri(name).replace(quote(postgres_server.password), "sesame")

    message = refused(uri, BadConfiguration)

    assert f'password authentication failed for user "{USER}"' in message
    assert f"postgres://{USER}:***@127.0.0.1" in message
    assert "sesame" not in message


def test_a_database_that_is_missing_is_named(postgres_server: PostgresServer):
    message = refused(postgres_server.uri("no_such"), BadConfiguration)

    assert 'database "no_such" does not exist' in message


def test_a_server_that_is_away_is_named(postgres_server: PostgresServer, name: str):
    uri = postgres_server.uri(name)
    postgres_server.stop()

    assert "Connection refused" in refused(uri, StorageUnreachable)


def test_a_server_that_is_frozen_is_given_up_in_time(postgres_server: PostgresServer, name: str):
    uri = postgres_server.uri(name)
    postgres_server.freeze()
    try:
        assert "cannot be used" in refused(uri, StorageUnreachable)
    finally:
        postgres_server.thaw()


def test_an_option_that_only_the_server_could_know_is_refused(
    postgres_server: PostgresServer, name: str
):
    message = refused(postgres_server.uri(name, sslmode="perhaps"), StorageError)

    assert "sslmode" in message


def test_those_who_come_first_to_a_new_database_at_once_all_get_it(
    postgres_server: PostgresServer, name: str
):
    uri = postgres_server.uri(name, keep_history="false")
    barrier = threading.Barrier(4)
    opened: list[ZODB.DB] = []

    def come() -> None:
        barrier.wait(20)
        opened.append(open_database(uri))

    threads = [threading.Thread(target=come) for _ in range(barrier.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(opened) == barrier.parties
    for db in opened:
        close_database(db)
    assert kept_after_reopening(uri)


def test_a_database_with_history_is_not_opened_as_one_without(
    postgres_server: PostgresServer, name: str
):
    close_database(open_database(postgres_server.uri(name, keep_history="true")))

    message = refused(postgres_server.uri(name, keep_history="false"), StorageError)

    assert "history" in message


def test_a_client_stays_open_while_its_server_is_killed_and_comes_back(
    postgres_server: PostgresServer, name: str
):
    db = open_database(postgres_server.uri(name))
    with db.transaction() as connection:
        connection.root()["kept"] = 1

    postgres_server.kill()
    postgres_server.start()

    with db.transaction() as connection:
        assert connection.root()["kept"] == 1
        connection.root()["kept"] = 2
    close_database(db)
