# SPDX-License-Identifier: ZPL-2.1
"""Databases without a file: in memory, and in memory above another."""

from pathlib import Path

import pytest

from zasync.storage import BadConfiguration, UnknownScheme, close_database, open_database


def test_a_database_can_lie_in_memory():
    db = open_database("memory://jobs?database_name=async")
    try:
        assert db.database_name == "async"
        with db.transaction() as connection:
            connection.root()["kept"] = 1
    finally:
        close_database(db)


def test_changes_can_lie_in_memory_above_a_file(tmp_path: Path):
    close_database(open_database(f"{tmp_path}/Data.fs"))
    size = (tmp_path / "Data.fs").stat().st_size

    db = open_database(f"demo:(file://{tmp_path}/Data.fs)/(memory://)")
    with db.transaction() as connection:
        connection.root()["forgotten"] = 1
    close_database(db)

    assert (tmp_path / "Data.fs").stat().st_size == size


def test_a_malformed_demo_uri_is_refused():
    with pytest.raises(BadConfiguration, match=r"demo:.file://Data.fs"):
        open_database("demo:(file://Data.fs")


def test_an_unknown_scheme_inside_a_demo_uri_is_refused():
    with pytest.raises(UnknownScheme, match="redis://localhost"):
        open_database("demo:(redis://localhost)/(memory://)")
