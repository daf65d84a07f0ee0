# SPDX-License-Identifier: ZPL-2.1
"""The results as pages: HTML in one file that needs nothing else, and a page of the docs."""

from __future__ import annotations

import html
from pathlib import Path

from benchmarks import tables
from benchmarks.results import Results
from benchmarks.tables import Table, as_markdown

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
IN_PIECES = ", in pieces"  # behind the command of results that several runs have made
_STYLE = """\
body { font: 15px/1.45 system-ui, sans-serif; max-width: 82rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff }
table { border-collapse: collapse; margin: .7rem 0 2rem; font-size: 14px }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: left;
  vertical-align: top }
.figure { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.met { color: #116329 } .not-met { color: #a40e26; font-weight: 600 }
.not-measured { color: #777 }
svg { max-width: 100%; height: auto; margin: .5rem 0 1.5rem }
"""
_NOTE = (
    "Medians, with the extremes of the rounds in brackets. The systems took turns in each round,"
    " and ratios are taken round by round. Compare ratios, and only where the durability is the"
    " same: a system that does not wait for the disk promises less."
)


def as_html(run: Results, pictures: dict[str, str]) -> str:
    """The whole page."""
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>zasync: benchmark</title><style>{_STYLE}</style></head><body>",
        f"<h1>zasync: benchmark</h1><p>{html.escape(_NOTE)}</p>",
        *[_html_table(table) for table in (about(run), *tables.tables(run)[:1])],
        *[f'<div id="plot-{name}">{svg}</div>' for name, svg in pictures.items()],
        *[_html_table(table) for table in tables.tables(run)[1:]],
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def about(run: Results) -> Table:
    """What the figures hold for."""
    rows = [
        ("command", run.command),
        ("run", f"{run.kind}, {run.rounds} rounds of {run.seconds:g} s a measure, {run.begun}"),
        *run.machine.items(),
        ("versions", ", ".join(f"{name} {version}" for name, version in run.versions.items())),
    ]
    return Table("What was run, and on what", ("", ""), rows, 2)


def _html_table(table: Table) -> str:
    lines = [f"<h2>{html.escape(table.title)}</h2>", "<table>"]
    if any(table.headings):
        heads = "".join(
            _cell("th", text, index >= table.words) for index, text in enumerate(table.headings)
        )
        lines.append(f"<thead><tr>{heads}</tr></thead>")
    for row in table.rows:
        cells = "".join(_cell("td", text, index >= table.words) for index, text in enumerate(row))
        lines.append(f"<tr>{cells}</tr>")
    lines.append("</table>")
    if table.note:
        lines.append(f"<p>{html.escape(table.note)}</p>")
    return "\n".join(lines)


def _cell(tag: str, text: str, figure: bool) -> str:
    kinds = ["figure"] if figure else []
    if text in ("met", "not met", "not measured"):
        kinds.append(text.replace(" ", "-"))
    kind = f' class="{" ".join(kinds)}"' if kinds else ""
    return f"<{tag}{kind}>{html.escape(text)}</{tag}>"


def as_document(run: Results, pictures: dict[str, str], folder: str) -> str:
    """The part of the documentation that has figures; `folder` is where the pictures are."""
    command = run.command.removesuffix(IN_PIECES)
    parts = [f"Made by `{command}`{run.command.removeprefix(command)}."]
    for table in (about(run), *tables.tables(run)):
        parts += [f"### {table.title}", as_markdown(table), *filter(None, [table.note])]
        parts += [
            f"![{table.title}]({folder}/{name}.svg)"
            for title, name in _PICTURE_OF.items()
            if table.title.startswith(title) and name in pictures
        ]
    return "\n\n".join(parts)


_PICTURE_OF = {
    "Drain, no-op": "drain",
    "Drain, other": "work",
    "Put, and": "put",
    "Put to start": "latency",
    "Backlog": "backlog",
}


def rewrite(page: Path, run: Results, pictures: dict[str, str]) -> None:
    """Put the figures into `page`, between its marks, and the pictures beside it."""
    text = page.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page.name} lacks the marks {BEGIN} and {END}")
    folder = page.with_suffix("")
    folder.mkdir(exist_ok=True)
    used = {name: pictures[name] for name in _PICTURE_OF.values() if name in pictures}
    for old in folder.glob("*.svg"):
        old.unlink()
    for name, svg in used.items():
        (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    figures = as_document(run, used, folder.name)
    page.write_text(f"{before}{BEGIN}\n\n{figures}\n\n{END}{after}", encoding="utf-8")
