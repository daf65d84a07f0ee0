# SPDX-License-Identifier: ZPL-2.1
"""The 28 places of a job's life at which its process can die, each with every way of recovery.

At each of them the same process also meets, instead of death, a commit whose reply is lost, one
that is disconnected, and one that conflicts.  All in one process, on virtual time; real processes
are killed elsewhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from persistent.mapping import PersistentMapping
from twisted.internet.defer import Deferred

from zasync import local
from zasync.foundation import clock
from zasync.interfaces import COMPLETED
from zasync.job import Job, RetryCommonForever
from zasync.testing import fail_points
from zasync.testing.crashing import Accident
from zasync.testing.faults import Killed, Point
from zasync.testing.processes import Cluster, Process, cluster

FIRST, SECOND, THIRD, LONG_GONE = (UUID(int=number) for number in range(1, 5))
USER_CODE = "user code"  # a place that no name of ours is for


class Story(enum.Enum):
    """What is going on when it happens."""

    PUT = "a client puts the jobs"
    WORK = "one process does the jobs"
    FAIL_ONCE = "one process does the jobs, and the first one fails once"
    FAIL = "one process does the jobs, and the first one always fails"
    DEATH = "another process has died while it did the jobs"
    PRUNE = "there is the record of a process that never came back"
    STOP = "the process is told to stop while a job waits for a Deferred"


@dataclasses.dataclass(frozen=True)
class KillPoint:
    """A place: the named one and, with `at`, the point of the next commit after it."""

    number: int
    words: str
    place: str
    at: Point | None = None
    skip: int = 0
    story: Story = Story.WORK


KILL_POINTS = [
    KillPoint(1, "before the client's commit", "put.added", story=Story.PUT),
    KillPoint(2, "in the client's commit", "put.added", Point.BEFORE_FINISH, story=Story.PUT),
    KillPoint(3, "committed, client not told", "put.added", Point.AFTER_FINISH, story=Story.PUT),
    KillPoint(4, "chosen, not committed", "poll.claimed"),
    KillPoint(5, "in the commit of the claim", "poll.claimed", Point.BEFORE_FINISH),
    KillPoint(6, "claimed, not handed to a thread", "poll.committed"),
    KillPoint(7, "in the thread, not loaded", "run.taken"),
    KillPoint(8, "before the user's code", "run.begun"),
    KillPoint(9, "inside the user's code", USER_CODE),
    KillPoint(10, "after the user's code", "run.returned"),
    KillPoint(11, "between vote and finish of the result", "run.committing", Point.BEFORE_FINISH),
    KillPoint(12, "result committed, nobody told", "run.committing", Point.AFTER_FINISH),
    KillPoint(13, "result committed, no books kept", "run.settled"),
    KillPoint(14, "before the first callback", "callbacks.chosen"),
    KillPoint(15, "between two callbacks", "callbacks.called"),
    KillPoint(16, "in the commit of a callback", "callbacks.chosen", Point.BEFORE_FINISH),
    KillPoint(17, "last callback done, status not written", "callbacks.next", skip=2),
    KillPoint(18, "before the quota is released, with the result", "run.committing"),
    KillPoint(19, "before the move to the completed", "poll.tidying", skip=1),
    KillPoint(20, "failed, nothing noted", "run.failed", story=Story.FAIL_ONCE),
    KillPoint(
        21, "in the rescheduling", "run.rescheduling", Point.BEFORE_FINISH, story=Story.FAIL_ONCE
    ),
    KillPoint(22, "in giving up", "run.failing", Point.BEFORE_FINISH, story=Story.FAIL),
    KillPoint(23, "in the commit of a ping", "poll.pinged", Point.BEFORE_FINISH, skip=1),
    KillPoint(24, "in declaring a sibling dead", "recovery.found_dead", story=Story.DEATH),
    KillPoint(25, "between two jobs handed back", "recovery.handed_back", story=Story.DEATH),
    KillPoint(26, "in seeing to an interruption", "recovery.interrupting", story=Story.DEATH),
    KillPoint(27, "in forgetting old records", "maintenance.pruned", story=Story.PRUNE),
    KillPoint(28, "in a clean stop", "stop.deactivating", story=Story.STOP),
]

RECOVERIES = {"same name": [FIRST], "sibling": [THIRD], "both": [THIRD, FIRST]}
"""Who comes after the process has died."""

OTHER_ACCIDENTS = [Accident.REPLY_LOST, Accident.DISCONNECTED, Accident.CONFLICT]

each_point = pytest.mark.parametrize(
    "point", KILL_POINTS, ids=lambda point: f"{point.number} {point.words}"
)


class World:
    """What is outside of the database, and survives the death of processes."""

    def __init__(self) -> None:
        self.entered: Callable[[], object] | None = None  # called by the user's code
        self.failures = 0
        self.suspensions = 0

    def enter(self) -> None:
        if self.entered is not None:
            self.entered()


world = World()


class Ledger(PersistentMapping):
    """Counts what was committed, by name."""

    def count(self, name: str) -> None:
        self[name] = self.get(name, 0) + 1

    def work(self, name: str) -> Any:
        self.count(name)
        world.enter()
        if world.failures:
            world.failures -= 1
            raise ValueError("not this time")
        if world.suspensions:
            world.suspensions -= 1
            self.count(f"{name} began")
            return Deferred()
        return name


def told_first(result: Any) -> None:
    note_call("told first")


def told_second(result: Any) -> None:
    note_call("told second")


def note_call(name: str) -> None:
    local.getJob()._p_jar.root()["ledger"].count(name)


class Later(RetryCommonForever):
    """Once more in a second."""

    def jobError(self, failure: Any, data_cache: Any) -> Any:
        return timedelta(seconds=1)


@pytest.fixture(autouse=True)
def no_leftovers() -> Iterator[None]:
    world.__init__()  # type: ignore[misc]
    yield
    fail_points.disarm()
    world.__init__()  # type: ignore[misc]


class Play:
    """One story with one accident in it."""

    def __init__(self, here: Cluster, point: KillPoint) -> None:
        self.here = here
        self.point = point
        self.jobs: list[Any] = []
        self.victim: Process | None = None
        here.root["ledger"] = Ledger()
        here.queue.quotas.create("one at a time")
        here.commit()

    @property
    def ledger(self) -> Any:
        return self.here.root["ledger"]

    @property
    def storage(self) -> Any:
        return self.here.storage if self.victim is None else self.victim.storage

    # What goes on

    def put(self) -> None:
        """The jobs, together with something of the client's own."""
        limited = ["one at a time"]
        self.jobs = [Job(self.ledger.work, name) for name in ("first", "second", "third")]
        first, second, _ = self.jobs
        first.quota_names = second.quota_names = limited
        if self.point.story is Story.FAIL_ONCE:
            first.retry_policy_factory = Later
        first.addCallback(told_first)
        first.addCallback(told_second)
        self.ledger["ordered"] = 1
        for job in self.jobs:
            self.here.queue.put(job)
        self.here.commit()

    def prepare(self) -> None:
        """All that comes before the accident."""
        story = self.point.story
        if story is Story.PUT:
            return
        self.put()
        if story in (Story.FAIL_ONCE, Story.FAIL):
            world.failures = 1
        elif story is Story.DEATH:
            self._have_one_die()
        elif story is Story.PRUNE:
            record = self.here.queue.dispatchers.register(LONG_GONE)
            record.deactivated = clock.now() - timedelta(days=30)
            self.here.commit()
        elif story is Story.STOP:
            world.suspensions = 1
        self.victim = self.here.add(FIRST)

    def _have_one_die(self) -> None:
        former = self.here.add(SECOND)
        world.entered = former.storage.kill
        former.start()
        self.here.fly(1)
        world.entered = None
        assert former.dead

    def go_on(self) -> None:
        """That during which the accident is to happen."""
        if self.victim is None:
            with contextlib.suppress(Killed):
                self._put_for_sure()
            return
        self.victim.start()
        if self.point.story is Story.STOP:
            self.here.run_until(lambda: "first began" in self.ledger)
            with contextlib.suppress(Killed):
                self.victim.stop()
            return
        self.here.run_to_the_end(*self.jobs)
        self.here.fly(60)  # some pings, and some tidying

    def _put_for_sure(self) -> None:
        """Put the jobs; after an error look whether they were put, as a client must."""
        for _ in range(3):
            with contextlib.suppress(Exception):
                self.put()
            self.here.manager.abort()
            self.here.begin()
            if self._was_put():
                return

    def _was_put(self) -> bool:
        """Whether client data and jobs are there: both, or neither."""
        queued = list(self.here.queue)
        assert len(queued) == (3 if "ordered" in self.ledger else 0)
        self.jobs = queued
        return bool(queued)

    def recover(self, names: list[UUID]) -> None:
        """Others come, and go on to the end."""
        if self.victim is None:
            self.here.manager.abort()
            self.here.storage.revive()
            self.here.begin()
            if not self._was_put():
                self.put()
        for uuid in names:
            self.here.add(uuid).start()
        self.here.run_to_the_end(*self.jobs)

    # What must be so in the end

    def check(self) -> None:
        here = self.here
        here.begin()
        assert [job.status for job in self.jobs] == [COMPLETED] * 3
        expected = {"ordered": 1, "told first": 1, "told second": 1}
        expected |= {"first": 1, "second": 1, "third": 1}
        began = {name: count for name, count in self.ledger.items() if name.endswith("began")}
        results = [job.result for job in self.jobs]
        if self.point.story is Story.FAIL:
            assert self.failed_for_good(expected) <= 1
        elif self.point.story is Story.STOP:  # what it did before it waited was committed
            assert began == {"first began": 1}
            expected |= began | {"first": 2}
        assert dict(self.ledger) == expected
        if self.point.story is not Story.FAIL:
            assert results == ["first", "second", "third"]
        assert here.is_tidy()
        quota = here.queue.quotas["one at a time"]
        quota.clean()  # as the next claim does that finds it full
        assert not quota.filled
        assert len(quota) == 0

    def failed_for_good(self, expected: dict[str, int]) -> int:
        """How many jobs ended as failures; their effects are not expected."""
        failed = [job for job in self.jobs if job.failed]
        for job in failed:
            assert job.result.check(ValueError)
            del expected[job.args[0]]
        return len(failed)


