# SPDX-License-Identifier: ZPL-2.1
"""The results as pictures: SVG by matplotlib, which only this module imports."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot
from matplotlib.patches import Patch

from benchmarks.cases import Case
from benchmarks.figures import Summary
from benchmarks.places import DURABILITY, FSYNC
from benchmarks.results import Results
from benchmarks.tables import NAMES, WORKS, label, mode_name

# The identifiers and the date in the file would differ each time.
SETTINGS: dict[str, Any] = {"svg.hashsalt": "zasync", "svg.fonttype": "none", "font.size": 9}
OURS, DURABLE, LOOSE, YARDSTICK = "#0b6e99", "#7a8b99", "#d8b365", "#9fc6d6"
_LEGEND = (
    (OURS, "zasync"),
    (YARDSTICK, "what ZODB allows, fsync"),
    (DURABLE, "others, fsync"),
    (LOOSE, "others, less durable"),
)

Bar = tuple[Case, str, Summary]


def pictures(run: Results) -> dict[str, str]:
    """Name -> SVG, of all for which there are figures."""
    made: dict[str, Callable[[Results], Any]] = {
        "drain": _drain,
        "work": _work,
        "put": _put,
        "put-many": _put_many,
        "latency": _latency,
        "cpu": _cpu,
        "backlog": _backlog,
    }
    found = {}
    with matplotlib.rc_context(SETTINGS):
        for name, make in made.items():
            figure = make(run)
            if figure is not None:
                found[name] = _svg(figure)
    return found


def _drain(run: Results) -> Any:
    bars = _of(run, "drain", "rate", lambda case: case.work == "no_op")
    bars += _of(run, "floor", "drain_rate", lambda case: True)
    return _bars(bars, "Drain of no-op jobs", "jobs a second")


def _put(run: Results) -> Any:
    bars = _of(run, "put", "rate", lambda case: case.amount == 1)
    raw = _of(run, "raw", "rate", lambda case: case.processes == 1)
    return _bars(bars + raw, "Put, one per transaction, and raw commits", "a second")


def _put_many(run: Results) -> Any:
    bars = _of(run, "put", "rate", lambda case: case.amount > 1)
    bars += _of(run, "floor", "put_rate", lambda case: True)
    return _bars(bars, "Put, 100 at once", "a second")


def _latency(run: Results) -> Any:
    bars = _of(run, "latency", "median_ms", lambda case: True)
    return _bars(bars, "Put to start at rest, median", "ms", logarithmic=True, least_first=True)


def _cpu(run: Results) -> Any:
    bars = _of(run, "drain", "cpu_ms", lambda case: case.work == "no_op")
    return _bars(bars, "Processor time of the workers for a no-op job", "ms", least_first=True)


def _work(run: Results) -> Any:
    """The other jobs."""
    bars = _of(run, "drain", "rate", lambda case: case.work != "no_op")
    title = "Drain of other jobs"
    return _bars(bars, title, "jobs a second", naming=lambda case: f"{WORKS[case.work]}: ")


def _backlog(run: Results) -> Any:
    lines: dict[str, list[tuple[float, Summary]]] = {}
    for case, _key, found in _of(run, "backlog", "rate", lambda case: not case.others):
        lines.setdefault(mode_name(case), []).append((case.amount, found))
    if not lines:
        return None
    figure, axes = pyplot.subplots(figsize=(8, 3.2), layout="constrained")
    for name, points in lines.items():
        points.sort(key=lambda point: point[0])
        medians = [found.median for _, found in points]
        error = [
            [found.median - found.least for _, found in points],
            [found.most - found.median for _, found in points],
        ]
        waiting = [amount for amount, _ in points]
        axes.errorbar(waiting, medians, error, marker="o", capsize=3, label=name)
    axes.set(xscale="log", xlabel="jobs waiting behind", ylabel="jobs a second")
    axes.set_ylim(bottom=0)
    axes.set_title("Backlog, FileStorage")
    axes.legend(frameon=False)
    return figure


def _of(run: Results, measure: str, figure: str, wanted: Callable[[Case], bool]) -> list[Bar]:
    return [
        (case, key, found)
        for case, key in run.each(measure)
        if wanted(case) and (found := run.summary(key, figure))
    ]


def _bars(
    bars: list[Bar],
    title: str,
    unit: str,
    *,
    logarithmic: bool = False,
    least_first: bool = False,
    naming: Callable[[Case], str] = lambda case: "",
) -> Any:
    """Bars from top to bottom, the best at the top, with the extremes of the rounds."""
    if not bars:
        return None
    bars = sorted(bars, key=lambda bar: bar[2].median, reverse=least_first)
    figure, axes = pyplot.subplots(figsize=(10, 0.8 + 0.26 * len(bars)), layout="constrained")
    medians = [found.median for _, _, found in bars]
    error = [
        [found.median - found.least for _, _, found in bars],
        [found.most - found.median for _, _, found in bars],
    ]
    names = [naming(case) + _name(case) for case, _, _ in bars]
    places = range(len(bars))
    colours = [_colour(case) for case, _, _ in bars]
    drawn = axes.barh(places, medians, xerr=error, color=colours, ecolor="#333333", capsize=2)
    axes.set_yticks(places, names)
    axes.set_xlabel(unit)
    axes.set_title(title)
    if logarithmic:
        axes.set_xscale("log")
    texts = [f"{found:,.0f}" if found >= 100 else f"{found:.2f}" for found in medians]
    axes.bar_label(drawn, texts, padding=4)
    axes.margins(x=0.12)
    handles = [Patch(color=colour) for colour, _ in _LEGEND]
    axes.legend(
        handles,
        [name for _, name in _LEGEND],
        loc="upper left",
        bbox_to_anchor=(1, 1),
        frameon=False,
    )
    axes.margins(y=0.01)
    return figure


def _name(case: Case) -> str:
    gap = f", every {case.amount:g} s" if case.measure == "latency" else ""
    return f"{label(case)}, {NAMES[case.storage]}{gap}"


def _colour(case: Case) -> str:
    if case.subject == "zasync":
        return OURS
    if case.subject == "ZODB":
        return YARDSTICK
    return DURABLE if DURABILITY[case.storage] == FSYNC else LOOSE


def _svg(figure: Any) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    text = file.getvalue()
    return text[text.index("<svg") :]
