# SPDX-License-Identifier: ZPL-2.1
"""FaultyStorage over real storages: what it lets through, and what it makes go wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ZODB
from persistent.mapping import PersistentMapping
from ZEO.ClientStorage import ClientStorage
from ZEO.Exceptions import ClientDisconnected
from ZODB.blob import Blob
from ZODB.DemoStorage import DemoStorage
from ZODB.FileStorage import FileStorage
from ZODB.interfaces import IBlobStorage, IMVCCStorage, IStorageUndoable
from ZODB.MappingStorage import MappingStorage
from ZODB.POSException import ConflictError

from tests.support.queues import View
from tests.support.zeo import ZeoServer
from zasync.testing.faults import FaultyStorage, Killed, Point


def over_zeo(path: Path) -> Iterator[Any]:
    with ZeoServer(str(path / "Data.fs")) as server:
        yield ClientStorage(server.address, wait_timeout=10)


def over_relstorage(path: Path) -> Iterator[Any]:
    relstorage = pytest.importorskip("relstorage.storage")
    sqlite = pytest.importorskip("relstorage.adapters.sqlite.adapter")
    options = pytest.importorskip("relstorage.options").Options(keep_history=True)
    adapter = sqlite.Sqlite3Adapter(str(path / "sql"), pragmas={}, options=options)
    yield relstorage.RelStorage(adapter, options=options)


STORAGES: dict[str, Callable[[Path], Any]] = {
    "memory": lambda path: iter([DemoStorage()]),
    "mapping": lambda path: iter([MappingStorage()]),
    "file": lambda path: iter([FileStorage(str(path / "Data.fs"), blob_dir=str(path / "blobs"))]),
    "zeo": over_zeo,
    "relstorage": over_relstorage,
}


@pytest.fixture(
    params=[
        pytest.param(make, id=name, marks=[pytest.mark.zeo] if name == "zeo" else [])
        for name, make in STORAGES.items()
    ]
)
def faulty(request: Any, tmp_path: Path) -> Iterator[FaultyStorage]:
    """A faulty storage over each kind of storage."""
    made = request.param(tmp_path)
    yield FaultyStorage(next(made))
    next(made, None)


@pytest.fixture
def memory() -> FaultyStorage:
    return FaultyStorage()


@pytest.fixture
def open_view() -> Iterator[Callable[[FaultyStorage], View]]:
    """Opens a database on a storage, with one connection, and closes both in the end."""
    opened: list[View] = []

    def open_on(storage: FaultyStorage) -> View:
        opened.append(View(ZODB.DB(storage)))
        return opened[-1]

    yield open_on
    for view in reversed(opened):
        view.connection.db().storage.revive()
        view.close()
        view.connection.db().close()


def stored(view: View, **items: Any) -> None:
    view.root.update(items)
    view.commit()


def test_a_database_works_as_on_the_storage_itself(faulty: FaultyStorage, open_view: Any) -> None:
    view = open_view(faulty)
    before = faulty.commits
    stored(view, number=1)
    other = View(view.connection.db())
    assert other.root["number"] == 1
    stored(other, number=2)
    view.begin()
    assert view.root["number"] == 2
    assert faulty.commits == before + 2
    assert len(faulty) == len(faulty.storage)
    view.root["number"] = 3
    stored(other, number=4)
    with pytest.raises(ConflictError):
        view.commit()
    view.abort()
    other.close()


def test_what_the_storage_can_do_can_be_done(tmp_path: Path, open_view: Any) -> None:
    file = FileStorage(str(tmp_path / "Data.fs"), blob_dir=str(tmp_path / "blobs"))
    view = open_view(FaultyStorage(file))
    db = view.connection.db()
    assert IMVCCStorage.providedBy(db.storage)
    assert IBlobStorage.providedBy(db.storage)
    assert IStorageUndoable.providedBy(db.storage)

    stored(view, blob=Blob(b"bytes"))
    stored(view, number=1)
    with view.root["blob"].open() as opened:
        assert opened.read() == b"bytes"
    db.undo(db.undoInfo(0, 1)[0]["id"], view.manager.begin())
    view.commit()
    view.begin()
    assert "number" not in view.root
    db.pack()


@pytest.mark.parametrize("point", [each for each in Point if each is not Point.AFTER_FINISH])
def test_an_error_is_raised_at_each_point_and_nothing_is_committed(
    faulty: FaultyStorage, open_view: Any, point: Point
) -> None:
    view = open_view(faulty)
    stored(view, number=1)
    view.connection.cacheMinimize()
    fault = faulty.fail(point, OSError("no space left on device"))
    before = faulty.commits
    with pytest.raises(OSError, match="no space left"):
        stored(view, number=2)
    view.abort()
    assert (fault.met, fault.times, faulty.commits) == (1, 0, before)
    assert view.root["number"] == 1
    stored(view, number=3)


def test_a_commit_whose_reply_is_lost_has_taken_effect(
    faulty: FaultyStorage, open_view: Any
) -> None:
    view = open_view(faulty)
    faulty.lose_reply()
    with pytest.raises(ClientDisconnected):
        stored(view, number=1)
    view.abort()
    view.begin()
    assert view.root["number"] == 1


def test_a_vote_whose_reply_is_lost_has_no_effect_and_holds_no_lock(
    faulty: FaultyStorage, open_view: Any
) -> None:
    view = open_view(faulty)
    faulty.lose_reply(Point.VOTE)
    with pytest.raises(ClientDisconnected):
        stored(view, number=1)
    view.abort()
    assert "number" not in view.root
    stored(view, number=2)


@pytest.mark.parametrize("point", Point)
def test_a_process_that_is_killed_does_nothing_more_and_holds_nobody_up(
    faulty: FaultyStorage, open_view: Any, point: Point
) -> None:
    view = open_view(faulty)
    stored(view, number=1)
    view.connection.cacheMinimize()
    faulty.fail(point, Killed())
    with pytest.raises(Killed):
        stored(view, number=2)
    assert faulty.dead
    with pytest.raises(Killed):
        view.begin()
    with pytest.raises(Killed):
        faulty.new_instance()

    faulty.revive()
    next_process = View(view.connection.db())
    assert next_process.root["number"] == (2 if point is Point.AFTER_FINISH else 1)
    stored(next_process, number=3)
    next_process.close()


def test_a_sibling_has_faults_and_a_death_of_its_own(faulty: FaultyStorage, open_view: Any) -> None:
    ours, theirs = open_view(faulty), open_view(faulty.sibling())
    stored(ours, number=1)
    faulty.fail(Point.BEFORE_FINISH, Killed())
    with pytest.raises(Killed):
        stored(ours, number=2)
    theirs.begin()
    assert theirs.root["number"] == 1
    stored(theirs, number=3)

    faulty.revive()
    ours.begin()
    assert ours.root["number"] == 3


def test_a_point_is_passed_before_a_fault_and_a_fault_is_over_some_time(
    memory: FaultyStorage, open_view: Any
) -> None:
    view = open_view(memory)
    fault = memory.fail("vote", OSError(), skip=1, times=2)
    outcomes = []
    for number in range(4):
        try:
            stored(view, number=number)
            outcomes.append("done")
        except OSError:
            view.abort()
            outcomes.append("failed")
    assert outcomes == ["done", "failed", "failed", "done"]
    assert fault.met == 2


def test_two_faults_of_one_point_happen_one_after_the_other(
    memory: FaultyStorage, open_view: Any
) -> None:
    view = open_view(memory)
    memory.fail(Point.VOTE, OSError("first"))
    memory.fail(Point.VOTE, OSError("second"))
    for message in ("first", "second"):
        with pytest.raises(OSError, match=message):
            stored(view, number=1)
        view.abort()


def test_an_action_is_called_at_its_point_and_the_commit_goes_on(
    memory: FaultyStorage, open_view: Any
) -> None:
    view = open_view(memory)
    seen: list[int] = []
    memory.call(Point.BEFORE_FINISH, lambda: seen.append(memory.commits))
    before = memory.commits
    stored(view, number=1)
    assert seen == [before]
    assert memory.commits == before + 1


def test_a_fault_can_be_meant_for_one_thread(memory: FaultyStorage, open_view: Any) -> None:
    view = open_view(memory)
    memory.lose_reply(only_here=True)
    other = View(view.connection.db())
    thread = threading.Thread(target=stored, args=[other], kwargs={"number": 1})
    thread.start()
    thread.join(15)
    view.begin()
    assert view.root["number"] == 1, "that thread was not disturbed"
    with pytest.raises(ClientDisconnected):
        stored(view, number=2)
    view.abort()
    other.close()


def test_an_unknown_point_is_refused(memory: FaultyStorage) -> None:
    with pytest.raises(ValueError, match="afterwards"):
        memory.fail("afterwards", OSError())


def test_a_check_of_what_was_read_is_a_store(memory: FaultyStorage, open_view: Any) -> None:
    view = open_view(memory)
    stored(view, changed=PersistentMapping())
    fault = memory.fail(Point.STORE, ConflictError(), skip=1)
    view.root["changed"]["number"] = 1  # the store that comes before
    view.connection.readCurrent(view.root)
    with pytest.raises(ConflictError):
        view.commit()
    view.abort()
    assert fault.met == 1


def test_the_storages_of_one_process_die_together(memory: FaultyStorage, open_view: Any) -> None:
    second = FaultyStorage(together_with=memory)
    view, other = open_view(memory), open_view(second)
    second.fail(Point.VOTE, Killed())
    with pytest.raises(Killed):
        stored(view, number=1)
    with pytest.raises(Killed):
        stored(other, number=1)
    assert second.dead
