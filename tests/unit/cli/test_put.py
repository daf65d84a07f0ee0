# SPDX-License-Identifier: ZPL-2.1
"""Reading the words of `zasync put`, and putting against odds."""

from collections.abc import Iterator
from typing import Any

import pytest
import transaction
import ZODB
from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import ConflictError, StorageError

from zasync.cli.errors import CommandError
from zasync.cli.opening import UnknownQueue, look
from zasync.cli.put import NotImportable, NotJSON, find_callable, put_job, read_arguments
from zasync.interfaces import KEY
from zasync.job import Job
from zasync.testing.faults import FaultyStorage, Point


@pytest.mark.parametrize(
    ("words", "args", "keywords"),
    [
        (("1", '"two"', "null", "[3, {}]"), [1, "two", None, [3, {}]], {}),
        (("-1", 'name="value"', "rate=0.5"), [-1], {"name": "value", "rate": 0.5}),
        (('"a=b"',), ["a=b"], {}),
        (('größe="a\\nb=c"',), [], {"größe": "a\nb=c"}),
    ],
)
def test_words_are_json_or_keywords_with_json(
    words: tuple[str, ...], args: list[Any], keywords: dict[str, Any]
) -> None:
    assert read_arguments(words, None) == (args, keywords)


def test_an_object_of_keywords_adds_to_those_that_are_named() -> None:
    assert read_arguments(("b=2",), '{"a": 1}') == ([], {"a": 1, "b": 2})


@pytest.mark.parametrize(
    ("words", "kwargs", "message"),
    [
        (("hello",), None, "'hello' is not JSON"),
        (("name=hello",), None, "a string is written with both quotes: '\"hello\"'"),
        (("a=1", "a=2"), None, "'a' is given twice"),
        (("a=1",), '{"a": 2}', "'a' is given twice"),
        ((), "[]", "must be a JSON object"),
    ],
)
def test_what_is_not_json_is_refused_with_a_hint(
    words: tuple[str, ...], kwargs: str | None, message: str
) -> None:
    with pytest.raises(NotJSON) as caught:
        read_arguments(words, kwargs)
    assert message in str(caught.value)


def test_a_function_is_found_by_its_dotted_name() -> None:
    assert find_callable("json:JSONEncoder.encode").__name__ == "encode"


@pytest.mark.parametrize("name", ["json", ":dumps", "json:", "json:no", "json:__name__", "no:f"])
def test_what_is_not_there_or_not_callable_is_refused(name: str) -> None:
    with pytest.raises(NotImportable):
        find_callable(name)


class Odds:
    """Makes the first commits of a connection's transaction manager fail."""

    def __init__(self, connection: Any, *errors: Exception) -> None:
        self._errors = list(errors)
        self._commit = connection.transaction_manager.commit
        connection.transaction_manager.commit = self

    def __call__(self) -> None:
        if self._errors:
            raise self._errors.pop(0)
        self._commit()


def waiting(connection: Any) -> int:
    return len(look(connection)[KEY][""])


def test_a_conflict_is_no_reason_not_to_put(connection: Any) -> None:
    Odds(connection, ConflictError(), ConflictError())
    put_job(connection, "", lambda: Job(len, "abc"))
    assert waiting(connection) == 1


def test_nothing_is_put_if_conflicts_do_not_end(connection: Any) -> None:
    Odds(connection, *(ConflictError() for _ in range(100)))
    with pytest.raises(CommandError, match="nothing was put"):
        put_job(connection, "", lambda: Job(len, "abc"))


@pytest.fixture
def faulty() -> FaultyStorage:
    return FaultyStorage()


@pytest.fixture
def over_faulty(faulty: FaultyStorage) -> Iterator[Any]:
    db = ZODB.DB(faulty)
    connection = db.open(transaction_manager=transaction.TransactionManager())
    yield connection
    faulty.faults.clear()
    connection.transaction_manager.abort()
    connection.close()
    db.close()


@pytest.mark.parametrize("point", [Point.BEGIN, Point.BEFORE_FINISH, Point.AFTER_FINISH])
@pytest.mark.parametrize("error", [ClientDisconnected(), OSError("gone")])
def test_a_commit_in_doubt_puts_one_job(
    over_faulty: Any, faulty: FaultyStorage, point: Point, error: Exception
) -> None:
    fault = faulty.fail(point, error)
    job = put_job(over_faulty, "", lambda: Job(len, "abc"))
    assert fault.met == 1
    assert list(look(over_faulty)[KEY][""]) == [job]


def test_a_commit_in_doubt_is_told_where_the_database_cannot_be_asked(
    over_faulty: Any, faulty: FaultyStorage
) -> None:
    def go_away() -> None:
        faulty.fail(Point.LOAD, ClientDisconnected(), times=99)
        raise ClientDisconnected

    faulty.call(Point.AFTER_FINISH, go_away)
    with pytest.raises(CommandError, match="may be put or not"):
        put_job(over_faulty, "", lambda: Job(len, "abc"))


def test_a_database_that_is_away_before_the_commit_has_nothing_put(
    over_faulty: Any, faulty: FaultyStorage
) -> None:
    over_faulty.cacheMinimize()
    faulty.fail(Point.LOAD, ClientDisconnected(), times=99)
    with pytest.raises(CommandError, match="nothing was put"):
        put_job(over_faulty, "", lambda: Job(len, "abc"))


def test_another_error_of_the_commit_is_raised_as_it_is(connection: Any) -> None:
    Odds(connection, StorageError("full"))
    with pytest.raises(StorageError):
        put_job(connection, "", lambda: Job(len, "abc"))


def test_a_job_that_the_queue_refuses_is_a_line_for_the_person(connection: Any) -> None:
    with pytest.raises(CommandError, match="lambda"):
        put_job(connection, "", lambda: Job(lambda: None))


def test_an_unknown_queue_is_told_with_those_that_there_are(connection: Any) -> None:
    with pytest.raises(UnknownQueue, match="no queue 'mail'; it has none at all"):
        put_job(connection, "mail", lambda: Job(len, "abc"))
