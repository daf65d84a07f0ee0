# SPDX-License-Identifier: ZPL-2.1
"""`zasync worker --zope zope.conf`: Zope as its own configuration says, but no web server.

The same file that the web processes have; so there is no second one that differs a little.
Provides `zasync.cli.hosting.Host`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ZConfig
import Zope2
from App.config import setConfiguration
from Zope2.Startup import get_wsgi_starter
from Zope2.Startup.handlers import handleWSGIConfig
from Zope2.Startup.options import ZopeWSGIOptions

from zasync.integrations.zope import startup
from zasync.integrations.zope.faults import SettingsError
from zasync.integrations.zope.settings import Settings, find_settings
from zasync.storage import DEFAULT_WAIT, check_schema, close_database, mend, tell_others, zconfig
from zasync.storage.diagnosis import Subject, explained

_WAIT_SECONDS = int(DEFAULT_WAIT.total_seconds())
_VARIABLE = "ZOPE_CONFIG"  # names another zope.conf, which Zope would read once more


class ZopeHost:
    """The Zope of the file `zope_conf`, of which there can be one in a process."""

    around_job = None  # a ZopeJob sees to itself

    def __init__(self, zope_conf: str) -> None:
        self._path = Path(zope_conf)
        self._configuration: tuple[Any, Any] | None = None
        self._databases: dict[str, Any] = {}
        self.source = f"zope://{self._path.absolute()}"
        self.options = ["--zope", zope_conf]

    @contextmanager
    def around(self) -> Iterator[None]:
        """Zope's databases are closed at the end."""
        try:
            with startup.hosted():
                yield
        finally:
            for db in list(self._databases.values()):
                close_database(db)

    def open(self) -> Any:
        """Set Zope up as a web process does, and answer the database of its root.

        SettingsError tells what is wrong in zope.conf, with the line; a StorageError why one of
        its databases cannot be opened.
        """
        configuration, handlers = self._read()
        self._databases = configuration.dbtab.databases
        for section in configuration.databases:
            zconfig.bound(section, _WAIT_SECONDS)
        _set_up(configuration, handlers, self._path)
        db = Zope2.DB
        check_schema(db)
        mend(db)
        tell_others(db)
        return db

    def defaults(self) -> Settings:
        """What the section says."""
        return find_settings(self._read()[0])

    def check_shareable(self) -> None:
        """SettingsError if a database is a file, which one process at a time can open."""
        for section in self._read()[0].databases:
            if zconfig.has_file_storage(section):
                raise SettingsError(
                    f"<zodb_db {section.config.getSectionName()}> of {self._path} is a file, which"
                    " one process at a time can open: serve it with ZEO (<zeoclient>)"
                )

    def _read(self) -> tuple[Any, Any]:
        if self._configuration is None:
            self._configuration = read(self._path)
        return self._configuration


def read(path: Path) -> tuple[Any, Any]:
    """The configuration in the file, and Zope's handlers for it.  SettingsError."""
    try:
        path.read_text(encoding="utf-8")
        options = ZopeWSGIOptions(configfile=str(path.absolute()))()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8 text") from error
    except ZConfig.ConfigurationError as error:
        raise SettingsError(f"{zconfig.place(error, path)}: {zconfig.words(error)}") from error
    return options.configroot, options.confighandlers


def _set_up(configuration: Any, handlers: Any, path: Path) -> None:
    with suppress(KeyError):
        del os.environ[_VARIABLE]
    handleWSGIConfig(configuration, handlers)
    setConfiguration(configuration)
    starter = get_wsgi_starter()
    starter.setConfiguration(configuration)
    _open_databases(configuration, path)
    try:
        starter.prepare()
    except ZConfig.ConfigurationError as error:
        raise SettingsError(f"{path}: {zconfig.words(error)}") from error


def _open_databases(configuration: Any, path: Path) -> None:
    """Open each, before Zope does: what goes wrong is then known to be about that one."""
    for section in configuration.databases:
        name = section.config.getSectionName()
        with explained(Subject(f"<zodb_db {name}> of {path}", servers=zconfig.servers(section))):
            configuration.dbtab.getDatabase(name=name)
