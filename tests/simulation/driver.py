# SPDX-License-Identifier: ZPL-2.1
"""Histories made by chance from a seed, repeated from a list of actions, and made shorter."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Callable

from tests.simulation import jobs
from tests.simulation.server import DELIVERED, FAULTS, HELD_UP, LOST
from tests.simulation.world import Action, Violation, World, running

FATES = (LOST, DELIVERED, HELD_UP)
SHOWN = 40  # events before a failure


@dataclasses.dataclass
class History:
    """What came of one history."""

    seed: int
    actions: list[Action]
    digest: str
    seen: Counter[str]
    failure: str = ""
    events: tuple[str, ...] = ()

    def report(self) -> str:
        """What a person needs who is to find out why it failed."""
        return "\n".join(
            [
                f"seed {self.seed}, action {len(self.actions)}: {self.failure}",
                "the last events:",
                *(f"  {event}" for event in self.events),
                f"repeat: python -m tests.simulation --seed {self.seed}",
            ]
        )


def play(seed: int, choose: Callable[[World, int], Action | None]) -> History:
    """Do what `choose(world, step)` says until it says None; then heal, drain and check."""
    with running(seed) as world:
        failure = ""
        try:
            step = 0
            while (action := choose(world, step)) is not None:
                world.do(action)
                step += 1
            world.drain()
        except Violation as error:
            failure = str(error)
        events = tuple(world.events[-SHOWN:]) if failure else ()
        digest = world.digest.hexdigest()
        return History(seed, list(world.actions), digest, world.seen, failure, events)


def by_chance(seed: int, steps: int) -> History:
    """A history of `steps` actions that are chosen by chance."""
    chance = Chance(seed)
    return play(seed, lambda world, step: chance.action(world, step) if step < steps else None)


def repeated(seed: int, actions: list[Action]) -> History:
    """The history of these actions."""
    return play(seed, lambda world, step: actions[step] if step < len(actions) else None)


def shortened(history: History) -> History:
    """A history that fails in the same way with fewer actions."""
    kind = history.failure[:3]
    best, size = history, max(1, len(history.actions) // 2)
    while True:
        position = 0
        while position < len(best.actions):
            actions = best.actions[:position] + best.actions[position + size :]
            tried = repeated(history.seed, actions)
            if tried.failure[:3] == kind:
                best = tried
            else:
                position += size
        if size == 1:
            return best
        size = max(1, size // 2)


class Chance:
    """Chooses the next action.  Which ones are likely is decided once per history."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(f"actions {seed}")
        self._todo: list[Action] = []
        weights = {
            "advance": 60,
            "leap": 5,
            "run": 10,
            "put": 14,
            "start": 2,
            "kill": 1.5,
            "kill_client": 0.3,
            "freeze": 1,
            "thaw": 1.5,
            "stop": 0.5,
            "jump": 0.7,
            "deploy": 1,
            "link": 2,
            "swizzle": 0.3,
            "fault": 4,
            "arrive": 0.5,
            "hear": 1,
            "remove": 0.7,
            "fail": 0.5,
            "requeue": 0.5,
            "callback": 3,
            "quota": 0.7,
            "agent": 0.7,
            "prune": 0.3,
            "pack": 0.5,
            "fire": 2,
        }
        # Not every history has every fault: some need quiet, others a storm of one kind.
        self._names = list(weights)
        self._weights = [
            weight * (1 if weight >= 5 else self.random.choice((0, 0.5, 1, 1, 3)))
            for weight in weights.values()
        ]

    def action(self, world: World, step: int) -> Action:
        if step < 2:
            return ("start", "new", 0)
        if self._todo:
            return self._todo.pop(0)
        (name,) = self.random.choices(self._names, self._weights)
        return getattr(self, f"_{name}")(world)  # type: ignore[no-any-return]

    def _index(self) -> int:
        return self.random.randrange(1000)

    def _budget(self) -> int:
        return self.random.choice((1, 2, 3, 5, 10, 20, 60, 1000))

    def _advance(self, world: World) -> Action:
        return ("advance", self._index(), self._budget())

    def _leap(self, world: World) -> Action:
        return ("leap", round(10 ** self.random.uniform(3, 7.9)))

    def _run(self, world: World) -> Action:
        return ("run", self.random.choice((0.1, 1, 6, 20, 80)))

    def _start(self, world: World) -> Action:
        if len(world.live_nodes()) >= 4:
            return self._advance(world)
        kind = self.random.choice(("new", "again", "again", "elsewhere", "twin"))
        return ("start", kind, self._index())

    def _kill(self, world: World) -> Action:
        return ("kill", self._index(), self.random.choice(FATES))

    def _kill_client(self, world: World) -> Action:
        return ("kill_client",)

    def _freeze(self, world: World) -> Action:
        return ("freeze", self._index())

    def _thaw(self, world: World) -> Action:
        return ("thaw", self._index())

    def _stop(self, world: World) -> Action:
        return ("stop", self._index())

    def _jump(self, world: World) -> Action:
        return ("jump", self._index(), self.random.choice((-3600, -600, -30, 30, 600, 3600)))

    def _deploy(self, world: World) -> Action:
        return ("deploy", self._index(), self.random.random() < 0.5)

    def _link(self, world: World) -> Action:
        state = self.random.choice(("up", "up", "up", "down", "black"))
        fate = self.random.choice((*FATES, "goes on", "goes on"))
        return ("link", self._index(), state, fate)

    def _swizzle(self, world: World) -> Action:
        """Stop the links one after the other, and restore them in another order."""
        world.seen["all links are stopped in turn, and restored in another"] += 1
        count = len(world.live_nodes())
        order = list(range(count))
        self.random.shuffle(order)
        self._todo += [
            action for number in order for action in (("link", number, "black"), ("run", 5))
        ]
        self.random.shuffle(order)
        self._todo += [
            action
            for number in order
            for action in (
                ("link", number, "up", self.random.choice(("goes on", LOST))),
                ("run", 5),
            )
        ]
        return ("hear", 0)

    def _fault(self, world: World) -> Action:
        for_workers = self.random.random() < 0.5
        return ("fault", self._index(), self.random.choice(FAULTS), for_workers)

    def _arrive(self, world: World) -> Action:
        return ("arrive",)

    def _hear(self, world: World) -> Action:
        return ("hear", self._index())

    def _put(self, world: World) -> Action:
        chance = self.random.random
        kinds = ["return"] * 6 + ["count"] * 3 + ["raise"] * 2 + list(jobs.ENDINGS)
        callback_kinds = ["return", "return", "raise", "put"]
        return (
            "put",
            self.random.choice(kinds),
            self.random.choice(((), (), (), ("one",), ("one",), ("two",), ("one", "two"))),
            tuple(
                self.random.choice(callback_kinds)
                for _ in range(self.random.choice((0, 0, 0, 1, 2, 3)))
            ),
            round(10 ** self.random.uniform(-1, 2.3), 3) if chance() < 0.15 else None,
            round(10 ** self.random.uniform(0, 2.5), 3) if chance() < 0.1 else None,
            self.random.choice(("", "", "", "", "", "never", "impatient")),
            chance() < 0.1,
            chance() < 0.03,
            self._budget() if chance() < 0.4 else 1_000_000,
        )

    def _remove(self, world: World) -> Action:
        return ("remove", self._index(), self._budget())

    def _fail(self, world: World) -> Action:
        return ("fail", self._index(), self._budget())

    def _requeue(self, world: World) -> Action:
        quotas = self.random.choice(((), ("one",), ("two",)))
        return ("requeue", self._index(), quotas, self._budget())

    def _callback(self, world: World) -> Action:
        kind = self.random.choice(("return", "raise", "put"))
        return ("callback", self._index(), kind, self._budget())

    def _quota(self, world: World) -> Action:
        size = self.random.choice((1, 1, 2, 3, None))
        return ("quota", self.random.choice(("one", "two")), size, self._budget())

    def _agent(self, world: World) -> Action:
        return ("agent", self._index(), self.random.choice((1, 2, 3, 5, None)), self._budget())

    def _prune(self, world: World) -> Action:
        return ("prune", self.random.choice((0, 100)), self._budget())

    def _pack(self, world: World) -> Action:
        return ("pack",)

    def _fire(self, world: World) -> Action:
        return ("fire", self._index(), self.random.random() < 0.3)
