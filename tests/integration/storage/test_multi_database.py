# SPDX-License-Identifier: ZPL-2.1
"""A ZConfig file with two FileStorages is one multi-database, opened and closed as a whole."""

from datetime import timedelta
from pathlib import Path

import pytest
from persistent.mapping import PersistentMapping

from tests.support.databases import HOLD, make_newer
from tests.support.processes import other_process
from tests.support.zeo import ZeoServer
from zasync.storage import (
    BadConfiguration,
    NewerDatabase,
    StorageError,
    StorageLocked,
    StorageUnreachable,
    close_database,
    open_database,
)

TWO = """\
<zodb main>
  <filestorage>
    path {directory}/main.fs
  </filestorage>
</zodb>
<zodb>
  database-name Async
  pool-size 9
  <filestorage>
    path {directory}/async.fs
  </filestorage>
</zodb>
"""
CLIENT = """\
%import ZEO
<zodb main>
  <{kind}>
    server {address}
  </{kind}>
</zodb>
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "zasync.conf"
    path.write_text(TWO.format(directory=tmp_path))
    return path


def test_the_first_section_is_the_answer_and_the_others_are_beside_it(config: Path):
    db = open_database(f"zconfig://{config}")
    try:
        assert db.database_name == "main"
        assert set(db.databases) == {"main", "Async"}
        assert db.databases["Async"].databases is db.databases
        assert db.databases["Async"].getPoolSize() == 9
    finally:
        close_database(db)


@pytest.mark.parametrize("name", ["Async", "main"])
def test_a_section_can_be_chosen_by_name(config: Path, name: str):
    by_fragment = open_database(f"zconfig://{config}#{name}")
    close_database(by_fragment)
    by_argument = open_database(f"zconfig://{config}", database_name=name)
    close_database(by_argument)

    assert by_fragment.database_name == by_argument.database_name == name


def test_a_section_name_is_found_in_spite_of_capitals(config: Path):
    db = open_database(f"zconfig://{config}#MAIN")
    close_database(db)

    assert db.database_name == "main"


def test_an_object_of_one_database_can_refer_to_one_of_the_other(config: Path):
    db = open_database(f"zconfig://{config}")
    with db.transaction() as connection:
        other = connection.get_connection("Async")
        other.root()["mounted"] = PersistentMapping()
        other.add(other.root()["mounted"])
        connection.root()["mounted"] = other.root()["mounted"]
    close_database(db)

    db = open_database(f"zconfig://{config}#Async")
    with db.databases["main"].transaction() as connection:
        assert connection.root()["mounted"]._p_jar.db() is db
    close_database(db)


def test_a_reference_to_a_database_that_is_not_open_is_told(config: Path, tmp_path: Path):
    db = open_database(f"zconfig://{config}")
    with db.transaction() as connection:
        other = connection.get_connection("Async")
        other.root()["mounted"] = PersistentMapping()
        other.add(other.root()["mounted"])
        connection.root()["mounted"] = other.root()["mounted"]
    close_database(db)

    with pytest.raises(BadConfiguration, match="'main' refers to database 'Async'"):
        open_database(f"{tmp_path}/main.fs", database_name="main")

    jobs = open_database(f"{tmp_path}/async.fs", database_name="Async")
    open_database(f"{tmp_path}/main.fs", database_name="main", databases=jobs.databases)
    close_database(jobs)


def test_the_pool_size_holds_for_all(config: Path):
    db = open_database(f"zconfig://{config}", pool_size=30)
    try:
        assert {each.getPoolSize() for each in db.databases.values()} == {30}
    finally:
        close_database(db)


def test_closing_any_of_them_closes_all(config: Path, tmp_path: Path):
    close_database(open_database(f"zconfig://{config}#Async"))

    close_database(open_database(f"{tmp_path}/main.fs"))
    close_database(open_database(f"{tmp_path}/async.fs"))


def test_if_the_second_cannot_be_opened_the_first_is_closed_again(config: Path, tmp_path: Path):
    with other_process(HOLD, f"{tmp_path}/async.fs") as other:
        assert other.line() == "open"
        with pytest.raises(StorageLocked, match=rf"async\.fs is open in process {other.pid}"):
            open_database(f"zconfig://{config}")

    close_database(open_database(f"{tmp_path}/main.fs"))


def test_queues_of_a_newer_zasync_are_found_in_either(config: Path, tmp_path: Path):
    db = open_database(f"{tmp_path}/async.fs")
    make_newer(db)
    close_database(db)

    with pytest.raises(NewerDatabase, match="'Async' has schema 2"):
        open_database(f"zconfig://{config}#main")


def test_a_read_only_neighbour_is_no_hindrance(config: Path, tmp_path: Path):
    close_database(open_database(f"zconfig://{config}"))
    text = config.read_text()
    config.write_text(text.replace("async.fs", "async.fs\n    read-only true"))

    close_database(open_database(f"zconfig://{config}#main"))
    with pytest.raises(StorageError, match=f"<zodb Async> of {config} is read-only"):
        open_database(f"zconfig://{config}#Async")


def test_an_error_names_the_section_and_the_file(config: Path, tmp_path: Path):
    (tmp_path / "async.fs").write_text("this is no database")

    with pytest.raises(StorageError, match=f"<zodb Async> of {config} is not a FileStorage"):
        open_database(f"zconfig://{config}")


@pytest.mark.zeo
@pytest.mark.parametrize("kind", ["zeoclient", "clientstorage"])
def test_a_section_can_name_a_zeo_server(tmp_path: Path, zeo_server: ZeoServer, kind: str):
    path = tmp_path / "client.conf"
    path.write_text(CLIENT.format(kind=kind, address=zeo_server.address))

    db = open_database(f"zconfig://{path}")
    try:
        assert db.storage.is_connected()
    finally:
        close_database(db)


@pytest.mark.zeo
@pytest.mark.parametrize("kind", ["zeoclient", "clientstorage"])
def test_a_server_that_does_not_answer_is_told_in_time(tmp_path: Path, kind: str):
    path = tmp_path / "client.conf"
    path.write_text(CLIENT.format(kind=kind, address=f"{tmp_path}/zeo.sock"))

    with pytest.raises(StorageUnreachable) as caught:
        open_database(f"zconfig://{path}", wait=timedelta(seconds=1))

    assert f"no ZEO server answered at {tmp_path}/zeo.sock" in str(caught.value)
    assert f"<zodb main> of {path}" in str(caught.value)
