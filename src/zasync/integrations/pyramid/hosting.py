# SPDX-License-Identifier: ZPL-2.1
"""`zasync worker --pyramid development.ini`: the application as its own file says, but no server.

The same file that the web processes have.  Provides `zasync.cli.hosting.Host`.
"""

from __future__ import annotations

import configparser
import dataclasses
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import plaster
import zc.lockfile  # type: ignore[import-untyped]
from pyramid.config import global_registries
from pyramid.exceptions import ConfigurationError
from pyramid.paster import get_app, get_appsettings, setup_logging
from ZEO.Exceptions import ClientDisconnected

from zasync.integrations.pyramid import settings
from zasync.integrations.pyramid.inclusion import primary_database
from zasync.integrations.pyramid.surroundings import around_job
from zasync.storage import BadConfiguration, close_database, is_file_storage, mend, tell_others
from zasync.storage.diagnosis import Subject, diagnosis
from zasync.storage.uri import redacted

URIS = "zodbconn.uri"
_OF_FILES = (configparser.Error, plaster.PlasterError)


@dataclasses.dataclass(frozen=True)
class Defaults:
    """What the settings `zasync.worker.*` say."""

    size: int | None = None
    poll_interval: float | None = None
    grace: float | None = None


class PyramidHost:
    """The application of an .ini file, or of `FILE#SECTION`; one in a process."""

    def __init__(self, ini: str) -> None:
        self._ini = ini
        self._registry: Any = None
        self._databases: dict[str, Any] = {}
        path, _, section = ini.partition("#")
        self.source = f"pyramid://{Path(path).absolute()}#{section or 'main'}"
        self.options = ["--pyramid", ini]

    @contextmanager
    def around(self) -> Iterator[None]:
        """The application's databases are closed at the end."""
        try:
            yield
        finally:
            for db in list(self._databases.values()):
                close_database(db)

    def open(self) -> Any:
        """Set the application up as a web process does, and answer its primary database.

        BadConfiguration tells what is wrong in the file, a StorageError why a database cannot be
        opened; what the application itself raises goes on up.
        """
        self._settings()
        setup_logging(self._ini)
        with self._told(), self._storage_explained():
            get_app(self._ini)
        self._registry = global_registries.last
        if getattr(self._registry, "zasync_settings", None) is None:
            raise BadConfiguration(
                f"the application of {self._ini} does not include zasync:"
                ' config.include("zasync.integrations.pyramid")'
            )
        db = primary_database(self._registry)
        self._databases = db.databases
        mend(db)
        tell_others(db)
        return db

    def around_job(self, job: Any) -> Any:
        """The application set up around an attempt at `job`."""
        return around_job(self._registry)(job)

    def defaults(self) -> Defaults:
        with self._told():
            found = settings.read(self._settings())
        return Defaults(found.worker_size, found.worker_poll_interval, found.worker_grace)

    def check_shareable(self) -> None:
        """BadConfiguration if a database is a file, which one process at a time can open."""
        for name, uri in self._uris().items():
            if is_file_storage(uri):
                raise BadConfiguration(
                    f"{name} of {self._ini} is a file, which one process at a time can open: serve"
                    " it with ZEO (zeo://)"
                )

    def _uris(self) -> dict[str, str]:
        """The settings of pyramid_zodbconn that name databases."""
        found = self._settings().items()
        return {key: value for key, value in found if key == URIS or key.startswith(f"{URIS}.")}

    def _settings(self) -> Any:
        """The settings of the application, which is not set up for that."""
        path = Path(self._ini.partition("#")[0])
        if not path.is_file():
            raise BadConfiguration(f"there is no file {path}")
        try:
            return get_appsettings(self._ini)
        except (LookupError, ValueError, ImportError, *_OF_FILES) as error:
            raise BadConfiguration(f"{self._ini} cannot be read: {_first_line(error)}") from error

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tell what the application finds wrong in its settings as the file's fault."""
        try:
            yield
        except ConfigurationError as error:
            raise BadConfiguration(f"{self._ini}: {_first_line(error)}") from error

    @contextmanager
    def _storage_explained(self) -> Iterator[None]:
        """Explain why a database cannot be opened; other errors are the application's own."""
        try:
            yield
        except (zc.lockfile.LockError, ClientDisconnected) as error:
            uris = " ".join(redacted(uri) for uri in self._uris().values())
            traceback.clear_frames(error.__traceback__)  # a half-made storage keeps its lock
            raise diagnosis(error, Subject(uris, servers=uris), None) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
