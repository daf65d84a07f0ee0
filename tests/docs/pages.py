# SPDX-License-Identifier: ZPL-2.1
"""Runs the examples of a page as a reader would, one after the other in one directory.

- A Python block is run, with the names of the blocks before it; `>>>` makes it a doctest.  One
  whose first line is `# name.py` is a file: it is written, and can be imported from then on.
- In a console block each line after `$` is given to the shell, and what it prints must be what
  the page shows (`...` stands for anything).  Servers and workers are left running until the page
  has ended; then they are interrupted, and must end well.
- An ini block whose first line is `# name.ini` is a file, too; another one is not used.
- Every `localhost:9991` and `localhost:9992` becomes a free port.

What is not run says why: `<!-- skip: next "reason" -->`.
"""

from __future__ import annotations

import doctest
import os
import re
import signal
import subprocess
import sys
import sysconfig
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from sybil import Document, Example
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser, SkipParser

from zasync.foundation import platform

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))  # README has a test of its own

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
LONG_RUNNING = re.compile(r"(runzeo|zasync worker|pserve)\b")
FILE = re.compile(r"# ([\w./-]+\.\w+)\n")
LOG = Path("log.txt")
SECONDS = 60


class Page:
    """One page while its examples are run in the present directory."""

    def __init__(self, path: Path, port: int) -> None:
        self.path = path
        python = PythonCodeBlockParser(doctest_optionflags=OPTIONS)
        python.codeblock_parser = CodeBlockParser("python", self._python)
        files = CodeBlockParser("ini", self._file)
        parsers = [python, files, CodeBlockParser("console", self._console), SkipParser()]
        text = path.read_text(encoding="utf-8").replace("localhost:9991", f"localhost:{port}")
        text = text.replace("localhost:9992", f"localhost:{platform.free_loopback_port()}")
        self.document = Document(text, str(path))
        for parser in parsers:
            for region in parser(self.document):
                self.document.add(region)
        self._evaluate = PythonEvaluator()
        self._running: list[tuple[str, subprocess.Popen[str]]] = []

    def run(self) -> list[str]:
        """Run all examples; answers the reasons of those that were not run."""
        skipped = []
        with self._surroundings():
            for example in self.document.examples():
                try:
                    example.evaluate()
                except unittest.SkipTest as reason:
                    skipped.append(str(reason))
        return skipped

    @contextmanager
    def _surroundings(self) -> Iterator[None]:
        sys.path.insert(0, os.getcwd())
        known = set(sys.modules)
        try:
            yield
        finally:
            sys.path.remove(os.getcwd())
            for name in set(sys.modules) - known:
                file = getattr(sys.modules[name], "__file__", None)
                if file and Path(file).parent == Path.cwd():
                    del sys.modules[name]
            self._end_what_runs()

    def _python(self, example: Example) -> str | None:
        if FILE.match(example.parsed) is None:
            self._evaluate(example)
        return self._file(example)

    def _file(self, example: Example) -> str | None:
        name = FILE.match(example.parsed)
        if name is not None:
            Path(name[1]).write_text(example.parsed, encoding="utf-8")
        return None

    def _console(self, example: Example) -> str | None:
        for command in re.split(r"^\$ ", example.parsed, flags=re.MULTILINE)[1:]:
            line, _, expected = command.partition("\n")
            while line.endswith("\\"):
                more, _, expected = expected.partition("\n")
                line += f"\n{more}"
            if LONG_RUNNING.match(line):
                self._running.append((line, self._start(line)))
                continue
            printed, _ = self._start(line).communicate(timeout=SECONDS)
            if not doctest.OutputChecker().check_output(expected, printed, OPTIONS):
                return f"$ {line}\nshould print\n{expected}\nbut printed\n{printed}"
        return None

    def _start(self, line: str) -> subprocess.Popen[str]:
        """Start a command; what those that are left running say goes to a file."""
        if not LONG_RUNNING.match(line):
            return self._shell(line, subprocess.PIPE)
        with LOG.open("a", encoding="utf-8") as log:
            return self._shell(f"exec {_as_module(line)}", log)

    def _shell(self, line: str, output: int | TextIO) -> subprocess.Popen[str]:
        environment = os.environ | {
            "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{os.getcwd()}",
            "ZASYNC_STATE": os.getcwd(),
            "COLUMNS": "100",
        }
        return subprocess.Popen(
            _as_module(line),
            shell=True,
            text=True,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def _end_what_runs(self) -> None:
        """Interrupt workers before the servers that they need, and see them end well."""
        for line, process in reversed(self._running):
            process.send_signal(signal.SIGINT)
            status = process.wait(SECONDS)
            if line.startswith("zasync") and status != 0:
                raise AssertionError(f"{line} ended with {status}:\n{LOG.read_text()}")


def _as_module(line: str) -> str:
    """The command in the form that works where the package is not installed."""
    return re.sub(r"^zasync\b", "python -m zasync", line)
