# SPDX-License-Identifier: ZPL-2.1
"""What happens when two connections work the same queue at the same time.

Each case begins two transactions before either is committed, on every storage that we have.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
import ZODB
from ZODB.DemoStorage import DemoStorage
from ZODB.FileStorage import FileStorage
from ZODB.POSException import ConflictError

from tests.support.clocks import StandingClock
from tests.support.queues import (
    FIRST,
    SECOND,
    View,
    always_lane,
    install_queue,
    lane_after_lane,
    numbered,
    numbers,
)
from tests.support.running import until
from tests.support.zeo import ZeoServer
from zasync.interfaces import ACTIVE, ASSIGNED
from zasync.queue.waiting import LANES, LANES_WITH_QUOTAS
from zasync.storage import close_database, open_database

Pair = tuple[View, View]
A_DAY = timedelta(days=1)


@pytest.fixture(
    params=["demo", "file", pytest.param("zeo", marks=pytest.mark.zeo)],
)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """Two views of one queue; over ZEO each has a client storage of its own."""
    with ExitStack() as stack:
        if request.param == "zeo":
            server: ZeoServer = stack.enter_context(ZeoServer(str(tmp_path / "Data.fs")))
            dbs = [open_database(server.uri), open_database(server.uri)]
            for db in dbs:
                stack.callback(close_database, db)
        else:
            storage = FileStorage(str(tmp_path / "Data.fs"))
            if request.param == "demo":
                storage = DemoStorage(base=storage)
            dbs = [ZODB.DB(storage)] * 2
            stack.callback(dbs[0].close)
        install_queue(dbs[0])
        views = View(dbs[0]), View(dbs[1])
        for view in views:
            stack.callback(view.close)
        yield views


def begin(pair: Pair) -> None:
    """Have both see the same, the newest, state."""
    storages = [view.connection.db().storage for view in pair]
    until(
        lambda: storages[0].lastTransaction() == storages[1].lastTransaction(),
        "the server to tell both of the last commit",
    )
    for view in pair:
        view.abort()
        view.begin()


def both_commit(pair: Pair) -> None:
    for view in pair:
        view.commit()


def one_fails(pair: Pair) -> View:
    """The first commits, the second must not be able to; answers the first."""
    pair[0].commit()
    with pytest.raises(ConflictError):
        pair[1].commit()
    return pair[0]


def seen_by_the_second(pair: Pair) -> list[int]:
    begin(pair)
    return sorted(numbers(pair[1].queue))


# Producers


def test_two_who_put_in_the_same_lane_do_not_conflict(
    pair: Pair, standing_clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for lane in range(LANES):
        monkeypatch.setattr(standing_clock.random, "shuffle", always_lane(lane))
        begin(pair)
        for number, view in enumerate(pair):
            view.queue.put(numbered(4 * lane + number))
            standing_clock.move(seconds=1)
            later = standing_clock.now() + A_DAY
            view.queue.put(numbered(4 * lane + number + 2), begin_after=later)
        both_commit(pair)
    assert seen_by_the_second(pair) == list(range(4 * LANES))
    assert len(pair[1].queue) == 4 * LANES


def test_two_who_put_jobs_with_a_quota_do_not_conflict(
    pair: Pair, standing_clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair[0].queue.quotas.create("catalog")
    pair[0].queue.put(numbered(0, "catalog"))
    pair[0].commit()
    for lane in range(LANES_WITH_QUOTAS):
        monkeypatch.setattr(standing_clock.random, "shuffle", always_lane(lane))
        begin(pair)
        for number, view in enumerate(pair):
            standing_clock.move(seconds=1)
            view.queue.put(numbered(10 * lane + number + 1, "catalog"))
        both_commit(pair)
    assert seen_by_the_second(pair) == [0, 1, 2, 11, 12]


def test_two_who_put_back_do_not_conflict(pair: Pair, standing_clock: StandingClock) -> None:
    begin(pair)
    for number, view in enumerate(pair):
        standing_clock.move(seconds=1)
        view.queue.putBack(numbered(number))
    both_commit(pair)
    begin(pair)
    assert numbers(pair[1].queue) == [1, 0]


def test_two_who_are_the_first_to_use_a_quota_conflict_and_lose_nothing(pair: Pair) -> None:
    pair[0].queue.quotas.create("catalog")
    pair[0].commit()
    begin(pair)
    for number, view in enumerate(pair):
        view.queue.put(numbered(number, "catalog"))
    one_fails(pair)
    begin(pair)
    pair[1].queue.put(numbered(1, "catalog"))
    pair[1].commit()
    assert seen_by_the_second(pair) == [0, 1]


# Producers and claims


@pytest.mark.parametrize("waiting", [1, 2, 20])
def test_a_put_and_a_claim_that_empties_the_lane_do_not_conflict(
    pair: Pair, waiting: int, standing_clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing_clock.random, "shuffle", always_lane(3))
    pair[0].put(*range(waiting))
    begin(pair)
    standing_clock.move(seconds=1)
    assert len(list(pair[0].queue.claims())) == waiting
    pair[1].queue.put(numbered(99))
    both_commit(pair)
    assert seen_by_the_second(pair) == [99]
    assert len(pair[1].queue) == 1


def test_a_put_and_a_claim_that_empties_the_lane_of_later_jobs_do_not_conflict(
    pair: Pair, standing_clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing_clock.random, "shuffle", always_lane(3))
    soon = standing_clock.now().replace(hour=13)
    pair[0].put(1, begin_after=soon)
    standing_clock.move(hours=2)
    begin(pair)
    assert numbers(pair[0].queue.claims()) == [1]
    pair[1].queue.put(numbered(2), begin_after=soon.replace(day=2))
    both_commit(pair)
    assert seen_by_the_second(pair) == [2]


def test_a_put_back_and_a_claim_of_what_was_put_back_do_not_conflict(
    pair: Pair, standing_clock: StandingClock
) -> None:
    pair[0].queue.putBack(numbered(1))
    pair[0].commit()
    begin(pair)
    standing_clock.move(seconds=1)
    assert numbers(pair[0].queue.claims()) == [1]
    pair[1].queue.putBack(numbered(2))
    both_commit(pair)
    assert seen_by_the_second(pair) == [2]


# Claims


def test_two_cannot_claim_the_same_job(pair: Pair) -> None:
    pair[0].put(1)
    begin(pair)
    for view in pair:
        view.root[f"kept by {id(view)}"] = 1
        assert numbers([view.queue.claim()]) == [1]
    one_fails(pair)
    begin(pair)
    assert pair[1].queue.claim() is None


def test_the_claims_of_two_dispatchers_for_different_jobs_do_not_conflict(
    pair: Pair, standing_clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing_clock.random, "shuffle", lane_after_lane)
    pair[0].dispatcher(FIRST)
    pair[0].dispatcher(SECOND)
    for number in range(LANES):
        pair[0].put(number)
    begin(pair)
    taken = []
    for view, uuid in zip(pair, (FIRST, SECOND), strict=True):
        taken += view.queue.dispatchers[uuid]["main"].claim_jobs(3)
    both_commit(pair)
    assert sorted(numbers(taken)) == [0, 1, 2, 3, 4, 5]
    assert seen_by_the_second(pair) == [6, 7]
    assert len(pair[0].queue) == 2


def claim_under_quota(pair: Pair) -> list[list[int]]:
    begin(pair)
    return [numbers(view.queue.claims(uuid=uuid)) for view, uuid in zip(pair, IDS, strict=True)]


IDS = (FIRST, SECOND)


def test_two_cannot_take_the_last_place_of_a_quota(
    pair: Pair, standing_clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing_clock.random, "shuffle", lane_after_lane)
    first, second = pair
    first.queue.quotas.create("catalog", size=2)
    for uuid in IDS:
        first.dispatcher(uuid)
    for number in range(4):
        first.queue.put(numbered(number, "catalog"))
        first.commit()
    begin(pair)
    job = first.queue.dispatchers[FIRST]["main"].claimJob()
    first.commit()
    begin(pair)
    taken = [
        view.queue.dispatchers[uuid]["main"].claimJob()
        for view, uuid in zip(pair, IDS, strict=True)
    ]
    assert taken[0]._p_oid != taken[1]._p_oid  # nothing but the quota is in dispute
    assert len({taken[0]._p_oid, taken[1]._p_oid, job._p_oid}) == 3
    one_fails(pair)
    begin(pair)
    assert second.queue.dispatchers[SECOND]["main"].claimJob() is None
    assert len(second.queue.quotas["catalog"]) == 2
    assert len(second.queue) == 2


def test_a_place_that_became_free_is_taken_by_one_of_two(pair: Pair) -> None:
    first, second = pair
    first.queue.quotas.create("catalog")
    for uuid in IDS:
        first.dispatcher(uuid)
    for number in range(3):
        first.queue.put(numbered(number, "catalog"))
    first.commit()
    begin(pair)
    job = first.queue.dispatchers[FIRST]["main"].claimJob()
    first.commit()
    job()
    begin(pair)
    for view, uuid in zip(pair, IDS, strict=True):
        assert view.queue.dispatchers[uuid]["main"].claimJob() is not None
    one_fails(pair)
    begin(pair)
    assert second.queue.dispatchers[SECOND]["main"].claimJob() is None


def test_raising_a_quota_and_a_claim_under_it_cannot_both_happen_unseen(pair: Pair) -> None:
    first, second = pair
    quota = first.queue.quotas.create("catalog", size=2)
    first.queue.put(numbered(1, "catalog"))
    first.commit()
    begin(pair)
    quota.size = 0
    second.root["kept"] = second.queue.claim()
    one_fails(pair)
    begin(pair)
    assert second.queue.claim() is None


# Dispatchers


def test_a_claim_of_a_dispatcher_that_is_deactivated_meanwhile_fails(pair: Pair) -> None:
    first, second = pair
    first.dispatcher(FIRST)
    first.put(1)
    begin(pair)
    job = second.queue.dispatchers[FIRST]["main"].claimJob()
    assert job.status == ASSIGNED
    first.queue.dispatchers[FIRST].deactivate()
    first.commit()
    with pytest.raises(ConflictError):
        second.commit()
    begin(pair)
    assert second.queue.dispatchers[FIRST]["main"].claimJob() is None
    assert numbers(second.queue) == [1]


def test_a_deactivation_that_does_not_see_a_committed_claim_fails(pair: Pair) -> None:
    first, second = pair
    first.dispatcher(FIRST)
    first.put(1)
    begin(pair)
    second.queue.dispatchers[FIRST]["main"].claimJob()
    first.queue.dispatchers[FIRST].deactivate()
    second.commit()
    with pytest.raises(ConflictError):
        first.commit()  # else the job would lie in an agent that nobody looks at
    begin(pair)
    record = first.queue.dispatchers[FIRST]
    record.deactivate()
    first.commit()
    assert len(record["main"]) == 0
    assert numbers(first.queue) == [1]


def test_a_zombie_commits_nothing_for_a_job_that_was_taken_from_it(pair: Pair) -> None:
    first, second = pair
    first.dispatcher(FIRST)
    first.put(1)
    job = first.queue.dispatchers[FIRST]["main"].claimJob()
    job.start(77)
    first.commit()
    begin(pair)
    zombies = second.see(job)
    assert zombies.status == ACTIVE
    zombies._result = "the zombie's"
    first.queue.dispatchers[FIRST].deactivate()
    one_fails(pair)
    begin(pair)
    assert zombies._token is None
    assert zombies.result is None


def test_two_siblings_do_not_both_hand_back_the_jobs_of_a_dead_one(pair: Pair) -> None:
    first, second = pair
    first.dispatcher(FIRST)
    first.put(1, 2)
    list(first.queue.dispatchers[FIRST]["main"].claim_jobs(2))
    first.commit()
    begin(pair)
    for view in pair:
        view.queue.dispatchers[FIRST].deactivate()
    one_fails(pair)
    begin(pair)
    assert numbers(second.queue) == [1, 2]
    assert len(second.queue) == 2


def test_a_ping_and_a_claim_of_another_dispatcher_do_not_conflict(
    pair: Pair, standing_clock: StandingClock
) -> None:
    first, second = pair
    for uuid in IDS:
        first.dispatcher(uuid)
    first.put(1)
    standing_clock.move(seconds=20)
    begin(pair)
    first.queue.dispatchers.ping(FIRST)
    assert second.queue.dispatchers[SECOND]["main"].claimJob() is not None
    both_commit(pair)


def test_two_dispatchers_that_come_at_the_same_time_do_not_conflict(pair: Pair) -> None:
    begin(pair)
    for view, uuid in zip(pair, IDS, strict=True):
        view.queue.dispatchers.register(uuid).activate()
    both_commit(pair)
    begin(pair)
    assert list(pair[1].queue.dispatchers) == [FIRST, SECOND]


def test_extras_for_a_running_job_do_not_conflict_with_its_end(pair: Pair) -> None:
    first, second = pair
    first.dispatcher(FIRST)
    first.put(1)
    job = first.queue.dispatchers[FIRST]["main"].claimJob()
    job.start(77)
    first.commit()
    begin(pair)
    second.see(job).annotations["seen"] = True
    job._v_unused = None
    job._active_end = 1
    second.commit()
    first.commit()
    begin(pair)
    assert dict(job.annotations) == {"seen": True}
