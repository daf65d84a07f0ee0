# SPDX-License-Identifier: ZPL-2.1
"""`zasync health`: one line of JSON and an exit code, for monitors.

It answers in bounded time whatever the storage does: another thread looks, and is left alone if
it does not come back.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from datetime import timedelta
from typing import Any

import click

from zasync.cli.errors import first_line
from zasync.cli.opening import connected, db_option, look, opened
from zasync.dispatcher.health import (
    BROKEN,
    EXIT_CODES,
    PATIENCE,
    Document,
    Problem,
    survey,
)
from zasync.foundation import clock
from zasync.storage import is_file_storage
from zasync.storage.uri import redacted, with_default


@click.command()
@db_option
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    metavar="S",
    help="Give up, as broken, after S seconds (10).",
)
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=PATIENCE.total_seconds(),
    metavar="S",
    help="A due job may lie there for S seconds while agents have places (30).",
)
def health(uri: str, timeout: float, patience: float) -> None:
    """Tell how the queues and their dispatchers do, as one line of JSON.

    The exit code is 0 if all is well, 1 if something stands still, and 2 if everything may, or
    if the database cannot be read.  What is wrong, and what to do, is in the line.
    """
    looked = Looked(uri, timeout, timedelta(seconds=patience))
    document = looked.wait()
    click.echo(json.dumps({"database": redacted(uri), **document}))
    sys.stdout.flush()
    code = EXIT_CODES[document["health"]]
    if looked.hangs:
        os._exit(code)  # closing the database would hang, too
    sys.exit(code)


class Looked:
    """A look at a database by a thread of its own."""

    def __init__(self, uri: str, timeout: float, patience: timedelta) -> None:
        self._uri = uri
        self._timeout = timeout
        self._patience = patience
        self._found: Document | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def wait(self) -> Document:
        """What was found, or why nothing was; within the timeout."""
        clock.wait(self._closed, self._timeout)
        return self._found or unreadable(
            "timeout", f"the database did not answer within {self._timeout:g} s"
        )

    @property
    def hangs(self) -> bool:
        return not self._closed.is_set()

    def _look(self) -> None:
        try:
            self._found = self._survey()
        except Exception as error:  # whatever it is: a monitor must be told
            self._found = unreadable(
                "unreachable", f"the database cannot be read: {first_line(error)}"
            )
        finally:
            self._closed.set()

    def _survey(self) -> Document:
        source = self._uri
        if is_file_storage(source):  # opened for reading, it takes no lock
            source = with_default(source, "read_only", 1)
        options: dict[str, Any] = {"create": False, "writable": False}
        wait = timedelta(seconds=self._timeout)
        with opened(source, wait=wait, **options) as db, connected(db) as connection:
            self._found = survey(look(connection), self._patience)
            return self._found


def unreadable(kind: str, what: str) -> Document:
    """The document of a database that tells nothing."""
    problem = Problem(
        kind,
        BROKEN,
        what,
        "see whether the URI is right, and whether the storage's server runs and can be reached",
    )
    return {
        "at": clock.now().isoformat(),
        "health": BROKEN,
        "problems": [problem.to_document()],
        "queues": [],
    }
