# SPDX-License-Identifier: ZPL-2.1
"""A storage in memory that fails when it is told to: once at a point, or for good."""

from __future__ import annotations

import dataclasses
from typing import Any

from ZODB.DemoStorage import DemoStorage

LOAD, VOTE, BEFORE_FINISH, AFTER_FINISH = "load", "vote", "before finish", "after finish"


class Killed(BaseException):
    """The process is dead: nothing of it reaches the storage any more."""


@dataclasses.dataclass
class Fault:
    """Raises `error` at `point`, `times` times, after `skip` times without."""

    point: str
    error: BaseException
    skip: int = 0
    times: int = 1


class FaultyStorage(DemoStorage):  # type: ignore[misc]
    """Raises what `fail` says; `commits` counts the transactions that took effect."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[Fault] = []
        self.commits = 0
        self.dead = False
        self._storing = False

    def fail(self, point: str, error: BaseException, *, skip: int = 0, times: int = 1) -> Fault:
        fault = Fault(point, error, skip, times)
        self.faults.append(fault)
        return fault

    def _reach(self, point: str) -> None:
        if self.dead:
            raise Killed
        for fault in self.faults:
            if fault.point != point or not fault.times:
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            fault.times -= 1
            self.dead = isinstance(fault.error, Killed)
            raise fault.error

    def loadBefore(self, oid: bytes, tid: bytes) -> Any:
        if not self._storing:
            self._reach(LOAD)
        return super().loadBefore(oid, tid)

    def store(self, *args: Any) -> Any:
        self._storing = True  # it loads what it compares with
        try:
            return super().store(*args)
        finally:
            self._storing = False

    def tpc_vote(self, transaction: Any) -> Any:
        self._reach(VOTE)
        return super().tpc_vote(transaction)

    def tpc_finish(self, transaction: Any, func: Any = lambda tid: None) -> Any:
        self._reach(BEFORE_FINISH)
        tid = super().tpc_finish(transaction, func)
        self.commits += 1
        self._reach(AFTER_FINISH)
        return tid
