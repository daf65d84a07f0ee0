# SPDX-License-Identifier: ZPL-2.1
"""Functions of ours that are committed against conflicts and storages that are away."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import transaction
from transaction.interfaces import NoTransaction
from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import ConflictError, ReadConflictError, ReadOnlyError

from tests.support.clocks import StandingClock
from tests.support.queues import View, db, open_view, view
from zasync.foundation import attempts
from zasync.foundation.attempts import Stopped, begun, committed, end, pause, pauses, stop_signal

__all__ = ["db", "open_view", "view"]


class FailingManager:
    """A transaction manager whose commits raise what `errors` lists, None for those that do not.

    `lands` says that the failing commits take effect all the same.
    """

    def __init__(self, manager: Any, errors: list[Exception | None], lands: bool = False) -> None:
        self._manager = manager
        self._errors = iter(errors)
        self._lands = lands

    def commit(self) -> None:
        error = next(self._errors, None)
        if error is None or self._lands:
            self._manager.commit()
        if error is not None:
            raise error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    """The stop signal of this thread."""
    signal = threading.Event()
    token = stop_signal.set(signal)
    yield signal
    stop_signal.reset(token)


@pytest.fixture
def count(view: View) -> Callable[..., int]:
    """`count()` adds one to what is stored, and answers it."""
    view.root["count"] = 0
    view.commit()

    def add(by: int = 1) -> int:
        view.root["count"] += by
        return int(view.root["count"])

    return add


def stored(view: View) -> int:
    view.begin()
    return int(view.root["count"])


def raising(*errors: Exception | None) -> Callable[[], str]:
    """A function that raises these errors, one at each call, and then answers 'done'."""
    calls = iter(errors)

    def function() -> str:
        error = next(calls, None)
        if error is not None:
            raise error
        return "done"

    return function


def test_what_the_function_did_is_committed_and_its_answer_given(
    view: View, count: Callable[..., int]
) -> None:
    assert committed(count, 5, transaction_manager=view.manager) == 5
    view.abort()
    assert stored(view) == 5


def test_what_the_caller_has_not_committed_is_not_committed(
    view: View, count: Callable[..., int]
) -> None:
    view.root["count"] = 100
    assert committed(count, transaction_manager=view.manager) == 1


def test_a_conflict_in_the_commit_is_tried_again(
    view: View, open_view: Any, count: Callable[..., int], standing_clock: StandingClock
) -> None:
    other = open_view()
    calls = itertools.count(1)

    def count_in_the_way() -> int:
        answer = count()
        if next(calls) < 4:
            other.begin()
            other.root["count"] += 10
            other.commit()
        return answer

    assert committed(count_in_the_way, transaction_manager=view.manager) == 31
    assert stored(view) == 31
    assert len(standing_clock.waits) == 3
    assert all(0 <= seconds <= attempts.CONFLICT_PAUSE for seconds in standing_clock.waits)


def test_a_conflict_in_the_function_is_tried_again(
    view: View, standing_clock: StandingClock
) -> None:
    function = raising(ReadConflictError(), ConflictError())
    assert committed(function, transaction_manager=view.manager) == "done"


def test_conflicts_are_tried_as_often_as_is_asked(
    view: View, count: Callable[..., int], standing_clock: StandingClock
) -> None:
    manager = FailingManager(view.manager, [ConflictError("first"), ConflictError("second"), None])
    with pytest.raises(ConflictError, match="second"):
        committed(count, transaction_manager=manager, tries=2)
    assert stored(view) == 0


@pytest.mark.parametrize("error", [ClientDisconnected(), ReadOnlyError(), OSError()])
def test_a_storage_that_is_away_is_waited_for_on_the_clock(
    view: View, standing_clock: StandingClock, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    function = raising(*[error] * 4)
    assert committed(function, transaction_manager=view.manager) == "done"
    assert standing_clock.waits == [0.5, 1.5, 2.5, 3.5]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 4


def test_pauses_grow_up_to_the_longest() -> None:
    assert list(itertools.islice(pauses(), 14)) == [*range(5, 60, 5), 60, 60, 60]
    assert list(itertools.islice(pauses(1, 2, 4), 4)) == [1, 3, 4, 4]


def test_waiting_for_a_storage_ends_when_the_process_is_told_to_stop(
    view: View, standing_clock: StandingClock, stop: threading.Event
) -> None:
    def away() -> None:
        if len(standing_clock.waits) == 2:
            stop.set()
        raise ClientDisconnected

    with pytest.raises(Stopped):
        committed(away, transaction_manager=view.manager)
    assert len(standing_clock.waits) == 3


def test_a_pause_is_a_wait_that_a_stop_ends(
    standing_clock: StandingClock, stop: threading.Event
) -> None:
    pause(7)
    assert standing_clock.waits == [7]
    stop.set()
    with pytest.raises(Stopped):
        pause(7)


def test_any_other_error_goes_up_with_the_transaction_aborted(
    view: View, count: Callable[..., int]
) -> None:
    def fail() -> None:
        count()
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        committed(fail, transaction_manager=view.manager)
    assert view.root["count"] == 0
    view.commit()
    assert stored(view) == 0


def test_any_other_error_of_a_commit_goes_up_where_nobody_can_be_asked(
    view: View, count: Callable[..., int]
) -> None:
    manager = FailingManager(view.manager, [LookupError("odd")])
    with pytest.raises(LookupError, match="odd"):
        committed(count, transaction_manager=manager)
    assert stored(view) == 0


# In doubt


@pytest.mark.parametrize("error", [ClientDisconnected(), OSError(), LookupError("odd")])
def test_a_commit_that_took_effect_in_spite_of_its_error_is_not_repeated(
    view: View, count: Callable[..., int], standing_clock: StandingClock, error: Exception
) -> None:
    manager = FailingManager(view.manager, [error], lands=True)
    answer = committed(count, transaction_manager=manager, happened=lambda: view.root["count"] == 1)
    assert answer == 1
    assert stored(view) == 1


def test_a_commit_that_took_no_effect_is_repeated(
    view: View, count: Callable[..., int], standing_clock: StandingClock
) -> None:
    manager = FailingManager(view.manager, [ClientDisconnected()])
    asked: list[int] = []

    def happened() -> bool:
        asked.append(view.root["count"])
        return asked[-1] == 1

    assert committed(count, transaction_manager=manager, happened=happened) == 1
    assert asked == [0]
    assert stored(view) == 1


def test_an_odd_error_of_a_commit_that_took_no_effect_goes_up(
    view: View, count: Callable[..., int]
) -> None:
    manager = FailingManager(view.manager, [LookupError("odd")])
    with pytest.raises(LookupError, match="odd"):
        committed(count, transaction_manager=manager, happened=lambda: False)
    assert stored(view) == 0


@pytest.mark.parametrize("error", [ReadConflictError(), ClientDisconnected()])
def test_a_doubt_stays_until_the_question_is_answered(
    view: View, count: Callable[..., int], standing_clock: StandingClock, error: Exception
) -> None:
    manager = FailingManager(view.manager, [ClientDisconnected()], lands=True)
    troubles = raising(error, error)

    def happened() -> bool:
        troubles()
        return bool(view.root["count"] == 1)

    assert committed(count, transaction_manager=manager, happened=happened) == 1
    assert stored(view) == 1


def test_an_error_of_the_question_goes_up(view: View, count: Callable[..., int]) -> None:
    manager = FailingManager(view.manager, [ClientDisconnected()], lands=True)

    def happened() -> bool:
        raise LookupError("taken away")

    with pytest.raises(LookupError, match="taken away"):
        committed(count, transaction_manager=manager, happened=happened)
    assert stored(view) == 1


def test_nobody_is_asked_after_a_conflict_or_before_the_commit(
    view: View, count: Callable[..., int], standing_clock: StandingClock
) -> None:
    manager = FailingManager(view.manager, [ConflictError(), None])
    fails_first = raising(ClientDisconnected())

    def function() -> int:
        fails_first()
        return count()

    def happened() -> bool:
        raise AssertionError("asked without a doubt")

    assert committed(function, transaction_manager=manager, happened=happened) == 1
    assert stored(view) == 1


# Reading, and the end


def test_reading_leaves_the_transaction_begun(view: View, count: Callable[..., int]) -> None:
    assert begun(lambda: view.root["count"], transaction_manager=view.manager) == 0
    count()
    view.commit()
    assert stored(view) == 1


def test_reading_waits_for_the_storage(view: View, standing_clock: StandingClock) -> None:
    function = raising(ClientDisconnected(), ReadConflictError())
    assert begun(function, transaction_manager=view.manager) == "done"
    assert standing_clock.waits == [0.5, 1.5]


def test_an_error_of_the_reader_goes_up(view: View) -> None:
    with pytest.raises(LookupError):
        begun(raising(LookupError()), transaction_manager=view.manager)


def test_ending_aborts_what_is_under_way(view: View, count: Callable[..., int]) -> None:
    count()
    end(view.manager)
    assert view.root["count"] == 0


def test_ending_where_nothing_is_under_way_is_no_error() -> None:
    manager = transaction.TransactionManager(explicit=True)
    end(manager)
    with pytest.raises(NoTransaction):
        manager.get()


def test_a_storage_that_cannot_even_abort_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn:
        def abort(self) -> None:
            raise ClientDisconnected("gone")

    end(Stubborn())
    assert "did not let us abort (ClientDisconnected: gone)" in caplog.text
