# SPDX-License-Identifier: ZPL-2.1
"""One simulated history: some nodes, a server, a network, a clock, and what is done to them.

A history is a seed and a list of *actions*, plain tuples that `World.do` carries out; nothing else
goes in, so the same list gives the same history.  `driver` makes such lists by chance, the state
machine of `test_machine` by Hypothesis.
"""

from __future__ import annotations

import hashlib
import logging
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import transaction
import ZODB
import zope.component

from tests.simulation import invariants, jobs, tasks
from tests.simulation.nodes import SECOND, START, Coroutines, Node, SimulatedClock
from tests.simulation.server import Commit, Direct, Server
from tests.simulation.situations import EVENTS, POINTS_THAT_COUNT
from zasync.agent import addMainAgentActivationHandler
from zasync.dispatcher import dispatcher as dispatcher_module
from zasync.dispatcher import liveness, polling
from zasync.foundation import clock, failpoints, reporting, wakeup
from zasync.interfaces import CALLBACKS, COMPLETED, KEY, PENDING
from zasync.queue import Queue, Queues

DEATH = 60 + 15 + 5 + 10  # seconds until a dead dispatcher has been cleared away, and some more
LONGEST_DRAIN = 1800  # seconds
MOST_TURNS = 4_000  # in one run; more is a loop without a pause
Action = tuple[Any, ...]


class Violation(AssertionError):
    """Something did not hold."""


