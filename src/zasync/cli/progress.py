# SPDX-License-Identifier: ZPL-2.1
"""How far the demo has come: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

LINES = 10  # so many plain lines, about


class Display(Protocol):
    """What is told how far the work has come."""

    def show(self, done: int, running: int) -> None: ...


@contextmanager
def progress(console: Console, total: int) -> Iterator[Display]:
    """A display of `total` jobs, as long as the block."""
    if not console.is_terminal:
        yield _Lines(console, total)
        return
    columns = (TextColumn("indexing"), BarColumn(), MofNCompleteColumn(), TextColumn("jobs"))
    running = TextColumn("{task.fields[running]} running")
    with Progress(*columns, running, TimeElapsedColumn(), console=console) as bars:
        yield _Bar(bars, bars.add_task("", total=total, running=0), total)


class _Bar:
    """A progress bar that is drawn again and again."""

    def __init__(self, bars: Progress, task: TaskID, total: int) -> None:
        self._bars = bars
        self._task = task
        self._total = total

    def show(self, done: int, running: int) -> None:
        self._bars.update(self._task, completed=min(done, self._total), running=running)


class _Lines:
    """A plain line for each tenth of the work."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._due = 0

    def show(self, done: int, running: int) -> None:
        done = min(done, self._total)
        if done >= self._due:
            self._console.print(f"{done} of {self._total} jobs done, {running} running")
            step = max(1, self._total // LINES)
            self._due = (done // step + 1) * step
