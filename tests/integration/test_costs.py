# SPDX-License-Identifier: ZPL-2.1
"""What a job costs, counted and never timed: commits, records, bytes, loads, polls, conflicts.

What these figures are for is in docs/decisions/0012-ahead-of-need.md and 0013-groups.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import transaction
import ZODB
from ZODB.FileStorage import FileStorage
from ZODB.POSException import ConflictError

from tests.integration.dispatcher import jobs_for_tests as jobs
from tests.support.queues import View, always_lane, install_queue
from tests.support.running import Site
from tests.support.single import TWO, Single, single
from zasync.agent import Agent
from zasync.interfaces import COMPLETED
from zasync.job import Job
from zasync.queue.memory import ClaimMemory

HEADER = 42  # bytes that a FileStorage adds to each record
JOBS = 400


class Counting(FileStorage):
    """Counts what is committed and read."""

    commits = records = bytes = loads = 0

    def store(self, oid: bytes, serial: bytes, data: bytes, *rest: Any) -> Any:
        self.records += 1
        self.bytes += len(data) + HEADER
        return super().store(oid, serial, data, *rest)

    def loadBefore(self, oid: bytes, tid: bytes) -> Any:
        self.loads += 1
        return super().loadBefore(oid, tid)

    def tpc_finish(self, *args: Any) -> Any:
        self.commits += 1
        return super().tpc_finish(*args)

    def reset(self) -> None:
        self.commits = self.records = self.bytes = self.loads = 0


@pytest.fixture
def storage(tmp_path: Path) -> Counting:
    return Counting(str(tmp_path / "Data.fs"))


@pytest.fixture
def db(storage: Counting) -> Iterator[Any]:
    database = ZODB.DB(storage)
    yield database
    database.close()


@pytest.fixture
def site(db: Any) -> Iterator[Site]:
    jobs.reset()
    site = Site(db)
    yield site
    site.close()


def fill(site: Site, count: int, each: int = 100, **options: Any) -> None:
    for _ in range(0, count, each):
        made = [Job(jobs.note, number) for number in range(each)]
        site.commit(lambda made=made: site.queue.put_many(made, **options))


def drain(one: Single, ahead: int) -> None:
    while True:
        one.poll(ahead)
        if not one.work():
            break
    one.site.manager.begin()
    assert len(one.site.queue) == 0


@pytest.mark.parametrize(("batch", "commits", "loads"), [(1, 1.05, 2.5), (100, 0.05, 1.5)])
def test_what_a_plain_job_costs(
    site: Site, storage: Counting, monkeypatch: Any, batch: int, commits: float, loads: float
) -> None:
    with single(site, monkeypatch, size=10, batch=batch) as one:
        one.learn(("global", jobs.__name__, "note"))
        storage.reset()
        fill(site, JOBS)
        put = storage.commits
        drain(one, 90)
        assert (storage.commits - put) / JOBS <= commits
        assert storage.records / JOBS <= 4
        assert storage.bytes / JOBS <= 1200
        assert storage.loads / JOBS <= loads


def test_the_payload_is_written_once(site: Site, storage: Counting, monkeypatch: Any) -> None:
    large = "x" * 20_000
    with single(site, monkeypatch, size=1) as one:
        storage.reset()
        job = site.put(Job(jobs.note, large))
        drain(one, 0)
        site.manager.begin()
        assert job.status == COMPLETED
    assert 20_000 < storage.bytes - 20_000 < 25_000  # the argument, and the result that repeats it


def test_a_put_makes_one_record_and_writes_three(site: Site, storage: Counting) -> None:
    fill(site, 1, each=1)
    known = len(storage)
    storage.reset()
    fill(site, 1, each=1)
    assert len(storage) - known == 1
    assert storage.records == 3


def loads_of_a_claim(site: Site, memory: ClaimMemory, agent: Agent) -> int:
    """How many records a second claim of ten jobs reads, in a new connection's small cache."""
    connection = site.db.open(transaction.TransactionManager())
    try:
        view = connection.get(agent._p_oid)
        for _ in range(2):
            connection.getTransferCounts(True)
            assert len(list(view.claim_jobs(10, memory, ahead=1000))) == 10
            loads: int = connection.getTransferCounts(True)[0]
            connection.transaction_manager.abort()
            connection.transaction_manager.begin()
        return loads
    finally:
        connection.transaction_manager.abort()
        connection.close()


