# SPDX-License-Identifier: ZPL-2.1
"""The checker of the torture run finds each kind of violation, and nothing in a good history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from torture import checker
from torture.checker import (
    BOOKS,
    CALLBACKS,
    DOUBLED,
    KINDS,
    LIMIT,
    LOST,
    PHANTOM,
    STUCK,
    WRONG,
    JobState,
    World,
    percentile,
    recoveries,
)

ENDED, FAILED, WAITS = (
    JobState(True),
    JobState(True, failed=True),
    JobState(False, status="pending"),
)


def order(name: str, outcome: str = "ok", **more: Any) -> dict[str, Any]:
    kind = name.partition("-")[0]
    return {
        "kind": kind,
        "name": name,
        "outcome": outcome,
        "effects": [name],
        "callbacks": [],
        "fails": False,
    } | more


def enter(t: float, job: str, attempt: str, pid: int = 1) -> dict[str, Any]:
    return {"t": t, "what": "enter", "job": job, "attempt": attempt, "pid": pid}


def leave(t: float, job: str, attempt: str, pid: int = 1) -> dict[str, Any]:
    return enter(t, job, attempt, pid) | {"what": "leave"}


class Story:
    """A run in which all went well; the tests spoil it."""

    def __init__(self) -> None:
        self.history = [
            order("ledger-1"),
            order("ledger-2", "unknown"),
            order("ledger-3", "unknown"),
            order("ledger-4", "refused"),
            order("chain-1", effects=["chain-1/0", "chain-1/1"]),
            order("fan-1", effects=["fan-1/0", "fan-1/1", "fan-1/in"]),
            order("answer-1", callbacks=["answer-1/always", "answer-1/chosen"]),
            order("answer-2", effects=[], callbacks=["answer-2/always"], fails=True),
            order("gauge-1"),
            order("gauge-2"),
        ]
        self.attempts = [
            enter(10.0, "gauge-1", "a", pid=1),
            leave(11.0, "gauge-1", "a", pid=1),
            enter(11.0, "gauge-2", "b", pid=2),
            leave(12.0, "gauge-2", "b", pid=2),
        ]
        self.deaths: list[dict[str, Any]] = []
        self.world = World(
            jobs={
                "ledger-1": ENDED,
                "ledger-2": ENDED,
                "chain-1": ENDED,
                "chain-1/1": ENDED,
                "fan-1": ENDED,
                "answer-1": ENDED,
                "answer-2": FAILED,
                "gauge-1": ENDED,
                "gauge-2": ENDED,
            },
            applied={
                "ledger-1": ["a"],
                "ledger-2": ["b"],
                "chain-1/0": ["c"],
                "chain-1/1": ["d"],
                "fan-1/0": ["e"],
                "fan-1/1": ["f"],
                "fan-1/in": ["g"],
                "answer-1": ["h"],
                "gauge-1": ["a"],
                "gauge-2": ["b"],
            },
            called={"answer-1/always": ["i"], "answer-1/chosen": ["j"], "answer-2/always": ["k"]},
            concluded={"fan-1": [["fan-1/0", "fan-1/1"]]},
            ledgers=[(1, ["ledger-1"]), (1, ["ledger-2"])],
            balances=[990, 1010],
            fortune=2000,
            gauge={"gauge-1": (10.0, 11.0), "gauge-2": (11.0, 12.0)},
        )

    def found(self, places: int = 1) -> dict[str, list[str]]:
        findings = checker.check(
            self.history, self.world, self.attempts, self.deaths, places=places
        )
        return {kind: found for kind, found in findings.of.items() if found}


def test_nothing_is_found_where_all_went_well() -> None:
    assert Story().found() == {}


def gone(story: Story) -> None:
    del story.world.jobs["ledger-1"]
    del story.world.applied["ledger-1"]
    story.world.ledgers = story.world.ledgers[1:]


def without_effect(story: Story) -> None:
    del story.world.applied["ledger-1"]
    story.world.ledgers = story.world.ledgers[1:]


def unknown_without_effect(story: Story) -> None:
    """Its client's data is there, so its commit took place."""
    del story.world.applied["ledger-2"]
    story.world.ledgers = story.world.ledgers[:1]


def broken_chain(story: Story) -> None:
    del story.world.applied["chain-1/1"]
    del story.world.jobs["chain-1/1"]


def done_twice(story: Story) -> None:
    story.world.applied["gauge-1"] = ["a", "z"]


def link_put_twice(story: Story) -> None:
    story.world.applied["chain-1/1"] = ["d", "z"]


def concluded_twice(story: Story) -> None:
    story.world.concluded["fan-1"] *= 2


def concluded_early(story: Story) -> None:
    story.world.concluded["fan-1"] = [["fan-1/0"]]


def counted_twice(story: Story) -> None:
    story.world.ledgers[0] = (2, ["ledger-1"])


def entered_and_not_done(story: Story) -> None:
    story.world.ledgers[0] = (2, ["ledger-1", "ledger-9"])


def money_made(story: Story) -> None:
    story.world.balances = [1000, 1010]


