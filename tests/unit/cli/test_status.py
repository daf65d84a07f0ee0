# SPDX-License-Identifier: ZPL-2.1
"""What `zasync status` finds, and that it does so by counters alone."""

import io
import uuid
from datetime import timedelta
from typing import Any

from rich.console import Console

from zasync.agent import Agent
from zasync.cli.opening import install_queues, look
from zasync.cli.status import show, survey
from zasync.foundation import clock
from zasync.interfaces import KEY
from zasync.job import Job


def shown(found: Any) -> str:
    written = io.StringIO()
    show({"database": "db", **found}, Console(file=written, width=120))
    return written.getvalue()


def with_dispatcher(connection: Any, size: int = 3) -> Any:
    """A queue with one waiting job and an activated dispatcher; answers its record."""
    root = look(connection)
    install_queues(root)
    queue = root[KEY][""]
    queue.put(Job(len, "abc"))
    record = queue.dispatchers.register(uuid.uuid4())
    record.activate()
    record["main"] = Agent(size=size)
    connection.transaction_manager.commit()
    return record


def test_a_database_without_queues_says_so(connection: Any) -> None:
    found = survey(look(connection))
    assert (found["queues"], found["problems"]) == ([], [])
    assert "It has no queues" in shown(found)


def test_waiting_jobs_are_counted_without_being_loaded(database: Any, connection: Any) -> None:
    with_dispatcher(connection)
    fresh = database.open()
    try:
        fresh.cacheMinimize()
        (queue,) = survey(fresh.root())["queues"]
        (job,) = fresh.root()[KEY][""]
        assert queue["waiting"] == 1
        assert job._p_changed is None  # a ghost
    finally:
        fresh.close()


def test_jobs_that_run_for_too_long_are_a_problem(connection: Any) -> None:
    record = with_dispatcher(connection)
    record.last_ping.overdue = ((17, "main", "main", 0),)
    connection.transaction_manager.commit()
    (problem,) = survey(look(connection))["problems"]
    assert f"1 jobs of dispatcher {record.UUID}" in problem


def test_agents_without_places_are_a_problem(connection: Any) -> None:
    with_dispatcher(connection, size=0)
    (problem,) = survey(look(connection))["problems"]
    assert problem == "jobs wait in queue '', and no agent has a place for any"


def test_a_dead_dispatcher_is_a_problem_and_shown_as_such(connection: Any) -> None:
    record = with_dispatcher(connection)
    look(connection)
    record.last_ping.value = clock.now() - timedelta(hours=1)
    connection.transaction_manager.commit()
    found = survey(look(connection))
    (dispatcher,) = found["queues"][0]["dispatchers"]
    assert dispatcher["state"] == "dead"
    assert dispatcher["ping_age"] >= 3600
    assert "no dispatcher works it" in found["problems"][0]
    assert "is dead" in found["problems"][1]
    assert "3600 s ago" in shown(found)


def test_a_ping_from_a_clock_that_is_ahead_has_the_age_zero(connection: Any) -> None:
    record = with_dispatcher(connection)
    look(connection)
    record.last_ping.value = clock.now() + timedelta(hours=1)
    connection.transaction_manager.commit()
    (dispatcher,) = survey(look(connection))["queues"][0]["dispatchers"]
    assert dispatcher["ping_age"] == 0


def test_the_name_of_a_queue_is_no_markup(connection: Any) -> None:
    root = look(connection)
    install_queues(root)
    queue = root[KEY].pop("")
    root[KEY]["[red]"] = queue
    queue.quotas.create("[bold]", 1)
    printed = shown(survey(root))
    assert "'[red]'" in printed
    assert "[bold]" in printed
