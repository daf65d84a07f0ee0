# SPDX-License-Identifier: ZPL-2.1
"""Jobs from put to end, on every storage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conformance import work
from tests.conformance.places import Place
from tests.support.running import Site, running
from zasync.job import Job

NEVER = 3600  # seconds: a poll interval at which nothing is owed to polling
SOON = 0.2


def marks(site: Site) -> dict[int, int]:
    """How often each effect took place, as a new transaction sees it."""
    return dict(site.sees(lambda: site.root["marks"]))


def once(*numbers: int) -> dict[int, int]:
    return dict.fromkeys(numbers, 1)


def test_a_job_is_put_claimed_run_and_completed(client: Site, storage: Place) -> None:
    with running(storage.open(), poll_interval=SOON):
        job = client.put(Job(work.mark, 1))
        client.completed(job)
    assert client.sees(lambda: job.result) == 1
    assert marks(client) == once(1)
    assert client.sees(lambda: len(client.queue)) == 0


def test_what_a_client_aborts_was_never_put(client: Site, storage: Place) -> None:
    with running(storage.open(), poll_interval=SOON):
        client.manager.begin()
        client.root["marks"][5] = 1
        client.queue.put(Job(work.mark, 1))
        client.manager.abort()
        client.completed(client.put(Job(work.mark, 2)))
    assert marks(client) == once(2)


def test_the_effects_of_jobs_that_conflict_take_place_once(client: Site, storage: Place) -> None:
    count = 12
    with running(storage.open(), poll_interval=SOON, size=4):
        jobs = client.commit(
            lambda: [
                client.queue.put(Job(work.transfer, number, 10), retry_policy_factory=work.patient)
                for number in range(count)
            ]
        )
        client.completed(*jobs, seconds=60)
    assert marks(client) == once(*range(count))
    accounts = client.sees(lambda: [each.balance for each in client.root["accounts"]])
    assert accounts == [-10 * count, 10 * count]


def test_a_quota_of_one_is_never_exceeded(client: Site, storage: Place) -> None:
    client.commit(lambda: client.queue.quotas.create("alone", 1))
    with running(storage.open(), poll_interval=SOON, size=4):
        jobs = client.commit(
            lambda: [client.queue.put(alone(number)) for number in range(6)],
        )
        client.completed(*jobs, seconds=60)
    assert marks(client) == once(*range(6))
    assert set(work.crowds) == {1}


def alone(number: int) -> Job:
    job = Job(work.go_alone, number)
    job.quota_names = ("alone",)
    return job


def test_callbacks_are_called_once_with_the_result(client: Site, storage: Place) -> None:
    def put() -> list[Any]:
        jobs = []
        for number in range(4):
            job = Job(work.mark, number)
            for hundreds in (100, 200):
                job.addCallback(Job(work.mark_result, hundreds))
            jobs.append(client.queue.put(job))
        return jobs

    with running(storage.open(), poll_interval=SOON):
        client.completed(*client.commit(put))
    expected = [base + number for base in (0, 100, 200) for number in range(4)]
    assert marks(client) == once(*expected)


def test_a_cancelled_run_has_no_effect_and_what_follows_takes_place_once(
    client: Site, storage: Place
) -> None:
    """One job waits, one runs, one races with its cancellation."""
    with running(storage.open(), poll_interval=SOON, size=1):
        work_at_gate = Job(work.mark_at_gate, "gate", 1)
        work_at_gate.addCallback(Job(work.mark_end, 101))
        runs = client.put(work_at_gate)
        assert work.gate("gate reached").wait(30)
        waits, races = client.put(Job(work.mark, 2)), client.put(Job(work.mark, 3))
        assert client.commit(waits.cancel)
        assert client.commit(runs.cancel)
        work.gate("gate").set()
        raced = client.commit(races.cancel)
        client.completed(runs, waits, races, seconds=60)
    assert client.sees(lambda: (runs.cancelled, waits.cancelled, races.cancelled)) == (
        True,
        True,
        raced,
    )
    assert marks(client) == once(101, *([] if raced else [3]))


def test_a_job_that_is_due_later_is_not_run_before(client: Site, storage: Place) -> None:
    due = datetime.now(UTC) + timedelta(seconds=0.7)
    with running(storage.open(), poll_interval=NEVER if storage.prompt else SOON):
        later = client.put(Job(work.only_later, 1), begin_after=due)
        client.completed(later)
    assert client.sees(lambda: later.result) >= due.timestamp()


@pytest.mark.where("prompt")
def test_a_put_in_another_process_wakes_where_that_is_promised(
    client: Site, storage: Place
) -> None:
    with running(storage.open(), poll_interval=NEVER):
        client.completed(client.put(Job(work.mark, 1)))


def test_an_argument_of_ten_megabytes_comes_back(client: Site, storage: Place) -> None:
    size = 10_000_000
    with running(storage.open(), poll_interval=SOON):
        job = client.put(Job(work.size_of, b"x" * size))
        client.completed(job, seconds=60)
    assert client.sees(lambda: job.result) == size


def test_a_cache_for_one_object_is_only_slower(client: Site, storage: Place) -> None:
    database = storage.open(connection_cache_size="1")
    database.setCacheSize(1)
    with running(database, poll_interval=SOON):
        jobs = client.commit(
            lambda: [client.queue.put(Job(work.mark, number)) for number in range(8)]
        )
        client.completed(*jobs, seconds=60)
    assert marks(client) == once(*range(8))


@pytest.mark.where("collect")
def test_packing_with_garbage_collection_while_jobs_run_loses_nothing(
    client: Site, storage: Place
) -> None:
    pack_while_jobs_run(client, storage, collect=True)


def test_packing_while_jobs_run_loses_nothing(client: Site, storage: Place) -> None:
    pack_while_jobs_run(client, storage, collect=False)


def pack_while_jobs_run(client: Site, storage: Place, *, collect: bool) -> None:
    count = 20

    def put(number: int) -> Any:
        return client.queue.put(Job(work.mark, number), retry_policy_factory=work.patient)

    with running(storage.open(), poll_interval=SOON, size=2):
        jobs = client.commit(lambda: [put(number) for number in range(count // 2)])
        storage.pack(collect=collect)
        for number in range(count // 2, count):
            jobs.append(client.commit(lambda number=number: put(number)))
        client.completed(*jobs, seconds=60)
    client.connection.cacheMinimize()
    assert client.sees(lambda: [job.result for job in jobs]) == list(range(count))
    assert marks(client) == once(*range(count))
