# SPDX-License-Identifier: ZPL-2.1
"""What is done to RelStorage's URIs, and which of its errors are told how."""

import importlib.util
import sqlite3

import pytest

from zasync.storage import BadConfiguration, StorageUnreachable, open_database
from zasync.storage.relstorage import diagnosis, lost_the_race, prepared


def test_a_sqlite_uri_must_name_its_directory_as_relstorage_wants_it():
    with pytest.raises(BadConfiguration, match=r"sqlite:///.data_dir=DIRECTORY"):
        open_database("sqlite:///var/jobs")


def test_a_postgresql_uri_gets_the_usual_port():
    assert prepared("postgres://me@host/jobs", 3).startswith("postgres://me@host:5432/jobs")


def test_a_port_in_a_postgresql_uri_stands():
    assert prepared("postgres://me@host:99/jobs", 3).startswith("postgres://me@host:99/jobs")


@pytest.mark.parametrize("uri", ["postgresql://host/jobs", "postgresql:///jobs"])
def test_a_postgresql_uri_must_name_user_and_host(uri: str):
    with pytest.raises(BadConfiguration, match="postgresql://user@host/database"):
        open_database(uri)


def test_a_port_that_is_no_number_is_refused():
    with pytest.raises(BadConfiguration, match="postgres://me@host:port/jobs"):
        open_database("postgresql://me@host:port/jobs")


def test_connecting_to_postgresql_is_limited_where_the_driver_can_do_so():
    with_limit = "postgres://me@host:1/jobs?connect_timeout=3"
    without = "postgres://me@host:1/jobs"
    has_psycopg2 = importlib.util.find_spec("psycopg2") is not None

    assert prepared(without, 3) == (with_limit if has_psycopg2 else without)
    assert prepared(f"{without}?driver=pg8000", 3) == f"{without}?driver=pg8000"


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