def odd(job: Any) -> bool:
    return bool(job.args[0] % 2)


@pytest.fixture
def agent(site: Site) -> Any:
    def register() -> Any:
        record = site.queue.dispatchers.register(TWO)
        record["main"] = Agent(size=10)
        record.activate()
        return record["main"]

    return site.commit(register)


def test_a_claim_reads_no_more_when_thousands_wait(site: Site, agent: Any) -> None:
    fill(site, 100)
    few = loads_of_a_claim(site, ClaimMemory(), agent)
    fill(site, 5000, each=500)
    assert loads_of_a_claim(site, ClaimMemory(), agent) <= few + 16  # the trees are deeper


def test_a_claim_reads_no_more_when_thousands_are_scheduled(site: Site, agent: Any) -> None:
    from zasync.foundation import clock

    fill(site, 100)
    few = loads_of_a_claim(site, ClaimMemory(), agent)
    later = clock.now() + timedelta(hours=1)
    fill(site, 5000, each=500, begin_after=later)
    assert loads_of_a_claim(site, ClaimMemory(), agent) <= few + 16


def test_a_claim_does_not_read_again_what_its_filter_refused(site: Site, agent: Any) -> None:
    from tests.support.clocks import StandingClock
    from zasync.foundation import clock

    standing = StandingClock()
    before = clock.install(standing)
    try:
        refused = [Job(jobs.note, 2 * number) for number in range(3000)]
        site.commit(lambda: site.queue.put_many(refused))
        standing.move(seconds=30)
        site.commit(lambda: site.queue.put_many([Job(jobs.note, 1) for _ in range(50)]))
        standing.move(seconds=30)
        site.commit(lambda: agent.parent.ping())
        memory = ClaimMemory()
        plain = loads_of_a_claim(site, memory, agent)
        site.commit(lambda: setattr(agent, "filter", odd))
        assert loads_of_a_claim(site, memory, agent) <= plain + 60
        # A job that comes late, and lies before the mark, is found when the filter is asked again.
        standing.move(seconds=-50)
        other = Site(site.db)  # in this one puts never go back in time
        oid = other.put(Job(jobs.note, 3))._p_oid
        site.manager.begin()
        late = site.connection.get(oid)
        other.close()
        standing.move(seconds=120)
        site.commit(lambda: agent.parent.ping())
        assert late in list(agent.claim_jobs(1, memory))
        site.manager.abort()
    finally:
        clock.install(before)


def test_full_quotas_are_passed_over_without_a_look_at_their_jobs(site: Site, agent: Any) -> None:
    def fill_quotas() -> None:
        for number in range(100):
            site.queue.quotas.create(str(number), 0)
            job = Job(jobs.note, number)
            job.quota_names = (str(number),)
            site.queue.put(job)

    fill(site, 100)
    memory = ClaimMemory()
    few = loads_of_a_claim(site, memory, agent)
    site.commit(fill_quotas)
    # Of each line itself, and what was put back in it; but of no lane, no job and no quota.
    assert loads_of_a_claim(site, memory, agent) <= few + 310


def test_a_burst_of_puts_makes_few_polls(site: Site, monkeypatch: Any) -> None:
    asked = []
    with single(site, monkeypatch, size=3) as one:
        monkeypatch.setattr(one.dispatcher, "wake", lambda: asked.append(1))
        one.poll(ahead=20)
        for number in range(1000):
            site.put(Job(jobs.note, number))
            if asked:  # many hints make one poll
                asked.clear()
                one.poll(ahead=20)
        polls = one.dispatcher.polls.total
        one.work()
    assert polls <= 40


