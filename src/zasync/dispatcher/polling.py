# SPDX-License-Identifier: ZPL-2.1
"""One poll, in one transaction: tidy what ended, ping, claim for the free places, mark, commit.

Then, and only if it was committed, hand over.  A poll answers how long to sleep.  What it believes
comes from the database each time: a claim whose commit was in doubt is found by the next poll.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any

from zasync.dispatcher import cancelling
from zasync.dispatcher.condition import overdue_report
from zasync.dispatcher.history import Key, PollInfo
from zasync.dispatcher.liveness import Observer
from zasync.dispatcher.pool import RECALL_AFTER, Pool, Tracked
from zasync.dispatcher.pulse import Ping
from zasync.failure import Failure
from zasync.foundation import clock
from zasync.foundation.attempts import OwnManager, Stopped, end
from zasync.foundation.errors import Trouble, classify, why_unreadable
from zasync.foundation.failpoints import reach
from zasync.foundation.process import this_process
from zasync.foundation.reporting import events
from zasync.interfaces import ACTIVE, ASSIGNED, CALLBACKS, COMPLETED, KEY, IAgent
from zasync.job import bookkeeping, crashes, two_databases
from zasync.job.crashes import STOPPED
from zasync.job.group import Joining
from zasync.job.run import Ending
from zasync.queue import ClaimMemory, hand_back_one
from zasync.queue.registration import BATCH, IsDead
from zasync.queue.waiting import LEFT_TO_OTHERS

FIRST_PAUSE = 0.05  # seconds after a poll that could not commit; doubled each time
PRUNE_INTERVAL = 3600.0  # seconds
SWEEP_AGAIN = 600.0  # seconds until jobs left behind that nobody could read are tried again
WATCH_EVERY = 1.0  # seconds between two looks of hurried polls at the pings of others
RETRY_TWIN = 60.0  # seconds between two complaints about a twin


@dataclasses.dataclass(frozen=True)
class Size:
    """How many jobs of an agent may run at once, and how a thread groups them."""

    places: int = 0
    batch: int = 1
    batch_time: float = 0.05  # seconds


@dataclasses.dataclass
class Plan:
    """What is to be done in this process if the transaction is committed."""

    hurried: bool = False  # a hint hastened the poll
    tidied: list[tuple[Pool, Tracked]] = dataclasses.field(default_factory=list)
    started: list[tuple[Pool, Tracked]] = dataclasses.field(default_factory=list)
    members: list[tuple[Tracked, Any]] = dataclasses.field(default_factory=list)
    joined: set[str] = dataclasses.field(default_factory=set)
    recalled: list[tuple[Pool, Tracked]] = dataclasses.field(default_factory=list)
    sizes: dict[tuple[str, str], Size] = dataclasses.field(default_factory=dict)
    bells: list[bytes] = dataclasses.field(default_factory=list)
    due: list[float] = dataclasses.field(default_factory=list)  # moments, seconds of the clock
    pings: dict[str, Ping] = dataclasses.field(default_factory=dict)  # by queue
    has_room: bool = False  # there are places for which no job was found
    urgent: bool = False  # must be committed, even if only by this poll
    began: datetime = dataclasses.field(default_factory=clock.now)

    def can_wait(self) -> bool:
        """Whether nothing but the tidying of ended jobs would be committed."""
        return not self.urgent and not self.started and not self.joined


class Poller:
    """Polls for one dispatcher; not re-entrant."""

    def __init__(self, dispatcher: Any, incarnation: int) -> None:
        self.dispatcher = dispatcher
        self.incarnation = incarnation
        self.manager = OwnManager()
        self.connection = dispatcher.db.open(transaction_manager=self.manager)
        self.observer = Observer()
        self.memory = ClaimMemory(leaves_to_others=True)
        self.joined: set[str] = set()
        self.abandoned = False  # nobody waits for it any more; it is to change nothing
        self._pause = FIRST_PAUSE
        self._twin_reported: dict[str, float] = {}
        self._prune_at: dict[str, float] = {}
        self._sweep_at: dict[tuple[str, int], float] = {}
        self._watch_at: dict[str, float] = {}

    def poll(self, *, hurried: bool = False) -> float:
        """Do one poll; answers the seconds until the next one.

        A `hurried` poll (after a hint) leaves mere tidying to a later one, so that it can share
        that one's commit.
        """
        info = PollInfo(self.dispatcher.polls.next_key())
        began = clock.monotonic()
        groups = any(pool.batch > 1 for pool in self.dispatcher.pools())
        try:
            with self.dispatcher.turns.turn(groups):
                plan = self._transact(info, hurried)
        except Stopped:
            return 0.0
        except Exception as error:
            return self._after_error(error)
        self._pause = FIRST_PAUSE
        self.dispatcher.pulse.committed(began, plan.pings)
        reach("poll.committed")
        self._act(plan)
        self.dispatcher.polls.add(info)
        events.polled(info)
        seconds = self.dispatcher.regular_interval
        now = clock.now().timestamp()
        return float(max(0.0, min([seconds, *(moment - now for moment in plan.due)])))

    def _transact(self, info: PollInfo, hurried: bool) -> Plan:
        try:
            # Where a storage learns of others at the begin, a lost connection shows there, and
            # leaves a transaction behind that is to be ended like any other.
            self.manager.begin()
            plan = Plan(hurried)
            self.memory.last_chance_held = self._holds_last_chance()
            for name, queue in self._queues():
                self._work_queue(name, queue, plan, info)
            self._forget_gone(plan)
            if plan.hurried and plan.can_wait():
                plan.tidied.clear()
                self.manager.abort()
            else:
                reach("poll.committing")
                if self.abandoned:
                    raise Stopped
                self.manager.commit()
            return plan
        except BaseException:
            end(self.manager)
            raise

    def _holds_last_chance(self) -> bool:
        """Whether a job runs here that is parked if this process dies."""
        return any(
            tracked.last_chance and tracked.outcome is None
            for pools in self.dispatcher.queues.values()
            for pool in pools.values()
            for tracked in pool.tracked.values()
        )

    def _after_error(self, error: Exception) -> float:
        self.memory.forget_refusals()
        if classify(error, from_storage=True) is Trouble.OTHER:
            events.poll_failed(error)
        else:
            events.poll_repeated(error, self._pause)
        pause, self._pause = self._pause, min(self._pause * 2, self.dispatcher.poll_interval)
        if classify(error, from_storage=True) is Trouble.CONFLICT:
            pause = clock.current().random.uniform(0, min(pause, 0.05))
        return pause

    def _queues(self) -> list[tuple[str, Any]]:
        queues = self.connection.root().get(KEY)
        return [] if queues is None else self.dispatcher.select_queues(queues.items())

    # One queue

    def _work_queue(self, name: str, queue: Any, plan: Plan, info: PollInfo) -> None:
        info.add_queue(name)
        record = self._own_record(name, queue, plan)
        if record is None:
            return
        before = record.last_ping.value
        queue.dispatchers.ping(self.dispatcher.UUID, self._look_at_siblings(name, plan))
        if record.incarnation != self.incarnation:  # others had deactivated us
            self._enter(record)
        is_new = record.last_ping.value != before or name in plan.joined
        plan.urgent |= is_new
        plan.pings[name] = Ping(
            is_new, record.ping_interval.total_seconds(), record.ping_death_interval.total_seconds()
        )
        if not plan.hurried:
            plan.urgent |= self._report(record)
        reach("poll.pinged")
        self._prune(name, queue, plan)
        if not plan.hurried:
            self._sweep(name, queue, plan)
        for agent_name, agent in list(record.items()):
            if IAgent.providedBy(agent):
                self._work_agent(name, agent_name, agent, plan, info)
        plan.bells += [counter._p_oid for counter in queue.counters() if counter._p_oid]
        due = queue.next_due()
        if due is not None and due > clock.now():
            plan.due.append(due.timestamp())
        if self.memory.left_to_others:
            self.memory.left_to_others = False
            plan.due.append(clock.now().timestamp() + LEFT_TO_OTHERS / 1_000_000)
        elif plan.has_room and (left := queue.next_of_others(self.dispatcher.UUID)) is not None:
            plan.due.append(left.timestamp())

    def _report(self, record: Any) -> bool:
        """Leave in the database what others should see; answers whether that is news."""
        report = overdue_report(self.dispatcher, record.parent.name)
        is_news: bool = record.last_ping.overdue != report
        if is_news:
            record.last_ping.overdue = report
        return is_news

    def _look_at_siblings(self, name: str, plan: Plan) -> IsDead:
        """How to judge whether a sibling is dead; now and then, since its claims touch its ping."""
        if not plan.hurried:
            return self.observer.is_dead
        now = clock.monotonic()
        if now < self._watch_at.get(name, 0.0):
            return lambda record: False
        self._watch_at[name] = now + WATCH_EVERY
        return self._only_watch

    def _only_watch(self, record: Any) -> bool:
        """Note the sibling's signs of life; to clear it away is left to a poll that commits."""
        self.observer.is_dead(record)
        return False

    def _sweep(self, name: str, queue: Any, plan: Plan) -> None:
        """Hand back a batch of what dead dispatchers held; the next poll, soon, goes on."""
        now = clock.monotonic()
        for record in queue.dispatchers.left_behind():
            key = (name, record.UUID.int)
            if now < self._sweep_at.get(key, 0.0):
                continue
            plan.urgent = True
            if record.hand_back(BATCH):
                plan.due.append(clock.now().timestamp())
                return
            if record.left_behind:  # and none of it can be read here
                self._sweep_at[key] = now + SWEEP_AGAIN

    def _prune(self, name: str, queue: Any, plan: Plan) -> None:
        """Now and then, forget the dispatchers that never came back."""
        now = clock.monotonic()
        if now >= self._prune_at.get(name, 0.0):
            self._prune_at[name] = now + PRUNE_INTERVAL
            plan.urgent |= bool(queue.dispatchers.prune())
            reach("maintenance.pruned")

    def _own_record(self, name: str, queue: Any, plan: Plan) -> Any:
        """Our record in the queue, activated by us; None if the queue is left to a twin."""
        uuid = self.dispatcher.UUID
        record = queue.dispatchers.get(uuid)
        is_new = record is None
        if is_new:
            record = queue.dispatchers.register(uuid)
            events.dispatcher_registered(uuid, name)
        if record.activated and record.incarnation == self.incarnation:
            return record
        if record.activated:
            if not self.observer.is_former_self(record):
                self._complain_of_twin(name)
                if self.observer.is_twin(record):
                    self.dispatcher.twins.add(name)
                return None
            events.former_self_recovered(uuid, name)
            record.deactivate(crashed=True, limit=0)
        elif name in self.joined and not is_new:  # a new one needs to be given its agents
            return record  # the ping will find it deactivated, and say so
        if record.left_behind and record.hand_back(BATCH) == BATCH:
            plan.urgent = True
            plan.due.append(clock.now().timestamp())
            return None  # go on with that first: what lies in our agents must be ours
        record.activate()
        self._enter(record)
        plan.joined.add(name)
        return record

    def _enter(self, record: Any) -> None:
        record.incarnation = self.incarnation
        record.process = this_process().to_state()
        if len(self.dispatcher.db.databases) > 1:
            record.databases = tuple(sorted(self.dispatcher.db.databases))

    def _complain_of_twin(self, name: str) -> None:
        now = clock.monotonic()
        if now - self._twin_reported.get(name, -RETRY_TWIN) >= RETRY_TWIN:
            self._twin_reported[name] = now
            events.twin_is_alive(self.dispatcher.UUID, name)

    # One agent

    def _work_agent(
        self, queue_name: str, agent_name: str, agent: Any, plan: Plan, info: PollInfo
    ) -> None:
        pool = self.dispatcher.pool(queue_name, agent_name)
        size = Size(agent.size, agent.batch, agent.batch_time.total_seconds())
        plan.sizes[queue_name, agent_name] = size
        cancelling.let_go(agent, pool, self.dispatcher)
        pool.recall(RECALL_AFTER)
        self._tidy(agent, pool, plan)
        if not self.dispatcher.activated:
            return  # told to stop while this poll is under way
        self._recognise(agent, pool, plan)
        seen = info.agent(queue_name, agent_name)
        ahead = pool.ahead()
        if ahead:
            ahead = min(ahead, agent.queue.fair_share(self.dispatcher.UUID))
        width = pool.width(size.places, size.batch)
        # More threads are told of it only after it is committed.
        plan.urgent |= agent.is_too_narrow(width) and agent.widen(width)
        groups = size.batch > 1 and len(self.dispatcher.db.databases) == 1
        joining = Joining(agent.queue.crash_limit) if groups else None
        room = max(0, size.places + ahead - agent.running)
        try:
            for job in agent.claim_jobs(room, self.memory, ahead=ahead):
                token = clock.current().token()
                job.start(token)
                seen["new jobs"].append(self._start(pool, job, plan, joining))
                reach("poll.claimed")
            if seen["new jobs"]:
                agent.widen(width)
            pool.queue_is_empty = len(seen["new jobs"]) < room
            plan.has_room |= pool.queue_is_empty
        except Exception as error:
            if classify(error, from_storage=True) is not Trouble.OTHER:
                raise  # the whole poll is to be repeated
            seen["error"] = Failure()
            events.agent_failed(queue_name, agent_name, error)
        seen["size"], seen["len"] = agent.size, len(agent)
        seen["active jobs"] = [tracked.key for tracked in pool.running()]

    def _tidy(self, agent: Any, pool: Pool, plan: Plan) -> None:
        """Move what has ended to where it belongs."""
        reach("poll.tidying")
        if pool.has_ended_jobs:
            self.memory.forget_full()
        held = {place: integer_oid(job) for place, job in agent.held()}
        recalled: list[Tracked] = []
        for tracked in list(pool.tracked.values()):
            # Said of all: one that is not looked at has the next poll follow at once.
            tracked.looked_at = tracked.outcome is not None
            if held.get(tracked.place) != tracked.key[0]:  # others took it out
                if tracked.outcome is not None or tracked.recalled:
                    plan.tidied.append((pool, tracked))
                continue
            if tracked.outcome is not None:
                self._tidy_one(agent, pool, tracked, plan)
                plan.tidied.append((pool, tracked))
            elif tracked.recalled:
                recalled.append(tracked)
        for tracked in reversed(recalled):  # so that they keep their order
            self._give_back(agent, pool, tracked, plan)
        for job in agent.awaiting():
            if why_unreadable(job) is None and job.status == COMPLETED:
                agent.jobCompleted(job)

    def _forget_gone(self, plan: Plan) -> None:
        """Forget what has ended of agents that are gone, or are a twin's: others see to that."""
        for pools in list(self.dispatcher.queues.values()):
            for pool in list(pools.values()):
                if (pool.queue_name, pool.agent_name) in plan.sizes:
                    continue
                for tracked in list(pool.tracked.values()):
                    tracked.looked_at = tracked.outcome is not None
                    if tracked.looked_at:
                        plan.tidied.append((pool, tracked))

    def _tidy_one(self, agent: Any, pool: Pool, tracked: Tracked, plan: Plan) -> None:
        outcome = tracked.outcome
        assert outcome is not None
        if outcome.ending is Ending.COMPLETED:
            agent.tidy(tracked.place, outcome.failed)
        elif outcome.ending in (Ending.SUPERSEDED, Ending.RESCHEDULED) and cancelling.tidy(
            agent, tracked.place
        ):
            plan.urgent = True
        elif outcome.ending is Ending.RESCHEDULED:
            bookkeeping.put_again(agent.take(tracked.place), agent.queue)
            plan.urgent = True
        elif outcome.ending in (Ending.WAITING, Ending.CALLBACKS):
            agent.await_others(tracked.place)
        elif outcome.ending is Ending.STOPPED:  # it has not come to an end, here and now
            # If the process does not stop, it was a fault of ours, which must not go on for ever.
            cause = STOPPED if pool.stop_signal.is_set() else None
            hand_back_one(agent.held_at(tracked.place), agent, agent.queue, cause)
            plan.urgent = True

    def _give_back(self, agent: Any, pool: Pool, tracked: Tracked, plan: Plan) -> None:
        """Put a job that was claimed, and that no thread has begun, back where it was."""
        if not cancelling.tidy(agent, tracked.place):
            job = agent.take(tracked.place)
            if why_unreadable(job) is None and job.status == ACTIVE and job._token == tracked.token:
                job.parent = agent.queue
                agent.queue.putBack(job)
        plan.tidied.append((pool, tracked))
        plan.urgent = True

    def _recognise(self, agent: Any, pool: Pool, plan: Plan) -> None:
        """See to jobs that the agent holds and this process does not know of.

        They were claimed by a poll of ours whose commit was in doubt, or by hand.
        """
        known = {(tracked.place, tracked.key[0]) for tracked in pool.tracked.values()}
        for place, job in agent.held():
            if (place, integer_oid(job)) in known or why_unreadable(job) is not None:
                continue
            if job.status in (ASSIGNED, ACTIVE) and any(key[0] > place for key in known):
                agent.hold_anew(place)  # it is begun after those
            if job.status == ASSIGNED:
                job.start(clock.current().token())
                self._start(pool, job, plan)
            elif job.status == ACTIVE and job._again is not None:
                bookkeeping.put_again(agent.take(place), agent.queue)
                plan.urgent = True
            elif job.status == ACTIVE and job._cancelled is not None:
                continue  # whoever handles its interruption ends it
            elif job.status == ACTIVE and job.awaited is None:
                two_databases.note_interruption(job)
                job._token = clock.current().token()  # whatever may run it elsewhere is fenced off
                self._start(pool, job, plan)
            elif job.status == COMPLETED:
                agent.jobCompleted(job)
            else:
                agent.await_others(place)
                if job.status == CALLBACKS:
                    bookkeeping.put_resumption(agent.queue, job.resumeCallbacks)

    def _start(self, pool: Pool, job: Any, plan: Plan, joining: Joining | None = None) -> Key:
        connection = job._p_jar
        if connection is None or job._p_oid is None:  # made by the claim, such as one that fails
            connection = pool_connection(self.connection, job)
            connection.add(job)
        key = (job.oid, connection.db().database_name)
        limit, timeout = job._run_limit, job.timeout
        tracked = Tracked(
            key,
            job._token,
            job._place,
            type(job),
            limit=None if limit is None else limit / 1_000_000,
            timeout=None if timeout is None else timeout.total_seconds(),
            last_chance=crashes.is_last_chance(job),
            code=job.code if joining is not None and joining.may_join(job) else None,
            deadline=job._deadline,
        )
        if tracked.code is not None:
            plan.members.append((tracked, job))
        tracked.info = {
            "call": job.callable_name,  # with its arguments once a thread has loaded them
            "queue": pool.queue_name,
            "agent": pool.agent_name,
            "quota names": job.quota_names,
            "started": plan.began,
            "completed": None,
            "failed": None,
            "result": None,
            "reassigned": False,
            "thread": None,
            "poll id": self.dispatcher.polls.next_key(),
        }
        plan.started.append((pool, tracked))
        return key

    # After the commit

    def _act(self, plan: Plan) -> None:
        for pool, tracked in plan.tidied:
            pool.forget(tracked)
        self.dispatcher.twins -= plan.joined
        for name in plan.joined:
            events.dispatcher_joined(self.dispatcher.UUID, name)
        self.joined |= plan.joined
        self.dispatcher.resize_pools(plan.sizes)
        self.dispatcher.hints.watch(plan.bells)
        for tracked, job in plan.members:
            tracked.copy = job.copied()
        claimed: dict[Pool, list[Tracked]] = {}
        self.dispatcher.jobs.started({tracked.key: tracked.info for _, tracked in plan.started})
        for pool, tracked in plan.started:
            claimed.setdefault(pool, []).append(tracked)
        for pool, jobs in claimed.items():
            try:
                pool.hand_over(jobs)
            except RuntimeError as error:  # no thread to be had; the next poll finds the jobs again
                events.worker_failed(pool.queue_name, pool.agent_name, error)

    # The end

    def deactivate(self) -> None:
        """Say that we stop, and hand back what is left; commits."""
        for _name, queue in self._queues():
            record = queue.dispatchers.get(self.dispatcher.UUID)
            if record is None or record.incarnation != self.incarnation:
                continue
            for agent_name, agent in list(record.items()):
                pool = self.dispatcher.pool(queue.name, agent_name)
                pool.recall()
                self._tidy(agent, pool, Plan())
            record.last_ping.overdue = ()
            record.deactivate()

    def close(self) -> None:
        end(self.manager)
        self.connection.close()


def integer_oid(job: Any) -> int:
    """The object id of a job, which need not be loaded."""
    return int.from_bytes(job._p_oid or b"", "big")


def pool_connection(connection: Any, job: Any) -> Any:
    """The connection to the database in which the parent of a new job lies."""
    parent = job.parent
    return connection if parent is None or parent._p_jar is None else parent._p_jar