class World:
    """A history under way.  Use `running`, which installs what it needs in this process."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.time = 0  # microseconds
        self.seen: Counter[str] = Counter()
        self.scheduler = tasks.Scheduler()
        self.actions: list[Action] = []
        self.events: list[str] = []
        self.digest = hashlib.sha256()
        self.nodes: list[Node] = []
        self.clients: list[Node] = []
        self.deferreds: list[tuple[Node, Any]] = []
        self.acknowledged: dict[int, str] = {}  # number of the entry -> what the client was told
        self.found: list[str] = []
        self.watch = invariants.Watch(self.seen)
        self._number = 0
        self._lives: set[int] = set()
        self._made = False
        self.server = Server(self._committed, self.seen)
        self._make()

    def _make(self) -> None:
        self.direct = Direct(self.server)
        self.view = ZODB.DB(self.direct, cache_size=100_000)
        self.manager = transaction.TransactionManager()
        self.connection = self.view.open(transaction_manager=self.manager)
        self.manager.begin()
        root = self.connection.root()
        queues = root[KEY] = Queues()
        queue = queues[""] = Queue()
        queue.quotas.create("one", 1)
        queue.quotas.create("two", 2)
        root[jobs.LEDGER] = jobs.LOBTree()
        root[jobs.GAUGE] = jobs.Gauge()
        self.manager.commit()
        self._made = True
        self._new_client()

    # What runs here

    def here(self) -> Node:
        """The node that has the turn."""
        assert self.scheduler.running is not None
        return self.scheduler.running.node  # type: ignore[no-any-return]

    def now_micros(self) -> int:
        running = self.scheduler.running
        self.time += 1  # so that no two looks at the clock are the same
        return START + self.time + (0 if running is None else running.node.skew)

    def reach(self, name: str) -> None:
        """A yield point."""
        self.scheduler.reach(name)

    def _point(self, name: str) -> None:
        """A named place of zasync's own code."""
        running = self.scheduler.running
        if running is None:
            return
        if name == "poll.pinged":
            running.node.poll_began = self.now_micros()
        if name == "run.taken" and not jobs.is_clean():
            self.found.append(f"I12 a job begins in {running.name} with another one's leftovers")
        if name in POINTS_THAT_COUNT:
            self.seen[POINTS_THAT_COUNT[name]] += 1
        running.reach(name)

    def wait(self, predicate: Callable[[], Any], name: str, seconds: float | None = None) -> bool:
        deadline = None if seconds is None else self.time + max(0, round(seconds * SECOND))
        return self.scheduler.wait(predicate, name, deadline)

    def wait_until(self, predicate: Callable[[], Any], name: str, deadline: int) -> bool:
        return self.scheduler.wait(predicate, name, deadline)

    def has_code(self) -> bool:
        running = self.scheduler.running
        return running is None or running.node.has_code  # type: ignore[no-any-return]

    def started(self, job: Any, effects: Any) -> None:
        """A job's code has been entered."""
        self.watch.entered.add((job.oid, job._token))

    def defer(self, deferred: Any) -> None:
        self.deferreds.append((self.here(), deferred))

    def happened(self, name: str) -> None:
        """zasync has reported something."""
        if name in EVENTS:
            self.seen[EVENTS[name]] += 1
        if self.scheduler.running is not None and name != "polled":
            self.note(f"  {self.scheduler.running.name}: {name}")

    # Commits

    def _committed(self, commit: Commit, oids: list[bytes]) -> None:
        """The server has committed: every state and every change is looked at."""
        if not self._made:
            return
        who = commit.task.name if commit.task is not None else "?"
        data = b"".join(data for _oid, _serial, data in commit.stores)
        self.note(
            f"  commit {int.from_bytes(self.server.last, 'big')} by {who}:"
            f" {[int.from_bytes(oid, 'big') for oid in oids]}"
            f" {hashlib.sha256(data).hexdigest()[:8]}"
        )
        self.direct.told(self.server.last, oids)
        with self._looking() as root:
            self.found += self.watch.after(self.connection, oids, commit.client.node)
            self.found += invariants.violations(root)
            for number, told in self.acknowledged.items():
                if number not in root[jobs.LEDGER]:
                    self.found.append(f"I1 entry {number} was {told} and is not there")

    @contextmanager
    def _looking(self) -> Iterator[Any]:
        """The root as it is now; nothing that happens meanwhile is a step of the simulation."""
        running, self.scheduler.running = self.scheduler.running, None
        try:
            self.manager.begin()
            yield self.connection.root()
        finally:
            self.manager.abort()
            self.scheduler.running = running

    # Doing

    def do(self, action: Action) -> None:
        """Carry out one action.  Violation if something does not hold afterwards."""
        self.actions.append(action)
        self.note(f"{len(self.actions)} {action}")
        getattr(self, f"do_{action[0]}")(*action[1:])
        self.check()

    def check(self) -> None:
        self.found += self._beliefs()
        if self.found:
            raise Violation("\n".join(dict.fromkeys(self.found)))

    def _beliefs(self) -> Iterator[str]:
        """What processes believe that the database does not say (I15)."""
        with self._looking():
            for node in self.live_nodes():
                for pool in node.pools():
                    for tracked in list(pool.tracked.values()):
                        outcome = tracked.outcome
                        if outcome is None or outcome.ending.name != "COMPLETED":
                            continue
                        job = self.connection.get(tracked.key[0].to_bytes(8, "big"))
                        if job.status != COMPLETED:
                            yield f"I15 {node} takes job {job.oid} as completed: it is {job.status}"

    def note(self, text: str) -> None:
        line = f"{self.time / SECOND:.6f} {text}"
        self.events.append(line)
        self.digest.update(line.encode())

    def live_nodes(self) -> list[Node]:
        return [node for node in self.nodes if node.alive]

    def _node(self, number: int) -> Node | None:
        live = self.live_nodes()
        return live[number % len(live)] if live else None

    def runnable(self) -> list[tasks.Task]:
        return [
            task
            for task in self.scheduler.tasks
            if not task.node.frozen and task.is_runnable(self.time)
        ]

    def resume(self, task: tasks.Task, budget: int = tasks.UNBOUNDED) -> None:
        self.time += 7
        self.server.arrive(self.time)
        if self.random.random() < 0.7:
            task.node.storage.hear()
        self.scheduler.resume(task, budget)
        if task.ended and task.error is not None:
            self._task_failed(task)

    def _task_failed(self, task: tasks.Task) -> None:
        error = task.error
        if task.node in self.clients:
            self.note(f"  {task.name} got {type(error).__name__}")
            return
        self.found.append(f"a thread ({task.name}) ended with {error!r}")

    # The actions: time and turns

    def do_advance(self, index: int, budget: int) -> None:
        """Let one task pass some yield points."""
        runnable = self.runnable()
        if runnable:
            task = runnable[index % len(runnable)]
            self.note(f"  {task.name} goes on from {task.at}")
            self.resume(task, budget)

    def do_leap(self, micros: int) -> None:
        """Let time pass while nothing happens."""
        self.time += micros

    def do_run(self, seconds: float) -> None:
        """Let everything happen for some time, in an order of chance."""
        end = self.time + round(seconds * SECOND)
        turns = 0
        while self.time < end and not self.found:
            runnable = self.runnable()
            turns += 1
            if turns > MOST_TURNS:
                standing = [f"{task.name} at {task.at}" for task in runnable]
                self.found.append(f"I19 no end of turns in {seconds} s: {standing}")
            if runnable:
                self.resume(self.random.choice(runnable), self.random.randrange(1, 40))
                continue
            for client in self.server.clients:
                client.hear()
            moments = [
                task.deadline
                for task in self.scheduler.tasks
                if task.deadline is not None and not task.node.frozen
            ]
            moments += [moment for _commit, moment in self.server.held_up]
            self.time = max(self.time + 1, min([end, *moments]))
            self.server.arrive(self.time)

    # Nodes

    def do_start(self, kind: str, which: int = 0) -> None:
        """Start a node: "new"; "again" (a dead one, same host), "elsewhere", or a "twin"."""
        self._number += 1
        uuid, host = UUID(int=self.random.getrandbits(128), version=4), self._number
        others = [node for node in self.nodes if node.alive == (kind == "twin")]
        if kind != "new" and others:
            former = others[which % len(others)]
            uuid, host = former.uuid, former.host if kind == "again" else host
            self.seen[f"a node is started: {kind}"] += 1
        node = Node(self, self._number, uuid, host)
        self.nodes.append(node)
        node.start("reactor", node.dispatch)

    def do_kill(self, number: int, fate: str = "lost") -> None:
        """Kill a node; `fate` is that of a finish message under way."""
        node = self._node(number)
        if node is None:
            return
        self._count_death(node)
        node.alive = False
        self.server.leave(node.storage, fate, self.time)
        self.scheduler.kill(node)
        self.server.clients.remove(node.storage)

    def _count_death(self, node: Node) -> None:
        for task in node.tasks:
            if task.at in ("finish", "voted", "finished"):
                self.seen["a node dies in a commit"] += 1
            elif task.at.startswith("body"):
                self.seen["a node dies in a job's code"] += 1
            elif task.at.startswith("callback"):
                self.seen["a node dies in callbacks"] += 1
            elif task.at == "recovery.handed_back":
                self.seen["a node dies while it hands back"] += 1
            elif task.at.startswith("stop"):
                self.seen["a node dies while it stops"] += 1
        with self._looking() as root:
            record = root[KEY][""].dispatchers.get(node.uuid)
            if record is not None:
                for quota in root[KEY][""].quotas.values():
                    held = [job for job, token in quota._holders if job._quota_hold == token]
                    if len(held) >= quota.size and any(
                        job.agent is not None and job.agent.parent is record for job in held
                    ):
                        self.seen["a holder of a full quota dies"] += 1

    def do_freeze(self, number: int) -> None:
        node = self._node(number)
        if node is not None:
            node.frozen = True
            if self.server.holder is not None and self.server.holder.client is node.storage:
                self.seen["a node that holds the commit lock is frozen"] += 1

    def do_thaw(self, number: int) -> None:
        frozen = [node for node in self.nodes if node.frozen]
        if frozen:
            frozen[number % len(frozen)].frozen = False

    def do_stop(self, number: int) -> None:
        """Ask a node to stop cleanly."""
        node = self._node(number)
        if node is not None:
            node.reactor.stop()

    def do_jump(self, number: int, seconds: int) -> None:
        """Set a node's wall clock forward or back."""
        node = self._node(number)
        if node is not None:
            node.skew += seconds * SECOND
            self.seen["a clock jumps"] += 1

    def do_deploy(self, number: int, has_code: bool) -> None:
        node = self._node(number)
        if node is not None:
            node.has_code = has_code

    # The network

    def do_link(self, number: int, state: str, fate: str = "lost") -> None:
        """Change a node's link: "up", "down" or "black"."""
        node = self._node(number)
        if node is None:
            return
        if state == "down" or (state == "up" and node.storage.link == "black"):
            if state == "up" and fate == "goes on":
                self.seen["a black hole ends, and calls go on"] += 1
            else:
                node.storage.cut("lost" if fate == "goes on" else fate)
        node.storage.link = state
        self.seen[f"a link is {state}"] += 1

    def do_fault(self, number: int, kind: str, for_workers: bool = False) -> None:
        """Have one of the next calls of a node (or of the client) fail."""
        parties = [*self.live_nodes(), *([] if for_workers else self.clients[-1:])]
        if parties:
            parties[number % len(parties)].storage.faults.append((kind, for_workers))

    def do_arrive(self) -> None:
        self.server.arrive()

    def do_hear(self, number: int) -> None:
        node = self._node(number)
        if node is not None:
            node.storage.hear()

    # Applications and operators: each in a task of a client

    def _new_client(self) -> None:
        self._number += 1
        self.clients.append(Node(self, self._number, None, 0))

    def _by_client(self, name: str, function: Callable[[Any], Any], budget: int) -> None:
        """Begin `function(root)` in a client, in one transaction that is not repeated."""
        client = self.clients[-1]

        def act() -> None:
            db = client.open()
            manager = transaction.TransactionManager()
            connection = db.open(transaction_manager=manager)
            try:
                manager.begin()
                answer = function(connection.root())
                manager.commit()
                if answer is not None:
                    self.acknowledged[answer] = name
            finally:
                manager.abort()
                connection.close()

        self.resume(client.start(name, act), budget)

    def do_put(
        self,
        kind: str,
        quotas: tuple[str, ...] = (),
        callbacks: tuple[str, ...] = (),
        after: float | None = None,
        by: float | None = None,
        policy: str = "",
        deployable: bool = False,
        aborts: bool = False,
        budget: int = tasks.UNBOUNDED,
    ) -> None:
        """Put a job."""
        number = len(self.actions)

        def put(root: Any) -> int:
            function = jobs.__getattr__("deployable") if deployable else jobs.work
            entry = jobs.make_entry(number, kind, function, jobs.POLICIES[policy])
            entry.job.quota_names = quotas
            root[jobs.LEDGER][number] = entry
            jobs.add_callbacks(entry, callbacks)
            root[KEY][""].put(
                entry.job,
                begin_after=None if after is None else clock.now() + timedelta(seconds=after),
                begin_by=None if by is None else timedelta(seconds=by),
            )
            if aborts:
                raise RuntimeError("the client changed its mind")
            return number

        self._by_client("put", put, budget)

    def do_kill_client(self) -> None:
        client = self.clients.pop()
        if client.tasks:
            self.seen["a client dies in its transaction"] += 1
        client.alive = False
        self.server.leave(client.storage, "lost", self.time)
        self.scheduler.kill(client)
        self.server.clients.remove(client.storage)
        self._new_client()

    def _entry(self, root: Any, number: int) -> Any:
        ledger = root[jobs.LEDGER]
        return ledger[list(ledger)[number % len(ledger)]] if ledger else None

    def do_remove(self, number: int, budget: int = tasks.UNBOUNDED) -> None:
        """Take a waiting job out of the queue."""

        def remove(root: Any) -> None:
            entry = self._entry(root, number)
            if entry is not None and entry.job.status == PENDING:
                root[KEY][""].remove(entry.job)
                entry.removed = True
                self.seen["a waiting job is taken out"] += 1

        self._by_client("remove", remove, budget)

    def do_fail(self, number: int, budget: int = tasks.UNBOUNDED) -> None:
        """Fail a waiting job by hand."""

        def fail(root: Any) -> None:
            entry = self._entry(root, number)
            if entry is not None and entry.job.status == PENDING:
                entry.failed_by_hand = True
                entry.job.fail()
                self.seen["a waiting job is failed by hand"] += 1

        self._by_client("fail", fail, budget)

    def do_requeue(
        self, number: int, quotas: tuple[str, ...], budget: int = tasks.UNBOUNDED
    ) -> None:
        """Change the quotas of a waiting job."""

        def requeue(root: Any) -> None:
            entry = self._entry(root, number)
            if entry is not None and entry.job.status == PENDING:
                entry.job.quota_names = quotas
                self.seen["a waiting job is given other quotas"] += 1

        self._by_client("requeue", requeue, budget)

    def do_callback(self, number: int, kind: str, budget: int = tasks.UNBOUNDED) -> None:
        """Add a callback to a job, wherever it is."""

        def add(root: Any) -> None:
            entry = self._entry(root, number)
            if entry is None or entry.removed:
                return
            status = entry.job.status
            jobs.add_callbacks(entry, (kind,))
            self.seen[f"a callback is added to a job in {status}"] += 1

        self._by_client("callback", add, budget)

    def do_quota(self, name: str, size: int | None, budget: int = tasks.UNBOUNDED) -> None:
        """Set the size of a quota; None removes it, or makes it again."""

        def change(root: Any) -> None:
            quotas = root[KEY][""].quotas
            if size is not None and name in quotas:
                quotas[name].size = size
                self.seen["a quota is resized"] += 1
            elif size is None and name in quotas:
                quotas.remove(name)
                self.seen["a quota is removed"] += 1
            elif name not in quotas:
                quotas.create(name, size or 1)

        self._by_client("quota", change, budget)

    def do_agent(self, number: int, size: int | None, budget: int = tasks.UNBOUNDED) -> None:
        """Set the size of an agent; None removes it if it is empty."""

        def change(root: Any) -> None:
            records = list(root[KEY][""].dispatchers.values())
            record = records[number % len(records)] if records else {}
            for name in list(record):
                if size is not None:
                    record[name].size = size
                    record[name].batch = 1 + 3 * (number % 3)  # every third one groups nothing
                    self.seen["an agent is resized"] += 1
                elif len(record[name]) == 0 and not record.activated:
                    del record[name]
                    self.seen["an agent is removed"] += 1

        self._by_client("agent", change, budget)

    def do_prune(self, seconds: int, budget: int = tasks.UNBOUNDED) -> None:
        def prune(root: Any) -> None:
            if root[KEY][""].dispatchers.prune(timedelta(seconds=seconds)):
                self.seen["a record of a dispatcher is pruned"] += 1

        self._by_client("prune", prune, budget)

    def do_pack(self) -> None:
        if self.server.holder is None:
            self.server.pack()
            self.seen["the storage is packed"] += 1

    def do_fire(self, number: int, fails: bool = False) -> None:
        """Fire a Deferred that a job waits for."""
        if not self.deferreds:
            return
        node, deferred = self.deferreds.pop(number % len(self.deferreds))
        if node.alive:
            self.seen["a Deferred fires"] += 1
            end = deferred.errback if fails else deferred.callback
            node.reactor.callFromThread(end, jobs.PlannedError() if fails else "fired")

    # The end

    def heal(self) -> None:
        """All faults are over; one more node is there to do the work."""
        self.note("heal")
        for node in [*self.live_nodes(), *self.clients]:
            node.frozen, node.has_code, node.skew = False, True, 0
            node.storage.faults.clear()
            if node.storage.link != "up":
                node.storage.cut("lost")
                node.storage.link = "up"
        self.server.arrive()

    def _see_to_a_worker(self) -> None:
        if all(node.reactor.stopping for node in self.live_nodes()):
            self.do_start("new")

    def _resume_failed(self, root: Any) -> None:
        """Go on with what clients that are gone had failed by hand."""
        for entry in list(root[jobs.LEDGER].values()):
            if entry.failed_by_hand and entry.job.status == CALLBACKS:
                entry.job.resumeCallbacks()

    def drain(self) -> None:
        """Go on until nothing is left to be done; then nothing may be amiss."""
        self.heal()
        healed = self.time
        while self.time < healed + LONGEST_DRAIN * SECOND:
            self._see_to_a_worker()
            while self.deferreds:
                self.do_fire(0)
            self.do_run(20)
            self._by_client("resume", self._resume_failed, tasks.UNBOUNDED)
            self.check()
            if self.time >= healed + DEATH * SECOND and self._is_quiet():
                break
        self.note("drained")
        with self._looking() as root:
            self.found += invariants.unfinished(root)
            self.found += invariants.dangling(self.server.revisions)
            self.found += self._living(root)
        self.found += self._stuck()
        self.check()

    def _is_quiet(self) -> bool:
        with self._looking() as root:
            return not invariants.unfinished(root) and not self._living(root)

    def _living(self, root: Any) -> list[str]:
        """Dispatchers whose records do not tell the truth (I18, I20)."""
        found = []
        incarnations = {
            node.dispatcher._poller.incarnation: node
            for node in self.live_nodes()
            if node.dispatcher is not None and node.dispatcher._poller is not None
        }
        now = clock.from_micros(START + self.time)
        for uuid, record in root[KEY][""].dispatchers.items():
            if not record.activated:
                continue
            node = incarnations.pop(record.incarnation, None)
            if node is None:
                found.append(f"I20 dispatcher {uuid} is dead, and its record says activated")
                continue
            silence = now + timedelta(microseconds=node.skew) - record.last_ping.value
            if silence > timedelta(seconds=40):
                found.append(f"I18 {node} has not pinged for {silence}")
        working = {record.UUID for record in root[KEY][""].dispatchers.values() if record.activated}
        for node in incarnations.values():
            if node.uuid not in working and not node.reactor.stopping:
                found.append(f"I18 {node} is not activated")
        return found

    def _stuck(self) -> Iterator[str]:
        """Threads and commits that do not come to an end (I19)."""
        for task in self.scheduler.tasks:
            if not task.node.alive:  # what a process leaves running when it ends, ends with it
                continue
            if task.at not in ("idle", "polls", "no calls") and "zasync watch" not in task.name:
                yield f"I19 {task.name} stands at {task.at}"
        if self.server.holder is not None:
            yield "I19 the commit lock is held"

    def close(self) -> None:
        for node in [*self.live_nodes(), *self.clients]:
            self.scheduler.kill(node)
        for task in list(self.scheduler.tasks):
            task.doomed = True
            self.scheduler.resume(task)
        self.manager.abort()


