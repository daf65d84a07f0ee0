# SPDX-License-Identifier: ZPL-2.1
"""The parts of the demo's application: which files, what is in them, the index, the display."""

import io
import tokenize
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from zasync.cli.progress import progress
from zasync.demo import corpus, jobs
from zasync.demo.catalog import Catalog
from zasync.demo.report import Latency
from zasync.failure import Failure


def test_a_tree_is_walked_in_order_without_hidden_files_and_the_demo_itself(
    tmp_path: Path,
) -> None:
    for name in ("b.txt", "a/c.py", "a/.hidden", ".git/config", "demo/Data.fs"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = corpus.tree_files(tmp_path, None, tmp_path / "demo")
    assert found == [str(tmp_path / "b.txt"), str(tmp_path / "a/c.py")]
    assert corpus.tree_files(tmp_path, 1, tmp_path / "demo") == [str(tmp_path / "b.txt")]


def test_the_library_has_enough_files_and_none_of_its_tests() -> None:
    found = corpus.library_files(None)
    assert len(found) == corpus.DEFAULT_FILES
    assert all(path.endswith(".py") and "/test/" not in path for path in found)
    assert len(corpus.library_files(5)) == 5


def test_identifiers_are_counted_without_keywords_comments_and_strings(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("def f(a):  # comment\n    return a + 'string'\n")
    assert jobs.read_file(str(path)) == {"f": 1, "a": 2}


def test_words_of_other_files_are_counted_if_they_are_text_and_not_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, binary = tmp_path / "text", tmp_path / "binary"
    text.write_bytes(b"one two two \xff" + b"x" * 200)
    binary.write_bytes(b"one\0")
    assert jobs.read_file(str(text)) == {"one": 1, "two": 2}
    assert jobs.read_file(str(binary)) == {}
    monkeypatch.setattr(jobs, "LARGEST", 3)
    assert jobs.read_file(str(text)) == {}


def test_the_broken_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises((tokenize.TokenError, SyntaxError)):
        jobs.read_file(corpus.write_broken_file(tmp_path))


class Reading:
    """Stands for a job that has ended."""

    def __init__(self, path: str, result: Any) -> None:
        self.args = [path]
        self.result = result


def test_the_catalog_finds_documents_by_all_names_and_knows_why_one_is_missing() -> None:
    catalog = Catalog()
    assert catalog.merge(Reading("a", {"x": 1, "y": 2}), Reading("b", {"y": 1})) == 2
    assert catalog.merge(Reading("c", Failure(ValueError("odd")))) == 0
    assert catalog.search("y") == ["a", "b"]
    assert catalog.search("x", "y") == ["a"]
    assert catalog.search("x", "z") == []
    assert catalog.most_frequent(1) == [("y", 3)]
    assert catalog.how_often("x") == 1
    assert catalog.how_often("z") == 0
    assert catalog.unreadable["c"] == "odd"


def test_what_a_callback_has_noted_stays() -> None:
    catalog = Catalog()
    catalog.note_unreadable("c", Failure(ValueError("first")))
    catalog.merge(Reading("c", Failure(ValueError("second"))))
    assert catalog.unreadable["c"] == "first"


def test_the_latency_of_too_few_jobs_is_not_known() -> None:
    assert Latency.of([]) is None


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal() -> None:
    written = io.StringIO()
    with progress(Console(file=written), 100) as display:
        for done in range(0, 120, 5):
            display.show(done, 2)
    lines = written.getvalue().splitlines()
    assert lines[0] == "0 of 100 jobs done, 2 running"
    assert lines[-1] == "100 of 100 jobs done, 2 running"
    assert len(lines) == 11


def test_progress_is_a_bar_on_a_terminal() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=100)
    with progress(console, 100) as display:
        display.show(40, 2)
    assert "40/100" in written.getvalue()
    assert "2 running" in written.getvalue()
