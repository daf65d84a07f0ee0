# SPDX-License-Identifier: ZPL-2.1
"""The same world, with Hypothesis to choose what happens and to find the shortest way to a failure.

Invariants are checked after every rule, those of the end after a drain.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.simulation import jobs
from tests.simulation.server import DELIVERED, FAULTS, HELD_UP, LOST
from tests.simulation.world import Action, running

EXAMPLES = int(os.environ.get("SIMULATION_EXAMPLES", "200"))
CHUNKS = 4
STEPS = 40

FATES = st.sampled_from((LOST, DELIVERED, HELD_UP))
INDEX = st.integers(0, 15)
BUDGET = st.sampled_from((1, 2, 3, 5, 10, 20, 60, 1000))
KIND = st.sampled_from(tuple(jobs.ENDINGS))
CALLBACK = st.sampled_from(("return", "raise", "put"))
QUOTAS = st.sampled_from(((), ("one",), ("two",), ("one", "two")))


class Machine(RuleBasedStateMachine):
    """Each rule is an action of the world."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.world = self._stack.enter_context(running(0))
        self._failed = False

    def _do(self, *action: Any) -> None:
        self._failed = True  # unless it comes back
        self.world.do(Action(action))
        self._failed = False

    def teardown(self) -> None:
        with self._stack:
            if not self._failed:
                self.world.drain()

    @initialize(nodes=st.integers(1, 3))
    def begin(self, nodes: int) -> None:
        for _ in range(nodes):
            self._do("start", "new", 0)

    # Turns and time

    @rule(index=INDEX, budget=BUDGET)
    def advance(self, index: int, budget: int) -> None:
        self._do("advance", index, budget)

    @rule(index=INDEX, budget=BUDGET)
    def advance_another(self, index: int, budget: int) -> None:
        self._do("advance", index, budget)

    @rule(seconds=st.sampled_from((0.1, 1, 6, 20, 80)))
    def run(self, seconds: float) -> None:
        self._do("run", seconds)

    @rule(micros=st.sampled_from((1_000, 1_000_000, 20_000_000, 80_000_000)))
    def leap(self, micros: int) -> None:
        self._do("leap", micros)

    # Nodes

    @rule(kind=st.sampled_from(("new", "again", "elsewhere", "twin")), which=INDEX)
    def start(self, kind: str, which: int) -> None:
        if len(self.world.live_nodes()) < 4:
            self._do("start", kind, which)

    @rule(node=INDEX, fate=FATES)
    def kill(self, node: int, fate: str) -> None:
        self._do("kill", node, fate)

    @rule(node=INDEX)
    def freeze(self, node: int) -> None:
        self._do("freeze", node)

    @rule(node=INDEX)
    def thaw(self, node: int) -> None:
        self._do("thaw", node)

    @rule(node=INDEX)
    def stop(self, node: int) -> None:
        self._do("stop", node)

    @rule(node=INDEX, seconds=st.sampled_from((-3600, -30, 30, 3600)))
    def jump(self, node: int, seconds: int) -> None:
        self._do("jump", node, seconds)

    @rule(node=INDEX, has_code=st.booleans())
    def deploy(self, node: int, has_code: bool) -> None:
        self._do("deploy", node, has_code)

    # The network and the storage

    @rule(
        node=INDEX,
        state=st.sampled_from(("up", "down", "black")),
        fate=st.sampled_from((LOST, DELIVERED, HELD_UP, "goes on")),
    )
    def link(self, node: int, state: str, fate: str) -> None:
        self._do("link", node, state, fate)

    @rule(node=INDEX, kind=st.sampled_from(FAULTS), for_workers=st.booleans())
    def fault(self, node: int, kind: str, for_workers: bool) -> None:
        self._do("fault", node, kind, for_workers)

    @rule()
    def arrive(self) -> None:
        self._do("arrive")

    @rule(node=INDEX)
    def hear(self, node: int) -> None:
        self._do("hear", node)

    @rule()
    def pack(self) -> None:
        self._do("pack")

    # Applications and operators

    @rule(
        kind=KIND,
        quotas=QUOTAS,
        callbacks=st.lists(CALLBACK, max_size=2).map(tuple),
        after=st.none() | st.sampled_from((0.5, 30.0)),
        by=st.none() | st.sampled_from((5.0, 100.0)),
        policy=st.sampled_from(tuple(jobs.POLICIES)),
        deployable=st.booleans(),
        aborts=st.sampled_from((False, False, False, True)),
        budget=BUDGET,
    )
    def put(self, **options: Any) -> None:
        self._do("put", *options.values())

    @rule(kind=KIND, quotas=QUOTAS)
    def put_simply(self, kind: str, quotas: tuple[str, ...]) -> None:
        self._do("put", kind, quotas)

    @rule()
    def kill_client(self) -> None:
        self._do("kill_client")

    @rule(job=INDEX, budget=BUDGET)
    def remove(self, job: int, budget: int) -> None:
        self._do("remove", job, budget)

    @rule(job=INDEX, budget=BUDGET)
    def fail(self, job: int, budget: int) -> None:
        self._do("fail", job, budget)

    @rule(job=INDEX, quotas=QUOTAS, budget=BUDGET)
    def requeue(self, job: int, quotas: tuple[str, ...], budget: int) -> None:
        self._do("requeue", job, quotas, budget)

    @rule(job=INDEX, kind=CALLBACK, budget=BUDGET)
    def add_callback(self, job: int, kind: str, budget: int) -> None:
        self._do("callback", job, kind, budget)

    @rule(name=st.sampled_from(("one", "two")), size=st.none() | st.integers(1, 3), budget=BUDGET)
    def quota(self, name: str, size: int | None, budget: int) -> None:
        self._do("quota", name, size, budget)

    @rule(record=INDEX, size=st.none() | st.integers(1, 4), budget=BUDGET)
    def agent(self, record: int, size: int | None, budget: int) -> None:
        self._do("agent", record, size, budget)

    @rule(seconds=st.sampled_from((0, 100)), budget=BUDGET)
    def prune(self, seconds: int, budget: int) -> None:
        self._do("prune", seconds, budget)

    @rule(number=INDEX, fails=st.booleans())
    def fire(self, number: int, fails: bool) -> None:
        self._do("fire", number, fails)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_order_of_rules_breaks_a_promise(chunk: int) -> None:
    # Hypothesis derives its choices from the name of the test: another class, other choices.
    machine = type(f"Machine{chunk}", (Machine,), {})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES // CHUNKS,
            stateful_step_count=STEPS,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
