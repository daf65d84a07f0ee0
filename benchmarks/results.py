# SPDX-License-Identifier: ZPL-2.1
"""What was measured, in a JSON file that is written anew after each case: nothing is lost."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.cases import Case
from benchmarks.figures import Summary, summary

FORMAT = 1


@dataclasses.dataclass
class Results:
    """All figures of a run, by case and round."""

    command: str = ""
    kind: str = "short"  # or full
    seconds: float = 1.0  # that one measure was meant to take
    rounds: int = 0
    begun: str = ""
    machine: dict[str, str] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    cases: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    measured: dict[str, dict[int, dict[str, float]]] = dataclasses.field(default_factory=dict)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)
    """Key of a case -> why it could not be measured."""
    took: dict[str, float] = dataclasses.field(default_factory=dict)
    """Key of a case -> the seconds that it took to measure it last."""

    def add(self, case: Case, round: int, figures: dict[str, float]) -> None:
        self.cases[case.key] = dataclasses.asdict(case)
        self.measured.setdefault(case.key, {})[round] = figures
        self.missing.pop(case.key, None)

    def lack(self, case: Case, reason: str) -> None:
        """Note why `case` was not measured; figures of other rounds stay."""
        self.cases[case.key] = dataclasses.asdict(case)
        self.missing[case.key] = reason

    def has(self, case: Case, round: int) -> bool:
        return round in self.measured.get(case.key, {})

    def case(self, key: str) -> Case:
        return Case(**self.cases[key])

    def each(self, *measures: str) -> Iterator[tuple[Case, str]]:
        """The cases of these measures of which there are figures, with their keys."""
        for key in self.measured:
            case = self.case(key)
            if case.measure in measures:
                yield case, key

    def values(self, key: str, figure: str) -> dict[int, float]:
        """Round -> value, of the rounds that have it."""
        rounds = self.measured.get(key, {})
        return {number: each[figure] for number, each in sorted(rounds.items()) if figure in each}

    def summary(self, key: str, figure: str = "rate") -> Summary | None:
        return summary(list(self.values(key, figure).values()))

    def ratio(
        self, above: str, below: str, figure: str = "rate", other: str | None = None
    ) -> Summary | None:
        """Of one figure to another (`other`, else the same), round by round.

        What slows the machine down for a while slows both down.  Where they were measured in
        different rounds, it is the ratio of the medians.  None if either is lacking.
        """
        one, two = self.values(above, figure), self.values(below, other or figure)
        common = [number for number in one if two.get(number)]
        if common:
            return summary([one[number] / two[number] for number in common])
        if not one or not any(two.values()):
            return None
        return summary([statistics.median(one.values()) / statistics.median(two.values())])

    def rates(self) -> dict[str, float]:
        """The last rate of each case, by which the next round is measured out."""
        found = {key: self.values(key, "rate") for key in self.measured}
        return {key: list(values.values())[-1] for key, values in found.items() if values}

    def save(self, path: Path) -> None:
        """Write the file; it is never seen half written."""
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": FORMAT} | dataclasses.asdict(self), indent=1)
        beside = path.with_suffix(".new")
        beside.write_text(text + "\n", encoding="utf-8")
        os.replace(beside, path)

    @classmethod
    def load(cls, path: Path) -> Results:
        """Raises ValueError for a file of another format."""
        read = json.loads(path.read_text("utf-8"))
        if read.pop("format", None) != FORMAT:
            raise ValueError(f"{path.name} was written by another version; start anew without it")
        read["measured"] = {
            key: {int(number): figures for number, figures in rounds.items()}
            for key, rounds in read["measured"].items()
        }
        return cls(**read)
