# SPDX-License-Identifier: ZPL-2.1
"""Opening a FileStorage, and every way in which that can fail."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import transaction
import ZODB

from tests.support.databases import HOLD, make_newer
from tests.support.processes import other_process
from zasync.storage import (
    BadConfiguration,
    NewerDatabase,
    StorageError,
    StorageLocked,
    close_database,
    open_database,
)


class Stubborn:
    """Takes part in a transaction, and cannot leave it."""

    def sortKey(self) -> str:
        return "stubborn"

    def abort(self, _transaction: object) -> None:
        raise ZeroDivisionError


def message_of(uri: str, kind: type[StorageError] = StorageError, **options: bool) -> str:
    with pytest.raises(kind) as caught:
        open_database(uri, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def opens(uri: str, **options: bool) -> bool:
    close_database(open_database(uri, **options))
    return True


@contextmanager
def as_an_unprivileged_user() -> Iterator[None]:
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_plain_path_opens_a_file_storage_and_makes_it_first(tmp_path: Path):
    path = tmp_path / "Data.fs"

    db = open_database(str(path))
    with db.transaction() as connection:
        connection.root()["kept"] = 1
    close_database(db)

    db = open_database(f"file://{path}")
    with db.transaction() as connection:
        assert connection.root()["kept"] == 1
    close_database(db)


def test_a_relative_path_is_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)

    assert opens("Data.fs")
    assert (tmp_path / "Data.fs").exists()


def test_a_path_may_have_blanks_and_percent_signs(tmp_path: Path):
    assert opens(str(tmp_path / "my data 100%.fs"))
    assert (tmp_path / "my data 100%.fs").exists()


def test_a_uri_may_carry_options_of_storage_and_database(tmp_path: Path):
    uri = f"{tmp_path}/Data.fs?blob_dir={tmp_path}/blobs&database_name=jobs"

    db = open_database(f"{uri}&connection_pool_size=3")
    try:
        assert db.database_name == "jobs"
        assert db.getPoolSize() == 3
        assert (tmp_path / "blobs").is_dir()
    finally:
        close_database(db)


def test_arguments_rule_over_the_options_in_the_uri(tmp_path: Path):
    uri = f"{tmp_path}/Data.fs?database_name=jobs&connection_pool_size=3"

    db = open_database(uri, database_name="async", pool_size=20)
    try:
        assert db.database_name == "async"
        assert db.getPoolSize() == 20
    finally:
        close_database(db)


def test_two_files_can_be_opened_as_one_multi_database(tmp_path: Path):
    main = open_database(f"{tmp_path}/main.fs", database_name="main")
    jobs = open_database(f"{tmp_path}/async.fs", database_name="async", databases=main.databases)
    with main.transaction() as connection:
        assert connection.get_connection("async").db() is jobs

    close_database(main)

    assert opens(f"{tmp_path}/main.fs")
    assert opens(f"{tmp_path}/async.fs")


def test_two_databases_of_one_name_are_refused_and_the_first_stays(tmp_path: Path):
    main = open_database(f"{tmp_path}/main.fs", database_name="main")
    try:
        with pytest.raises(BadConfiguration, match=r"async\.fs with another database_name"):
            open_database(f"{tmp_path}/async.fs", database_name="main", databases=main.databases)
        assert main.databases == {"main": main}
    finally:
        close_database(main)


def test_closing_twice_is_harmless(tmp_path: Path):
    db = open_database(f"{tmp_path}/Data.fs")

    close_database(db)
    close_database(db)


def test_closing_goes_on_with_the_others_when_one_cannot_be_closed(tmp_path: Path):
    main = open_database(f"{tmp_path}/main.fs", database_name="main")
    jobs = open_database(f"{tmp_path}/async.fs", database_name="async", databases=main.databases)
    transactions = transaction.TransactionManager()
    jobs.open(transactions)
    transactions.get().join(Stubborn())

    with pytest.raises(ZeroDivisionError):
        close_database(main)

    assert opens(f"{tmp_path}/main.fs")


def test_a_file_that_another_process_has_open_is_told_with_that_process(tmp_path: Path):
    path = tmp_path / "Data.fs"
    with other_process(HOLD, str(path)) as other:
        assert other.line() == "open"

        with pytest.raises(StorageLocked) as caught:
            open_database(str(path))

    message = str(caught.value)
    assert message.startswith(f"{path} is open in process {other.pid}")
    assert "zasync worker --processes" in message
    assert "runzeo" in message
    assert (caught.value.path, caught.value.pid) == (path, other.pid)
    assert opens(str(path)), "once the other has ended"


def test_a_file_that_this_process_has_open_is_told_as_such(tmp_path: Path):
    db = open_database(f"{tmp_path}/Data.fs")
    try:
        assert f"this very process ({os.getpid()})" in message_of(
            f"{tmp_path}/Data.fs", StorageLocked
        )
    finally:
        close_database(db)


def test_a_lock_file_that_tells_no_process_is_still_a_lock(tmp_path: Path):
    path = tmp_path / "Data.fs"
    with other_process(HOLD, str(path)) as other:
        assert other.line() == "open"
        (tmp_path / "Data.fs.lock").write_text("")

        with pytest.raises(StorageLocked, match=f"{path} is open in another process") as caught:
            open_database(str(path))

    assert caught.value.pid is None


def test_a_missing_directory_is_named(tmp_path: Path):
    message = message_of(f"{tmp_path}/no/Data.fs")

    assert f"directory {tmp_path}/no does not exist" in message


def test_a_directory_is_no_database(tmp_path: Path):
    (tmp_path / "jobs").mkdir()

    message = message_of(f"{tmp_path}/jobs")

    assert message == f"{tmp_path}/jobs is a directory: name a file in it, such as {tmp_path}/" + (
        "jobs/Data.fs"
    )


def test_a_file_that_this_user_may_not_write_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert opens(f"{tmp_path}/Data.fs")
    # The other user may have no access to the installation, so look up what it has beforehand.
    resolvers = entry_points(group="zodburi.resolvers")
    for resolver in resolvers:
        resolver.load()
    for module in ("zasync.storage.uri", "zodburi"):
        monkeypatch.setattr(f"{module}.entry_points", lambda **group: resolvers)
    for path in tmp_path.iterdir():
        path.chmod(0o444)

    with as_an_unprivileged_user():
        message = message_of(f"{tmp_path}/Data.fs")

    assert f"{tmp_path}/Data.fs" in message
    assert "Permission denied" in message


def test_a_file_that_is_no_file_storage_is_named_kept_and_not_locked(tmp_path: Path):
    path = tmp_path / "notes.txt"
    path.write_text("these are notes and no database")

    with pytest.raises(StorageError, match=rf"{path} is not a FileStorage"):
        open_database(str(path))

    assert path.read_text() == "these are notes and no database"
    path.unlink()
    assert opens(str(path)), "at once, so the failure left no lock"


def test_the_failure_holds_no_lock_while_somebody_keeps_its_exception(tmp_path: Path):
    path = tmp_path / "Data.fs"
    path.write_text("this is no database")

    with pytest.raises(StorageError) as caught:
        open_database(str(path))

    path.unlink()
    assert opens(str(path))
    assert caught.value.__cause__ is not None


def test_a_damaged_file_is_told_with_what_repairs_it(tmp_path: Path):
    path = tmp_path / "Data.fs"
    for number in range(3):
        db = open_database(str(path))
        with db.transaction() as connection:
            connection.root()["number"] = number
        close_database(db)
    (tmp_path / "Data.fs.index").unlink()
    with path.open("r+b") as file:
        file.seek(12)  # the length of the first transaction
        file.write(b"\0" * 7 + b"\1")

    message = message_of(str(path))

    assert f"{path} is damaged" in message
    assert "fsrecover" in message


def test_a_read_only_storage_is_refused_unless_nothing_shall_be_written(tmp_path: Path):
    assert opens(f"{tmp_path}/Data.fs")
    uri = f"{tmp_path}/Data.fs?read_only=1"

    assert f"{uri} is read-only" in message_of(uri, BadConfiguration)
    assert opens(uri, writable=False)


def test_a_read_only_storage_can_be_looked_at_while_another_process_writes(tmp_path: Path):
    path = tmp_path / "Data.fs"
    assert opens(str(path))
    with other_process(HOLD, str(path)) as other:
        assert other.line() == "open"

        assert opens(f"{path}?read_only=1", writable=False)


def test_a_read_only_storage_of_a_missing_file_is_told(tmp_path: Path):
    message = message_of(f"{tmp_path}/Data.fs?read_only=1", writable=False)

    assert f"there is no file {tmp_path}/Data.fs" in message


def test_a_file_is_not_made_if_it_shall_exist(tmp_path: Path):
    message = message_of(f"{tmp_path}/Dta.fs", create=False)

    assert f"there is no database {tmp_path}/Dta.fs" in message
    assert list(tmp_path.iterdir()) == []


def test_the_option_that_would_erase_a_database_is_refused(tmp_path: Path):
    path = tmp_path / "Data.fs"
    assert opens(f"{path}?create=1"), "a new one"
    size = path.stat().st_size

    assert f"would erase the database {path}" in message_of(f"{path}?create=1", BadConfiguration)
    assert path.stat().st_size == size
    assert opens(f"{path}?create=no")


@pytest.mark.parametrize("option", ["no_such", "wait_timeout"])
def test_an_unknown_option_is_named(tmp_path: Path, option: str):
    message = message_of(f"{tmp_path}/Data.fs?{option}=1", BadConfiguration)

    assert message.endswith(f"an option that this storage does not know: {option}")


def test_an_option_with_a_bad_value_is_told(tmp_path: Path):
    uri = f"{tmp_path}/Data.fs?connection_pool_size=many"

    assert "'many'" in message_of(uri, BadConfiguration)


def test_the_database_of_a_newer_zasync_is_refused_and_left_closed(tmp_path: Path):
    path = f"{tmp_path}/Data.fs"
    db = open_database(path)
    make_newer(db)
    close_database(db)
    databases: dict[str, ZODB.DB] = {}

    with pytest.raises(NewerDatabase, match="schema 2"):
        open_database(path, databases=databases)

    assert databases == {}
    assert opens(path, allow_newer=True)
