# SPDX-License-Identifier: ZPL-2.1
"""What is done to RelStorage's URIs, and which of its errors are told how."""

import importlib.util
import sqlite3
from urllib.parse import parse_qsl, urlsplit

import pytest
from relstorage.options import Options

from zasync.storage import BadConfiguration, StorageUnreachable, open_database
from zasync.storage.relstorage import (
    _postgresql,
    diagnosis,
    lost_the_race,
    prepared,
    resolved,
)


def test_a_sqlite_uri_must_name_its_directory_as_relstorage_wants_it():
    with pytest.raises(BadConfiguration, match=r"sqlite:///.data_dir=DIRECTORY"):
        open_database("sqlite:///var/jobs")


def test_a_postgresql_uri_gets_the_usual_port():
    assert "port=5432" in prepared("postgres://me@host/jobs", 3)


def test_a_port_in_a_postgresql_uri_stands():
    uri = prepared("postgres://me@host:99/jobs", 3)

    assert uri.startswith("postgres://me@host:99/jobs")
    assert "port=" not in uri


@pytest.mark.parametrize("uri", ["postgresql://host/jobs", "postgresql:///jobs"])
def test_a_postgresql_uri_must_name_user_and_host(uri: str):
    with pytest.raises(BadConfiguration, match="postgresql://user@host/database"):
        open_database(uri)


def test_a_port_that_is_no_number_is_refused():
    with pytest.raises(BadConfiguration, match="postgres://me@host:port/jobs"):
        open_database("postgresql://me@host:port/jobs")


def test_connecting_to_postgresql_is_limited_where_the_driver_can_do_so():
    without = "postgres://me@host:1/jobs"
    has_psycopg2 = importlib.util.find_spec("psycopg2") is not None

    assert ("connect_timeout=3" in prepared(without, 3)) is has_psycopg2
    assert ("tcp_user_timeout=30000" in prepared(without, 3)) is has_psycopg2
    assert prepared(f"{without}?driver=pg8000", 3) == f"{without}?driver=pg8000"


def dsn_of(uri: str) -> str:
    parts = urlsplit(uri)
    adapter, rest = _postgresql(parts, dict(parse_qsl(parts.query)))
    assert set(rest) <= {"keep_history", "connection_pool_size"}
    found: str = adapter(Options(keep_history=False))._dsn
    return found


@pytest.mark.parametrize(
    ("uri", "dsn"),
    [
        (
            "postgres://me:p%40ss%27w%5Crd@host:1/my%20jobs",
            r"dbname='my jobs' user='me' password='p@ss\'w\\rd' host='host' port='1'",
        ),
        (
            "postgres:///jobs?host=/run/postgresql&user=me&port=5433",
            "dbname='jobs' host='/run/postgresql' user='me' port='5433'",
        ),
        (
            "postgres://me@host:1/jobs?sslmode=verify-full&sslrootcert=/etc/ca.pem"
            "&keep_history=false",
            "dbname='jobs' user='me' host='host' port='1' sslmode='verify-full'"
            " sslrootcert='/etc/ca.pem'",
        ),
    ],
)
def test_a_postgresql_uri_is_told_to_the_driver_as_it_was_meant(uri: str, dsn: str):
    assert dsn_of(uri) == dsn


def test_options_of_the_database_are_read_as_zodburi_reads_them():
    uri = "postgres://me@host:1/jobs?keep_history=0&connection_pool_size=3&database_name=jobs"

    _, options = resolved(uri)

    assert (options["pool_size"], options["database_name"]) == (3, "jobs")


@pytest.mark.parametrize("scheme", ["postgresql://me@host/jobs", "sqlite:///?data_dir=x"])
def test_an_option_that_nobody_knows_is_named(scheme: str):
    uri = f"{scheme}{'&' if '?' in scheme else '?'}no_such=1"

    with pytest.raises(BadConfiguration, match=r"does not know: no_such$"):
        open_database(uri)


def test_sqlite_can_be_made_fast_and_forgetful_only_by_a_known_word():
    with pytest.raises(BadConfiguration, match="synchronous=no is not one of off, normal, full"):
        open_database("sqlite:///?data_dir=x&synchronous=no")


def test_a_missing_driver_is_told_with_the_extra_to_install_and_without_the_password():
    with pytest.raises(BadConfiguration, match=r"pip install 'zasync\[relstorage\]'") as caught:
        open_database("mysql://me:secret@localhost/jobs")

    assert "mysql://me:***@localhost/jobs" in str(caught.value)


def test_a_bad_value_of_an_option_is_told():
    with pytest.raises(BadConfiguration, match=r"keep_history=perhaps.*boolean"):
        open_database("sqlite:///?data_dir=x&keep_history=perhaps")


def test_an_error_of_a_driver_that_cannot_connect_is_an_unreachable_server():
    # The names are those of psycopg2, which need not be installed here.
    kind = type("OperationalError", (Exception,), {"__module__": "psycopg2"})
    error = kind("connection to server failed: Connection refused\n\tIs it running?\n")

    found = diagnosis(error, "postgres://me@host/jobs", "postgres")

    assert isinstance(found, StorageUnreachable)
    assert str(found) == (
        "the server of postgres://me@host/jobs cannot be used: "
        "connection to server failed: Connection refused"
    )


def test_an_error_of_another_kind_is_nothing_of_relstorage():
    assert diagnosis(RuntimeError("no"), "memory://", "memory") is None
    assert diagnosis(OSError("disk full"), "file://Data.fs", "file") is None


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (sqlite3.IntegrityError("duplicate key"), True),
        (sqlite3.OperationalError("table object_state already exists"), True),
        (sqlite3.OperationalError("unable to open database file"), False),
        (ValueError("it already exists"), False),
    ],
)
def test_a_race_for_the_first_tables_is_known_by_its_words(error: Exception, lost: bool):
    assert lost_the_race(error) is lost
