# SPDX-License-Identifier: ZPL-2.1
"""Reading the `<zodb>` sections of a ZConfig file: `zconfig://FILE#NAME`.

zodburi's own resolver opens the storage of one section and forgets the others; here they all
become one multi-database.  Options belong into the file, so the URI takes no query.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import ZConfig
import ZODB.config
from ZEO.Exceptions import ClientDisconnected

from zasync.storage import tls
from zasync.storage.errors import BadConfiguration

# What ZEO's schema says when the file says nothing; a limit of the file's own stands.
_ZEO_WAIT_SECONDS = 30


def parse(uri: str) -> tuple[Path, str]:
    """Answer the file and the name (perhaps empty) in a `zconfig://` URI."""
    path, _, name = uri.removeprefix("zconfig://").partition("#")
    if not path or "?" in path:
        raise BadConfiguration(
            f"{uri} cannot be right: write zconfig://FILE#NAME; options go into the file"
        )
    return Path(path), name


def sections(path: Path) -> list[Any]:
    """Read the file and answer its `<zodb>` sections; raises `BadConfiguration`."""
    try:
        with path.open(encoding="utf-8") as file:
            file.read()
        config, _ = ZConfig.loadConfig(ZODB.config.getDbSchema(), str(path.absolute()))
    except OSError as error:
        raise BadConfiguration(
            f"configuration file {path} cannot be read: {error.strerror}"
        ) from error
    except UnicodeDecodeError as error:
        raise BadConfiguration(f"configuration file {path} is not UTF-8 text") from error
    except ZConfig.ConfigurationError as error:
        raise BadConfiguration(f"{place(error, path)}: {words(error)}") from error
    found: list[Any] = config.database
    _refuse_incomplete(found, path)
    return found


def database_name(section: Any) -> str:
    """The name that ZODB gives the database of a section."""
    return str(section.config.database_name or section.name or "")


def named(databases: list[Any], name: str, path: Path) -> Any:
    """The section called `name`, or the first if that is empty; raises `BadConfiguration`.

    ZConfig makes section names lower case, so case is ignored where that helps.
    """
    if not name:
        return databases[0]
    for wanted in (name, name.lower()):
        for section in databases:
            if wanted in (database_name(section), section.name):
                return section
    names = ", ".join(database_name(section) or "(no name)" for section in databases)
    raise BadConfiguration(f"{path} has no <zodb> section named {name!r}; it has {names}")


def bound(section: Any, seconds: int) -> None:
    """Let the ZEO clients in a `<zodb>` section give up connecting after `seconds`."""
    section.config.storage = _bounded(section.config.storage, seconds)


def servers(section: Any) -> str:
    """The addresses of all ZEO servers that a `<zodb>` section names, for messages."""
    found = [server.address for each in _storages(section) for server in _servers_of(each)]
    return ", ".join(
        address if isinstance(address, str) else f"{address[0]}:{address[1]}" for address in found
    )


def sqlite_directories(section: Any) -> list[Path]:
    """The directories of all of RelStorage's SQLite databases that a `<zodb>` section names."""
    adapters = [getattr(each.config, "adapter", None) for each in _storages(section)]
    directories = [getattr(getattr(each, "config", None), "data_dir", None) for each in adapters]
    return [Path(directory) for directory in directories if directory]


def has_file_storage(section: Any) -> bool:
    """Whether a `<zodb>` section names a FileStorage."""
    return any(isinstance(each, ZODB.config.FileStorage) for each in _storages(section))


class _BoundedClient:
    """Opens a `<zeoclient>` section; that has no key for how long to wait, so it is done here."""

    def __init__(self, section: Any, seconds: int) -> None:
        self.name = section.name
        self.config = section.config
        self._section = section
        self._seconds = seconds

    def open(self) -> Any:
        self.config.wait = False
        storage = self._section.open()
        try:
            storage._wait(self._seconds)
        except ClientDisconnected:
            storage.close()
            raise
        return storage


class _SecuredClient:
    """Opens a `<clientstorage>` section with an `<ssl>` section in it."""

    def __init__(self, section: Any) -> None:
        self.name = section.name
        self.config = section.config
        self._section = section

    def open(self) -> Any:
        addresses = [server.address for server in _servers_of(self._section)]
        return tls.opened(self._section.open, addresses, *self.config.ssl)


def _bounded(section: Any, seconds: int) -> Any:
    config = section.config
    if isinstance(section, ZODB.config.ZEOClient):
        return _BoundedClient(section, seconds)
    if getattr(config, "wait_timeout", None) == _ZEO_WAIT_SECONDS:
        config.wait_timeout = seconds
    if getattr(config, "factories", None):  # a <demostorage>
        config.factories = [_bounded(each, seconds) for each in config.factories]
    if getattr(config, "base", None) is not None:  # a <blobstorage>
        config.base = _bounded(config.base, seconds)
    return _SecuredClient(section) if getattr(config, "ssl", None) else section


def _storages(section: Any) -> Iterator[Any]:
    """The storage sections in a section, all the way down."""
    config = section.config
    below = [getattr(config, "storage", None), getattr(config, "base", None)]
    for each in [*below, *(getattr(config, "factories", None) or [])]:
        if hasattr(each, "config"):
            yield each
            yield from _storages(each)


def _servers_of(section: Any) -> list[Any]:
    return list(getattr(section.config, "server", None) or [])


def _refuse_incomplete(databases: list[Any], path: Path) -> None:
    seen = set()
    for section in databases:
        name = database_name(section)
        if section.config.storage is None:
            raise BadConfiguration(
                f"<zodb {name}> of {path} names no storage: put a <filestorage>, <zeoclient> "
                "or other storage section into it"
            )
        if name in seen:
            raise BadConfiguration(
                f"{path} has two <zodb> sections named {name!r}: each needs a name of its own"
            )
        seen.add(name)


def place(error: ZConfig.ConfigurationError, path: Path) -> str:
    """File and line of an error; it may lie in a file that is included."""
    url = getattr(error, "url", None)
    file = unquote(urlsplit(url).path) if url else ""
    line = getattr(error, "lineno", None)
    same = not file or Path(file) == path.absolute()
    return f"{path if same else file}{f', line {line}' if line else ''}"


def words(error: ZConfig.ConfigurationError) -> str:
    return str(error.message).strip().partition("\n")[0]