def refused_and_there(story: Story) -> None:
    story.world.jobs["ledger-4"] = ENDED
    story.world.applied["ledger-4"] = ["x"]
    story.world.ledgers[0] = (2, ["ledger-1", "ledger-4"])


def half_there(story: Story) -> None:
    story.world.applied["gauge-9"] = ["x"]
    story.history.append(order("gauge-9", "unknown"))


def unasked(story: Story) -> None:
    story.world.applied["bank-77"] = ["x"]


def callback_lost(story: Story) -> None:
    del story.world.called["answer-2/always"]


def callback_twice(story: Story) -> None:
    story.world.called["answer-1/chosen"] = ["j", "z"]


def still_waiting(story: Story) -> None:
    story.world.jobs["ledger-1"] = WAITS


def link_still_waiting(story: Story) -> None:
    story.world.jobs["chain-1/1"] = WAITS


def left_in_the_queue(story: Story) -> None:
    story.world.waiting = 1


def failed_wrongly(story: Story) -> None:
    story.world.jobs["gauge-1"] = FAILED


def not_failed(story: Story) -> None:
    story.world.jobs["answer-2"] = ENDED


def two_at_once(story: Story) -> None:
    story.attempts[1]["t"] = 11.5


def place_never_given_back(story: Story) -> None:
    story.world.places_taken = 1


def two_at_once_one_rolled_back(story: Story) -> None:
    """An attempt that had to be repeated ran, and could have been committed, all the same."""
    story.attempts += [enter(11.2, "gauge-1", "z", 3), leave(11.4, "gauge-1", "z", 3)]


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (gone, LOST),
        (without_effect, LOST),
        (unknown_without_effect, LOST),
        (broken_chain, LOST),
        (done_twice, DOUBLED),
        (link_put_twice, DOUBLED),
        (concluded_twice, DOUBLED),
        (concluded_early, BOOKS),
        (counted_twice, BOOKS),
        (entered_and_not_done, BOOKS),
        (money_made, BOOKS),
        (refused_and_there, PHANTOM),
        (half_there, PHANTOM),
        (unasked, PHANTOM),
        (callback_lost, CALLBACKS),
        (callback_twice, CALLBACKS),
        (still_waiting, STUCK),
        (link_still_waiting, STUCK),
        (left_in_the_queue, STUCK),
        (failed_wrongly, WRONG),
        (not_failed, WRONG),
        (two_at_once, LIMIT),
        (place_never_given_back, LIMIT),
        (two_at_once_one_rolled_back, LIMIT),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_violation_is_found_and_taken_for_what_it_is(
    spoil: Callable[[Story], None], kind: str
) -> None:
    story = Story()
    spoil(story)
    assert list(story.found()) == [kind]


def test_every_kind_is_tried_here() -> None:
    tried = test_each_violation_is_found_and_taken_for_what_it_is.pytestmark[0].args[1]
    assert {kind for _, kind in tried} == set(KINDS)


def test_two_at_once_are_fine_where_there_are_two_places() -> None:
    story = Story()
    two_at_once(story)
    assert story.found(places=2) == {}


def test_an_attempt_ends_with_the_process_that_was_killed() -> None:
    story = Story()
    story.attempts[0:2] = [enter(10.0, "gauge-1", "dead", 7), enter(13.0, "gauge-1", "a", 1)]
    assert list(story.found()) == [LIMIT]
    story.deaths.append({"t": 10.5, "pid": 7})
    assert story.found() == {}


def test_a_zombie_counts_until_its_job_is_begun_anew() -> None:
    story = Story()
    story.attempts = [
        enter(10.0, "gauge-1", "frozen", 7),
        enter(10.5, "gauge-1", "a", 1),
        leave(11.0, "gauge-1", "a", 1),
        enter(11.0, "gauge-2", "b", 2),
        leave(11.8, "gauge-1", "frozen", 7),
        leave(12.0, "gauge-2", "b", 2),
    ]
    assert story.found() == {}


# Recovery


def test_recovery_is_from_the_death_to_the_next_attempt() -> None:
    attempts = [
        enter(1.0, "a", "a1", pid=7),
        enter(1.0, "b", "b1", pid=8),
        enter(1.0, "c", "c1", pid=7),  # was committed before
        enter(4.5, "a", "a2", pid=8),
        enter(9.0, "b", "b2", pid=7),
    ]
    found = recoveries(attempts, [{"t": 2.0, "pid": 7}], {"c": ["c1"], "a": ["a2"]})
    assert [(each.job, each.seconds) for each in found] == [("a", 2.5)]


def test_recovery_is_disturbed_by_what_is_broken_at_any_time_of_it() -> None:
    (found,) = recoveries(
        [enter(1.0, "a", "a1", 7), enter(5.0, "a", "a2", 8)], [{"t": 2.0, "pid": 7}], {}
    )
    assert found.is_disturbed([(4.9, 10.0)])
    assert found.is_disturbed([(0.0, 2.0)])
    assert not found.is_disturbed([(0.0, 1.9), (5.1, 6.0)])


def test_percentiles_are_of_what_is_there() -> None:
    assert percentile([], 0.99) == 0.0
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile(list(map(float, range(1, 101))), 0.99) == 99.0
    assert percentile([1.0, 2.0], 1.0) == 2.0