class Reporter(reporting.Events):
    """Counts what zasync reports, and says nothing."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(reporting.Events, name):
            return object.__getattribute__(self, name)
        world = object.__getattribute__(self, "_world")
        return lambda *args, **kwargs: world.happened(name)


@contextmanager
def running(seed: int) -> Iterator[World]:
    """A world whose clock, threads and fail points are in force."""
    previous_clock, undo = clock.current(), Changes()
    logging.disable(logging.CRITICAL)
    previous_points = dict(failpoints.armed)
    zope.component.provideHandler(addMainAgentActivationHandler)
    try:
        world = World(seed)
        clock.install(SimulatedClock(world))
        for name in failpoints.POINTS:
            failpoints.armed[name] = lambda name=name: world._point(name)
        undo.set(jobs, "world", world)
        threads, queues, reporter = tasks.threads_of(world), tasks.queues_of(world), Reporter(world)
        events = reporting.events
        for name, module in list(sys.modules.items()):
            if name.startswith("zasync.dispatcher"):
                undo.set_if_there(module, "threading", threads)
                undo.set_if_there(module, "queue", queues)
            if name.startswith("zasync") and getattr(module, "events", None) is events:
                undo.set(module, "events", reporter)
        undo.set(dispatcher_module, "CoroutineLoop", Coroutines)
        undo.set(polling, "this_process", lambda: world.here().identity())
        undo.set(
            liveness,
            "certainly_gone",
            lambda identity: any(
                not node.alive and node.identity() == identity and node.host == world.here().host
                for node in world.nodes
            ),
        )
        yield world
    finally:
        world.close()
        undo.undo()
        failpoints.armed.clear()
        failpoints.armed.update(previous_points)
        clock.install(previous_clock)
        zope.component.getGlobalSiteManager().unregisterHandler(addMainAgentActivationHandler)
        wakeup._listeners.clear()
        logging.disable(logging.NOTSET)


class Changes:
    """Attributes of modules that are set for a while."""

    def __init__(self) -> None:
        self._done: list[tuple[Any, str, Any]] = []

    def set(self, module: Any, name: str, value: Any) -> None:
        self._done.append((module, name, getattr(module, name)))
        setattr(module, name, value)

    def set_if_there(self, module: Any, name: str, value: Any) -> None:
        if hasattr(module, name):
            self.set(module, name, value)

    def undo(self) -> None:
        for module, name, value in reversed(self._done):
            setattr(module, name, value)