@contextlib.contextmanager
def happening(point: KillPoint, action: Callable[[], object]) -> Iterator[Callable[[], int]]:
    """`action()` at the place of `point`, once; gives the count of how often it was so."""
    if point.place != USER_CODE:
        with fail_points.armed(point.place, action, skip=point.skip, times=1) as armed:
            yield lambda: armed.met
        return
    armed = fail_points.Armed(action, point.skip, 1)
    world.entered = armed
    yield lambda: armed.met
    world.entered = None


@each_point
@pytest.mark.parametrize("recovery", RECOVERIES)
def test_a_death_is_survived(point: KillPoint, recovery: str) -> None:
    with cluster() as here:
        play = Play(here, point)
        play.prepare()
        storage = play.storage

        def die() -> None:
            if point.at is None:
                storage.kill()
            storage.fail(point.at, Killed(), only_here=True)

        with happening(point, die) as happened:
            play.go_on()
        assert happened() == 1, "the place was reached"
        assert storage.dead, "that was the end of the process"

        play.recover(RECOVERIES[recovery])
        play.check()


@each_point
@pytest.mark.parametrize("accident", OTHER_ACCIDENTS, ids=lambda accident: accident.name)
def test_a_commit_that_goes_wrong_is_survived(point: KillPoint, accident: Accident) -> None:
    with cluster() as here:
        play = Play(here, point)
        play.prepare()
        faults = []

        def spoil_next_commit() -> None:
            # A stop says its last word in a thread of its own, when nothing else goes on.
            only_here = point.story is not Story.STOP
            faults.append(accident.prepare(play.storage, only_here=only_here))

        with happening(point, spoil_next_commit) as happened:
            play.go_on()
        assert happened() == 1, "the place was reached"
        assert faults[0].met == 1, "and the commit after it was spoiled"

        if point.story in (Story.PUT, Story.STOP):
            here.add(SECOND).start()
            here.run_to_the_end(*play.jobs)
        play.check()


def test_all_points_are_there() -> None:
    assert [point.number for point in KILL_POINTS] == list(range(1, 29))
    places = {point.place for point in KILL_POINTS}
    assert places - {USER_CODE} <= set(fail_points.POINTS)