def test_hurried_polls_look_at_the_pings_of_others_once_a_second(
    site: Site, agent: Any, monkeypatch: Any
) -> None:
    """Each claim of a sibling touches its ping, so that would have to be read anew."""
    from tests.support.clocks import StandingClock
    from zasync.foundation import clock

    standing = StandingClock()
    before = clock.install(standing)
    looks: list[Any] = []
    try:
        with single(site, monkeypatch) as one:
            observer = one.dispatcher._poller.observer
            monkeypatch.setattr(observer, "is_dead", looks.append)
            for _ in range(5):
                one.dispatcher._poll(True)
            assert len(looks) == 1
            standing.move(seconds=1)
            one.dispatcher._poll(True)
            assert len(looks) == 2
            one.dispatcher._poll(False)
            one.dispatcher._poll(False)
            assert len(looks) == 4
    finally:
        clock.install(before)


class Four:
    """Four dispatchers, and what came of their claims."""

    def __init__(self, db: Any) -> None:
        install_queue(db)
        self.views = [View(db) for _ in range(4)]
        self.memories = [ClaimMemory(leaves_to_others=True) for _ in self.views]
        self.agents = []
        self.jobs = self.commits = self.conflicts = 0
        for number, view in enumerate(self.views):
            view.begin()
            record = view.queue.dispatchers.register(UUID(int=number + 1))
            record["main"] = Agent(size=10)
            record.activate()
            view.commit()
            self.agents.append(record["main"])

    def put(self, count: int) -> None:
        self.views[0].begin()
        self.views[0].queue.put_many([Job(jobs.note, number) for number in range(count)])
        self.views[0].commit()

    def claim(self, each_meets: int) -> None:
        """Each in turn tidies what it holds, and claims; so many have begun when one commits."""
        under_way: deque[tuple[int, int]] = deque()
        for number, view in enumerate(self.views):
            view.begin()
            agent = self.agents[number]
            for place, _job in agent.held():
                agent.tidy(place, False)
            claimed = list(agent.claim_jobs(40, self.memories[number], ahead=30))
            under_way.append((number, len(claimed)))
            if len(under_way) > each_meets:
                self.commit(*under_way.popleft())
        while under_way:
            self.commit(*under_way.popleft())

    def commit(self, number: int, claimed: int) -> None:
        self.commits += 1
        try:
            self.views[number].commit()
            self.jobs += claimed
        except ConflictError:
            self.conflicts += 1
            self.memories[number].forget_refusals()
            self.views[number].abort()


@pytest.fixture
def four(db: Any) -> Iterator[Four]:
    four = Four(db)
    yield four
    for view in four.views:
        view.close()


def test_four_dispatchers_seldom_meet(four: Four) -> None:
    four.put(4000)
    for _ in range(20):
        four.claim(each_meets=3)  # more often than any clock would have it
    assert four.jobs >= 3000
    assert four.conflicts <= 0.01 * four.jobs


def test_three_dispatchers_that_help_a_fourth_seldom_meet(
    four: Four, db: Any, monkeypatch: Any
) -> None:
    """All jobs lie in the lanes of one."""
    from tests.support.clocks import StandingClock
    from zasync.foundation import clock

    standing = StandingClock()
    before = clock.install(standing)
    try:
        for lane in (3, 7):
            monkeypatch.setattr(standing.random, "shuffle", always_lane(lane))
            for _ in range(40):
                four.put(20)
        standing.move(seconds=1)
        while four.jobs < 1200:
            four.claim(each_meets=1)
            standing.move(seconds=0.05)
    finally:
        clock.install(before)
    # If all of them took the first jobs, it would be half of the claims.
    assert four.conflicts < 0.04 * (four.commits + four.jobs)
    assert four.conflicts < 0.35 * four.commits
