# SPDX-License-Identifier: ZPL-2.1
"""What is written of the results: tables, the page, the part of the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import page, plan, plots, tables
from benchmarks.cases import Case
from benchmarks.machine import machine, versions, without_paths
from benchmarks.places import DURABILITY, STORAGES
from benchmarks.results import Results
from tests.benchmark.conftest import results_of
from tests.docs.pages import ROOT


def test_every_row_of_a_table_has_all_columns(results: Results) -> None:
    for table in tables.tables(results):
        assert {len(row) for row in table.rows} == {len(table.headings)}, table.title


def test_the_durability_stands_beside_each_rate(results: Results) -> None:
    drains = tables.drains(results, "no_op")
    column = drains.headings.index("durability")

    assert {row[column] for row in drains.rows} <= set(DURABILITY.values())
    assert all(
        "durability" in table.headings
        for table in tables.tables(results)
        if table.title.startswith(("Drain", "Put", "zasync's drain"))
    )


def test_the_smallest_possible_queue_stands_among_drains_and_puts(results: Results) -> None:
    names = [row[0] for row in tables.drains(results, "no_op").rows]
    puts = [row[:2] for row in tables.puts(results).rows]

    assert names.count("smallest possible queue") == len(STORAGES)
    assert puts.count(("smallest possible queue", "100")) == len(STORAGES)


def test_both_modes_are_set_in_relation_to_each_peer() -> None:
    results = Results()
    for case, rate in (
        (Case("drain"), 30.0),
        (Case("drain", mode="batch"), 60.0),
        (Case("drain", storage="zeo"), 20.0),
        (Case("drain", "huey", "redis"), 10.0),
    ):
        results.add(case, 1, {"rate": rate})

    table = tables.ratios(results)

    assert table.headings[3:] == ("FileStorage", "ZEO")
    assert [row[3:] for row in table.rows] == [("3.00x / 6.00x", "2.00x / -")]


def test_no_row_of_the_documentation_is_too_wide_to_read() -> None:
    results = results_of(plan.full(), rounds=5)

    for table in tables.tables(results):
        lines = tables.as_markdown(table).splitlines()
        assert max(map(len, lines)) <= 140, table.title


def test_each_table_has_its_own_picture(results: Results) -> None:
    names = ("drain", "work", "put", "latency", "backlog")

    text = page.as_document(results, dict.fromkeys(names, "<svg></svg>"), "performance")

    assert [text.count(f"(performance/{name}.svg)") for name in names] == [1] * len(names)


def test_targets_that_depend_on_the_machine_are_marked_and_explained(results: Results) -> None:
    table = tables.targets(results)

    assert ("≥ 10,000/s †", "not met") in [(row[1], row[3]) for row in table.rows]
    assert "† easier on a faster machine" in table.note
    assert table.note in page.as_document(results, {}, "performance")
    assert table.note in page.as_html(results, {})


def test_the_fastest_stands_first() -> None:
    results = Results()
    results.add(Case("drain"), 1, {"rate": 5.0})
    results.add(Case("drain", "huey", "redis"), 1, {"rate": 7.0})

    assert [row[0].split()[0] for row in tables.drains(results, "no_op").rows] == [
        "Huey",
        "zasync,",
    ]


def test_the_page_needs_nothing_from_elsewhere_and_says_what_is_missing(results: Results) -> None:
    results.lack(Case("put", "rq", "redis", amount=1), "missing: <no> server")

    text = page.as_html(results, {"drain": "<svg></svg>"})

    assert "<svg></svg>" in text
    assert "missing: &lt;no&gt; server" in text
    assert "python -m benchmarks run" in text
    assert not [word for word in ("src=", "href=", "@import", "url(") if word in text]


def test_the_documentation_is_rewritten_between_its_marks_only(
    tmp_path: Path, results: Results
) -> None:
    document = tmp_path / "performance.md"
    document.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")

    page.rewrite(document, results, {"drain": "<svg></svg>", "cpu": "<svg></svg>"})
    first = document.read_text("utf-8")
    page.rewrite(document, results, {"drain": "<svg></svg>"})

    assert first.startswith(f"before\n{page.BEGIN}\n")
    assert first.endswith(f"{page.END}\nafter\n")
    assert "\nold\n" not in first
    assert "(performance/drain.svg)" in first
    assert [path.name for path in (tmp_path / "performance").iterdir()] == ["drain.svg"]
    assert document.read_text("utf-8") == first


def test_a_document_without_marks_is_left_alone(tmp_path: Path, results: Results) -> None:
    document = tmp_path / "performance.md"
    document.write_text("no marks")

    with pytest.raises(ValueError, match=r"performance\.md lacks the marks"):
        page.rewrite(document, results, {})
    assert document.read_text() == "no marks"


def test_our_document_has_the_marks() -> None:
    text = (ROOT / "docs" / "performance.md").read_text("utf-8")

    assert text.index(page.BEGIN) < text.index(page.END)


def test_the_plots_are_drawn() -> None:
    measures = ("drain", "put", "latency", "backlog")
    cases = [Case(measure, amount=1) for measure in measures]
    cases += [Case("put", amount=100), Case("floor", "ZODB")]
    results = results_of([*cases, Case("drain", "huey", "redis"), Case("drain", work="cpu")])

    drawn = plots.pictures(results)

    assert set(drawn) == {"drain", "work", "put", "put-many", "latency", "cpu", "backlog"}
    assert all(svg.startswith("<svg") for svg in drawn.values())
    assert "Huey (4 threads)" in drawn["drain"]
    assert "smallest possible queue, FileStorage" in drawn["drain"]
    assert plots.pictures(Results()) == {}


def test_a_plot_is_the_same_when_it_is_drawn_again() -> None:
    results = results_of([Case("backlog", amount=100)])

    assert plots.pictures(results) == plots.pictures(results)


def test_what_is_said_of_the_machine_has_no_path_of_it() -> None:
    said = " ".join([*machine().values(), *versions().values()])

    assert without_paths(said) == said


def test_paths_are_taken_out_of_errors() -> None:
    assert without_paths("no file /home/me/x/Data.fs here") == "no file ... here"
    assert without_paths("drain/zasync/zeo failed") == "drain/zasync/zeo failed"
