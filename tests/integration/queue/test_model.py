# SPDX-License-Identifier: ZPL-2.1
"""The queue against a plain list: whatever is done to both, they agree."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import ZODB
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from ZODB.DemoStorage import DemoStorage

from tests.support.clocks import StandingClock
from tests.support.queues import View, install_queue, numbered, numbers
from zasync.foundation import clock
from zasync.interfaces import NEW, PENDING

QUOTAS = {"one": 1, "two": 2}
NAMES = st.sampled_from([(), (), ("one",), ("two",), ("one", "two")])
FIRST_OF_ALL = -1  # the rank of what was put back


class Waiting:
    """What the model knows of one waiting job."""

    def __init__(self, job: Any, rank: int, moment: int, turn: int) -> None:
        self.job = job
        self.order = (rank, moment, turn)
        self.due = moment if rank == 0 else 0


class QueueMachine(RuleBasedStateMachine):
    """Puts, claims and returns jobs, with time going on, and commits now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = StandingClock()
        self.previous = clock.install(self.clock)
        self.db = ZODB.DB(DemoStorage())
        install_queue(self.db)
        self.view = View(self.db)
        self.kept = self.view.root["kept"] = self.view.root.__class__()
        for name, size in QUOTAS.items():
            self.view.queue.quotas.create(name, size)
        self.view.commit()
        self.waiting: list[Waiting] = []
        self.claimed: list[Any] = []
        self.holding: set[int] = set()  # numbers of jobs that hold their places
        self.turn = 0

    def teardown(self) -> None:
        self.view.close()
        self.db.close()
        clock.install(self.previous)

    # The model

    def expect(self, job: Any, rank: int, moment: int) -> None:
        self.turn += 1
        turn = -self.turn if rank == FIRST_OF_ALL else self.turn
        self.waiting.append(Waiting(job, rank, 0 if rank == FIRST_OF_ALL else moment, turn))
        self.waiting.sort(key=lambda waiting: waiting.order)

    def forget(self, job: Any) -> None:
        self.waiting = [waiting for waiting in self.waiting if waiting.job is not job]

    def fits(self, job: Any) -> bool:
        if job.args[0] in self.holding:
            return True
        return all(self.held(name) < QUOTAS[name] for name in job.quota_names)

    def held(self, name: str) -> int:
        jobs = [*self.claimed, *(waiting.job for waiting in self.waiting)]
        return sum(name in job.quota_names and job.args[0] in self.holding for job in jobs)

    # What is done to both

    @rule(names=NAMES)
    def put(self, names: tuple[str, ...]) -> None:
        job = self.view.queue.put(numbered(self.turn, *names))
        self.expect(job, 0, clock.now_micros())

    @rule(names=NAMES, minutes=st.integers(-3, 30))
    def put_for_later(self, names: tuple[str, ...], minutes: int) -> None:
        moment = self.clock.now() + timedelta(minutes=minutes)
        job = self.view.queue.put(numbered(self.turn, *names), begin_after=moment)
        self.expect(job, 0, max(clock.now_micros(), clock.to_micros(moment)))

    @rule(most=st.integers(1, 5))
    def claim(self, most: int) -> None:
        expected = []
        for waiting in list(self.waiting):
            if len(expected) == most:
                break
            if waiting.due <= clock.now_micros() and self.fits(waiting.job):
                self.forget(waiting.job)
                self.claimed.append(waiting.job)
                self.holding.add(waiting.job.args[0])
                expected.append(waiting.job)
        found = []
        for job in self.view.queue.claims():
            found.append(job)
            self.kept[str(job.args[0])] = job
            if len(found) == most:
                break
        assert numbers(found) == numbers(expected)

    @precondition(lambda self: self.claimed)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        job = self.claimed.pop(data.draw(st.integers(0, len(self.claimed) - 1)))
        self.view.queue.putBack(job)
        self.expect(job, FIRST_OF_ALL, 0)

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), minutes=st.integers(0, 30))
    def reschedule(self, data: st.DataObject, minutes: int) -> None:
        job = self.claimed.pop(data.draw(st.integers(0, len(self.claimed) - 1)))
        moment = clock.to_micros(self.clock.now() + timedelta(minutes=minutes))
        self.holding.discard(job.args[0])
        self.view.queue.reschedule(job, moment)
        self.expect(job, 0, moment)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def pull(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(-len(self.waiting), len(self.waiting) - 1))
        job = self.waiting[index].job
        assert self.view.queue.pull(index) is job
        self.forget(job)
        self.holding.discard(job.args[0])
        assert job.status == NEW

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), names=NAMES)
    def change_quotas(self, data: st.DataObject, names: tuple[str, ...]) -> None:
        waiting = self.waiting[data.draw(st.integers(0, len(self.waiting) - 1))]
        if waiting.job.args[0] not in self.holding:
            waiting.job.quota_names = names

    @rule(seconds=st.integers(0, 600))
    def let_time_pass(self, seconds: int) -> None:
        self.clock.move(seconds=seconds)

    @rule()
    def commit(self) -> None:
        self.view.commit()

    # What must always be true

    @invariant()
    def the_queue_and_the_list_agree(self) -> None:
        queue = self.view.queue
        assert numbers(queue) == numbers(waiting.job for waiting in self.waiting)
        assert len(queue) == len(self.waiting)
        assert bool(queue) == bool(self.waiting)
        assert all(job.status == PENDING and job.parent is queue for job in queue)

    @invariant()
    def quotas_hold(self) -> None:
        for name, size in QUOTAS.items():
            quota = self.view.queue.quotas[name]
            quota.clean()
            assert len(quota) == self.held(name) <= size


QueueMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestQueueAgainstAList = QueueMachine.TestCase
