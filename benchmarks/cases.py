# SPDX-License-Identifier: ZPL-2.1
"""A case: one thing that is measured once in each round.  Its key names it in the results."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

EVERY = 1_000


@dataclasses.dataclass(frozen=True)
class Case:
    """What to measure, of whom, and where.  `amount` means what the measure takes it for."""

    measure: str
    subject: str = "zasync"
    storage: str = "filestorage"
    work: str = "no_op"
    mode: str = "default"  # zasync: default, or batch for group settle
    processes: int = 1
    amount: float = 0
    others: str = ""  # of a backlog: why the others wait, a name of `work.OTHERS`
    rounds: int = EVERY  # in so many rounds at most

    @property
    def key(self) -> str:
        """Its name, unique and the same in every run."""
        parts = [self.measure, self.subject, self.storage]
        if self.measure in ("drain", "backlog"):
            parts.append(self.work.replace("_", "-"))
        if self.measure in ("drain", "backlog", "cost"):
            parts.append(self.mode)
        if self.processes > 1:
            parts.append(f"x{self.processes}")
        if self.amount:
            parts.append(f"{self.amount:g}")
        if self.others:
            parts.append(self.others)
        return "/".join(parts)


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which cases are wanted; what is empty selects all."""

    measures: tuple[str, ...] = ()
    storages: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    works: tuple[str, ...] = ()
    peers: tuple[str, ...] | None = None  # of the peers only these; () for none of them

    def of(self, cases: Iterable[Case]) -> list[Case]:
        return [case for case in cases if self._wants(case)]

    def _wants(self, case: Case) -> bool:
        chosen = (
            (self.measures, case.measure),
            (self.storages, case.storage),
            (self.subjects, case.subject),
            (self.works, case.work),
        )
        if any(wanted and value not in wanted for wanted, value in chosen):
            return False
        return self.peers is None or case.subject in ("zasync", "ZODB", *self.peers)
