# SPDX-License-Identifier: ZPL-2.1
"""The set-up for functional tests: what it makes, how jobs are performed, what it leaves."""

from __future__ import annotations

import operator
import threading
from typing import Any

import pytest
import zope.component
from zope.component.globalregistry import base as registrations

from zasync import ftesting
from zasync.dispatcher import registry
from zasync.foundation import clock
from zasync.interfaces import COMPLETED, IUUID, KEY, PENDING, IQueue
from zasync.queue import Queue, Queues


@pytest.fixture(autouse=True)
def torn_down(connection: Any) -> Any:
    """Whatever becomes of a test, the next one can set up."""
    yield
    ftesting.tearDown()


def test_a_job_is_performed_when_the_reactors_time_moves(connection: Any) -> None:
    dispatcher = ftesting.setUp(connection)
    job = IQueue(connection).put(operator.mul)
    job.args = [6, 7]
    connection.transaction_manager.commit()
    assert job.status == PENDING

    dispatcher.reactor.wait_for(job)

    assert (job.status, job.result) == (COMPLETED, 42)


def test_there_is_a_queue_and_an_agent_main(connection: Any) -> None:
    dispatcher = ftesting.setUp(connection)

    queue = connection.root()[KEY][""]
    assert list(queue.dispatchers[dispatcher.UUID]) == ["main"]


def test_queues_that_are_there_stay_as_they_are(connection: Any) -> None:
    queues = connection.root()[KEY] = Queues()
    queue = queues[""] = Queue()
    other = queues["other"] = Queue()
    connection.transaction_manager.commit()

    dispatcher = ftesting.setUp(connection)

    assert connection.root()[KEY][""] is queue
    assert dispatcher.UUID in other.dispatchers


def test_after_the_end_time_goes_by_itself_and_nothing_is_left(connection: Any) -> None:
    threads, real_clock = set(threading.enumerate()), clock.current()
    dispatcher = ftesting.setUp(connection)

    ftesting.tearDown()

    assert not dispatcher.activated
    assert registry.every() == []
    assert clock.current() is real_clock
    assert [each for each in threading.enumerate() if each not in threads] == []
    assert zope.component.queryUtility(IUUID) is None
    assert list(registrations.registeredHandlers()) == []


def test_it_can_be_done_again_and_again(connection: Any) -> None:
    results = []
    for number in range(2):
        dispatcher = ftesting.setUp(connection)
        job = IQueue(connection).put(operator.neg)
        job.args.append(number)
        connection.transaction_manager.commit()
        dispatcher.reactor.wait_for(job)
        results.append(job.result)
        ftesting.tearDown()

    assert results == [0, -1]


def test_twice_without_an_end_is_an_error_that_says_what_to_do(connection: Any) -> None:
    ftesting.setUp(connection)

    with pytest.raises(RuntimeError, match="tearDown"):
        ftesting.setUp(connection)


def test_an_end_without_a_beginning_does_nothing() -> None:
    ftesting.tearDown()


def test_a_set_up_that_fails_leaves_nothing_behind(connection: Any) -> None:
    connection.root()[KEY] = 7  # no mapping of queues
    connection.transaction_manager.commit()

    with pytest.raises(TypeError):
        ftesting.setUp(connection)

    assert zope.component.queryUtility(IUUID) is None
    assert list(registrations.registeredHandlers()) == []
    assert registry.every() == []
