# SPDX-License-Identifier: ZPL-2.1
"""The directory of a demo: the database, the log, the broken file, the UUIDs of its workers."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

from zasync.cli.errors import CommandError
from zasync.cli.opening import connected, install_queues, look, opened
from zasync.demo import corpus, jobs
from zasync.demo.catalog import QUOTA, Catalog
from zasync.foundation import attempts
from zasync.interfaces import KEY

NAME = "zasync-demo"


@dataclasses.dataclass(frozen=True)
class Place:
    """The directory of one demo."""

    directory: Path

    @property
    def data(self) -> Path:
        return self.directory / "Data.fs"

    @property
    def uri(self) -> str:
        return f"file://{self.data}"

    @property
    def log(self) -> Path:
        return self.directory / "demo.log"

    @property
    def workers(self) -> Path:
        return self.directory / "workers"


def fresh_place(directory: Path | None) -> Place:
    """A directory without a demo: the one that is named, or a new one in the working directory."""
    if directory is None:
        directory = next(path for path in _candidates() if not path.exists())
    place = Place(directory.absolute())
    if place.data.exists():
        raise CommandError(
            f"there is a demo in {directory} already: --resume it, or name another --dir"
        )
    try:
        place.directory.mkdir(parents=True, exist_ok=True)
        # So that a demo in a working copy is none of its version control's business.
        (place.directory / ".gitignore").write_text("*\n")
    except OSError as error:
        raise CommandError(
            f"cannot write to {directory} ({error.strerror}): name another place with --dir"
        ) from error
    return place


def continued(directory: Path | None) -> Place:
    """The directory of a demo that was begun: the one that is named, or the last."""
    if directory is None:
        existing = list(itertools.takewhile(lambda path: path.exists(), _candidates()))
        if not existing:
            raise CommandError(f"there is no ./{NAME} to resume: name its directory with --dir")
        directory = existing[-1]
    place = Place(directory.absolute())
    if not place.data.exists() or not _has_begun(place):
        raise CommandError(f"no demo was begun in {directory}: run it without --resume")
    return place


def _candidates() -> itertools.chain[Path]:
    numbered = (Path(f"{NAME}-{number}") for number in itertools.count(2))
    return itertools.chain([Path(NAME)], numbered)


def _has_begun(place: Place) -> bool:
    with opened(place.uri) as db, connected(db) as connection:
        return jobs.ROOT in look(connection)


def begin(place: Place, paths: Sequence[str]) -> None:
    """Put the jobs that index the files `paths`, all in one transaction."""
    broken = corpus.write_broken_file(place.directory)

    def put() -> None:
        root = connection.root()
        install_queues(root)
        queue = root[KEY][""]
        queue.quotas.create(QUOTA, 1)
        catalog = root[jobs.ROOT] = Catalog()
        connection.add(catalog)
        queue.put(catalog.plan(paths, broken))

    with opened(place.uri) as db, connected(db) as connection:
        attempts.committed(put, transaction_manager=connection.transaction_manager)
