# SPDX-License-Identifier: ZPL-2.1
"""RelStorage over SQLite: opening, failing, and coming first together."""

import logging
import threading
from pathlib import Path

import pytest
import transaction
import ZODB
from persistent.mapping import PersistentMapping
from ZODB.POSException import ReadConflictError

from tests.support.processes import run_without
from zasync.storage import StorageError, close_database, open_database
from zasync.storage.relstorage import alone_in

ZCONFIG = """\
%import relstorage
<zodb jobs>
  <relstorage>
    <sqlite3>
      data-dir {directory}
    </sqlite3>
  </relstorage>
</zodb>
"""


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


def test_a_sqlite_database_is_made_and_opened(tmp_path: Path):
    assert kept_after_reopening(f"sqlite:///?data_dir={tmp_path}/jobs")


def test_a_sqlite_database_can_be_named_in_a_zconfig_file(tmp_path: Path):
    config = tmp_path / "zasync.conf"
    config.write_text(ZCONFIG.format(directory=tmp_path / "jobs"))

    assert kept_after_reopening(f"zconfig://{config}#jobs")


def test_a_file_in_place_of_the_directory_is_named(tmp_path: Path):
    (tmp_path / "jobs").write_text("")

    with pytest.raises(StorageError, match=f"{tmp_path}/jobs"):
        open_database(f"sqlite:///?data_dir={tmp_path}/jobs")


def test_a_sqlite_file_that_is_none_is_told(tmp_path: Path):
    (tmp_path / "main.sqlite3").write_text("this is no database, but long enough for one" * 9)

    with pytest.raises(StorageError, match=f"cannot open sqlite:///.data_dir={tmp_path}: file is"):
        open_database(f"sqlite:///?data_dir={tmp_path}")


@pytest.mark.parametrize(
    ("setting", "warned"), [("off", True), ("normal", True), ("full", False), ("", False)]
)
def test_a_setting_that_forgets_commits_at_a_loss_of_power_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, setting: str, warned: bool
):
    uri = f"sqlite:///?data_dir={tmp_path}/jobs"
    with caplog.at_level(logging.WARNING, "zasync.events"):
        close_database(open_database(f"{uri}&synchronous={setting}" if setting else uri))

    assert ("a loss of power can undo commits" in caplog.text) is warned


@pytest.mark.parametrize(("setting", "warned"), [("", True), ("off", True), ("full", False)])
def test_a_setting_of_a_zconfig_file_is_looked_at_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, setting: str, warned: bool
):
    pragmas = f"<pragmas>\nsynchronous {setting}\n</pragmas>\n" if setting else ""
    text = ZCONFIG.format(directory=tmp_path / "jobs")
    config = tmp_path / "zasync.conf"
    config.write_text(text.replace("    </sqlite3>", f"{pragmas}    </sqlite3>"))

    with caplog.at_level(logging.WARNING, "zasync.events"):
        close_database(open_database(f"zconfig://{config}"))

    assert ("a loss of power can undo commits" in caplog.text) is warned


@pytest.mark.parametrize(("setting", "number"), [("", 2), ("off", 0)])
def test_sqlite_works_as_it_was_set(tmp_path: Path, setting: str, number: int):
    uri = f"sqlite:///?data_dir={tmp_path}/jobs"
    db = open_database(f"{uri}&synchronous={setting}" if setting else uri)
    try:
        connection, cursor = db.storage._adapter.connmanager.open_for_store()
        cursor.execute("PRAGMA synchronous")
        assert cursor.fetchone()[0] == number
        connection.close()
    finally:
        close_database(db)


@pytest.mark.parametrize("kind", ["uri", "zconfig"])
def test_those_who_come_first_to_a_new_database_at_once_all_get_it(tmp_path: Path, kind: str):
    uri = f"sqlite:///?data_dir={tmp_path}/jobs"
    if kind == "zconfig":
        config = tmp_path / "zasync.conf"
        config.write_text(ZCONFIG.format(directory=tmp_path / "jobs"))
        uri = f"zconfig://{config}"
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


def test_waiting_for_others_who_open_has_a_limit(tmp_path: Path):
    with alone_in(tmp_path, 1), pytest.raises(Exception, match="locked"), alone_in(tmp_path, 0):
        pytest.fail("two were alone at once")


def test_without_relstorage_its_schemes_name_the_extra_to_install(tmp_path: Path):
    program = """\
from zasync.storage import UnknownScheme, open_database
for uri in ("sqlite:///?data_dir=x", "postgresql://me@host/jobs", "redis://host"):
    try:
        open_database(uri)
    except UnknownScheme as error:
        print(error)
"""
    sqlite, postgresql, unknown = run_without(
        "relstorage", program, tmp_path / "packages"
    ).splitlines()

    assert "sqlite:// needs RelStorage" in sqlite
    assert "pip install 'zasync[relstorage]'" in sqlite
    assert "pip install 'zasync[postgresql]'" in postgresql
    assert "known are demo, file, memory, zconfig, zeo" in unknown


@pytest.mark.parametrize("keep_history", ["true", "false"])
def test_what_a_read_conflict_has_aborted_does_not_come_back_with_the_next_commit(
    tmp_path: Path, keep_history: str
) -> None:
    uri = f"sqlite:///?data_dir={tmp_path}/jobs&keep_history={keep_history}"
    databases = [open_database(uri), open_database(uri)]
    managers = [transaction.TransactionManager() for _ in databases]
    mine, theirs = (
        db.open(transaction_manager=manager)
        for db, manager in zip(databases, managers, strict=True)
    )
    mine.root()["read"], mine.root()["written"] = PersistentMapping(), PersistentMapping()
    managers[0].commit()
    for manager in managers:
        manager.begin()
    mine.root()["written"]["by"] = "an aborted transaction"
    mine.readCurrent(mine.root()["read"])
    theirs.root()["read"]["changed"] = True
    managers[1].commit()
    with pytest.raises(ReadConflictError):
        managers[0].commit()
    managers[0].abort()

    mine.root()["something else"] = True
    managers[0].commit()

    managers[1].begin()
    assert dict(theirs.root()["written"]) == {}
    for connection, manager, db in zip((mine, theirs), managers, databases, strict=True):
        manager.abort()
        connection.close()
        close_database(db)
