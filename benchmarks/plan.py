# SPDX-License-Identifier: ZPL-2.1
"""Which cases the short and the full run measure, in the order of a round.

A round takes zasync and its peers in turn, so that what slows the machine down for a while does
not slow down one of them alone; the next rounds begin elsewhere in the list.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.cases import EVERY, Case
from benchmarks.places import STORAGES
from benchmarks.subjects import PEERS

SHORT_GAP, LONG_GAP = 0.01, 3.0  # seconds between two puts of a latency measure
FEW = 2  # rounds for what no target asks for
BACKLOGS = (100, 1_000, 10_000, 50_000, 200_000)
_SHORT_PEERS = (
    ("procrastinate", "peer-postgresql"),
    ("celery", "redis"),
    ("dramatiq", "redis"),
    ("huey", "redis"),
    ("huey", "peer-sqlite"),
    ("rq-simple", "redis"),
)


def short() -> list[Case]:
    """What the targets need, and one case of most other things."""
    peers = [Case("drain", name, storage) for name, storage in _SHORT_PEERS]
    drains = [
        Case("drain", storage=storage, mode=mode)
        for storage in STORAGES
        for mode in ("default", "batch")
    ]
    return [
        *_with_yardsticks(_woven(drains, peers)),
        Case("drain", storage="zeo", processes=4),
        Case("put", amount=100),
        Case("put", "procrastinate", "peer-postgresql", amount=1),
        *[Case("latency", storage=storage, amount=SHORT_GAP) for storage in STORAGES],
        Case("latency", "procrastinate", "peer-postgresql", amount=SHORT_GAP),
        *[Case("drain", work=work) for work in ("write_ten", "cpu", "io")],
        Case("drain", work="increment", rounds=1),
        Case("drain", work="fan_out", rounds=1),
        Case("backlog", amount=100),
        *[Case("backlog", amount=waiting, rounds=1) for waiting in (50_000, 200_000)],
        *_once(),
    ]


def full() -> list[Case]:
    """Everything."""
    works = ("no_op", "write_ten", "cpu", "io", "increment", "fan_out")
    drains = [
        Case("drain", storage=storage, work=work, mode=mode, rounds=_rounds(work))
        for work in works
        for storage in STORAGES
        for mode in ("default", "batch")
        if mode == "default" or work in ("no_op", "write_ten", "cpu")
    ]
    everyone = [(peer.name, storage) for peer in PEERS for storage in peer.storages]
    peers = [
        Case("drain", name, storage, work, rounds=_rounds(work))
        for work in ("no_op", "cpu", "io", "fan_out")
        for name, storage in everyone
        if work == "no_op" or storage != "redis-aof"
    ]
    return [
        *_with_yardsticks(_woven(drains, peers)),
        Case("raw", "ZODB", "zeo", processes=4),
        *[
            Case(
                "drain",
                storage=storage,
                mode=mode,
                processes=processes,
                rounds=EVERY if (storage, mode) == ("zeo", "default") else FEW,
            )
            for storage in STORAGES[1:]
            for mode in ("default", "batch")
            for processes in (2, 4)
        ],
        *_woven(
            [Case("put", storage=storage, amount=100) for storage in STORAGES],
            [Case("put", name, storage, amount=1) for name, storage in everyone if _is_first(name)],
        ),
        Case("put", "procrastinate", "peer-postgresql", amount=100),
        Case("put", "rq", "redis", amount=100),
        *_woven(
            [
                Case("latency", storage=storage, amount=gap, rounds=_rounds_of(gap))
                for storage in STORAGES
                for gap in (SHORT_GAP, LONG_GAP)
            ],
            [
                Case("latency", name, storage, amount=gap, rounds=_rounds_of(gap))
                for name, storage in everyone
                for gap in (SHORT_GAP, LONG_GAP)
                if _is_first(name) and storage != "redis-aof"
            ],
        ),
        *[
            Case("backlog", amount=waiting, rounds=FEW if waiting in (1_000, 10_000) else EVERY)
            for waiting in BACKLOGS
        ],
        *[
            Case("backlog", amount=waiting, others=others, rounds=FEW)
            for others, waiting in (("later", 100_000), ("refused", 50_000), ("full", 50_000))
        ],
        *[Case("backlog", mode="batch", amount=waiting, rounds=FEW) for waiting in (100, 200_000)],
        *_once(),
    ]


def rounds(cases: Sequence[Case], number: int) -> list[list[Case]]:
    """The cases of each round; later rounds begin later in the list."""
    made = []
    for index in range(number):
        begin = len(cases) * index // number
        turned = [*cases[begin:], *cases[:begin]]
        made.append([case for case in turned if index < case.rounds])
    return made


def guessed(case: Case, seconds: float) -> float:
    """About how many seconds it takes to measure `case`, where that has not been done yet."""
    begin, jobs = 1.0, 150 * seconds
    match case.measure:
        case "floor":
            return begin + 2 * seconds
        case "latency" if case.amount == SHORT_GAP:
            return begin + jobs * 0.025
        case "latency":
            return begin + 5 + max(2, 2 * seconds) * case.amount
        case "drain" | "backlog":
            return begin + 2.5 * seconds + case.amount / 10_000
        case "idle":
            return begin + max(5.0, 5 * seconds)
        case "cost" | "import":
            return 4.0
        case "async":
            return 8.0
    return begin + seconds


def _once() -> list[Case]:
    """What is counted, or hardly differs from round to round."""
    return [
        Case("cost", rounds=1),
        Case("cost", mode="batch", rounds=1),
        Case("idle", rounds=1),
        Case("import", "zasync", "none", rounds=1),
        Case("async", rounds=1, amount=1000),
    ]


def _rounds(work: str) -> int:
    return EVERY if work == "no_op" else FEW


def _rounds_of(gap: float) -> int:
    return EVERY if gap == SHORT_GAP else FEW


def _is_first(name: str) -> bool:
    """Whether a peer's set-up is the first of its package; puts are the same in all of them."""
    return name in {peer.module for peer in PEERS}


def _with_yardsticks(drains: Sequence[Case]) -> list[Case]:
    """Yardsticks, and puts, of each storage just before what is compared with them."""
    made: list[Case] = []
    seen: set[str] = set()
    for case in drains:
        if case.storage in STORAGES and case.storage not in seen:
            seen.add(case.storage)
            made.append(Case("raw", "ZODB", case.storage))
            made.append(Case("floor", "ZODB", case.storage))
            made.append(Case("put", storage=case.storage, amount=1))
        made.append(case)
    return made


def _woven(ours: Sequence[Case], theirs: Sequence[Case]) -> list[Case]:
    """Both lists as one, in turn."""
    mixed: list[Case] = []
    for index in range(max(len(ours), len(theirs))):
        mixed += [*ours[index : index + 1], *theirs[index : index + 1]]
    return mixed
