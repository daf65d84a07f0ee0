# SPDX-License-Identifier: ZPL-2.1
"""A very short torture run: the bench works, and finds nothing wrong."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from torture import nemesis, report
from torture.__main__ import Run, options

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.zeo]


@pytest.mark.parametrize("batch", [1, 20])
def test_a_short_run_does_each_kind_of_harm_and_nothing_is_lost_or_doubled(
    tmp_path: Path, batch: int
) -> None:
    short = ["--jobs", "40", "--seconds", "8", "--seed", "3", "--nodes", "3"]
    told = options().parse_args([*short, "--batch", str(batch)])
    said = io.StringIO()

    result = Run(told, tmp_path, Console(file=said, width=110)).carry_out()

    assert {kind: found for kind, found in result.findings.of.items() if found} == {}
    assert result.drained
    assert (result.missed, result.ended_by_themselves, result.bad_stops) == ([], 0, 0)
    assert result.happened.keys() == nemesis.DEFAULTS.keys()
    assert result.told["ok"] >= 20
    console = Console(file=said, width=110)
    report.show(result, console)
    assert "seed 3" in said.getvalue()
