# SPDX-License-Identifier: ZPL-2.1
"""What is special about RelStorage: its URIs, missing drivers, and races at first use.

RelStorage's own reading of URIs leaves percent signs in passwords, knows few of libpq's options
and no setting of SQLite; so its URIs are read here.  Its errors are known by name.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlencode, urlsplit

import zodburi

from zasync.foundation.errors import Trouble, classify
from zasync.storage.errors import BadConfiguration, StorageError, StorageUnreachable
from zasync.storage.uri import RELSTORAGE_EXTRAS, redacted, scheme_of, with_default

NO_DRIVER = "relstorage.adapters.interfaces.DriverNotAvailableError"

# Options of a PostgreSQL URI that are libpq's.  Those of PostgreSQL's documentation that make
# sense here; `host` is for the directory of a unix socket.
LIBPQ_OPTIONS = frozenset(
    {
        "application_name",
        "channel_binding",
        "connect_timeout",
        "gssencmode",
        "host",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "options",
        "passfile",
        "port",
        "service",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslpassword",
        "sslrootcert",
        "target_session_attrs",
        "tcp_user_timeout",
        "user",
    }
)
# So that a network that drops packets is noticed in half a minute instead of never.
LIBPQ_DEFAULTS = {
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",  # milliseconds
}
# How safe SQLite is against a loss of power, by its own numbers and names.
_SYNCHRONOUS = {"off": 0, "normal": 1, "full": 2, "extra": 3}
_RELSTORAGE_SYNCHRONOUS = "normal"
_SAFE_SYNCHRONOUS = "full"


def prepared(uri: str, seconds: int) -> str:
    """Answer a `normalised` URI such that it is complete.

    Connecting gives up after `seconds` where the driver can be told so.  Raises
    `BadConfiguration` for what cannot be meant.
    """
    match scheme_of(uri):
        case "sqlite" if sqlite_directory(uri) is None:
            raise BadConfiguration(
                f"{uri} does not say where: write sqlite:///?data_dir=DIRECTORY "
                "(a path before the question mark is ignored)"
            )
        case "postgres":
            return _bounded(_with_port(uri), seconds)
    return uri


def resolved(uri: str) -> tuple[Callable[[], Any], dict[str, Any]]:
    """How to make the storage of a `prepared` URI, and the options for its database."""
    adapter = _ADAPTERS.get(scheme_of(uri))
    if adapter is None:
        found: tuple[Callable[[], Any], dict[str, Any]] = zodburi.resolve_uri(uri)
        return found
    from relstorage.zodburi_resolver import RelStorageURIResolver

    make_storage, rest = RelStorageURIResolver(adapter)(uri)
    _, options = zodburi.resolve_uri(f"memory://?{urlencode(rest)}")
    return make_storage, options


def sqlite_directory(uri: str) -> Path | None:
    """The directory that a `sqlite://` URI names, or None."""
    if scheme_of(uri) != "sqlite":
        return None
    directories = parse_qs(urlsplit(uri).query).get("data_dir")
    return Path(directories[-1]) if directories else None


@contextmanager
def alone_in(directory: Path, seconds: int) -> Iterator[None]:
    """Keep others of us from opening a SQLite database in `directory` meanwhile.

    Those who open a new one together can leave tables without a row that all the rest refers
    to, and nobody can use it ever after.  The lock is SQLite's own, on a file beside.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with closing(
        sqlite3.connect(directory / "zasync-opening.lock", timeout=seconds, isolation_level=None)
    ) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        yield


def lost_the_race(error: BaseException) -> bool:
    """Whether `error` says that another process was making the same tables meanwhile.

    RelStorage makes them without a lock; PostgreSQL then refuses all but the first.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    return "IntegrityError" in names or (
        bool(names & {"OperationalError", "ProgrammingError"}) and "already exists" in str(error)
    )


def forgets_at_power_loss(storage: Any) -> str | None:
    """The setting of a SQLite storage that lets a loss of power undo commits, or None."""
    pragmas = getattr(_adapter_of(storage), "pragmas", None)
    if pragmas is None:
        return None
    written = str(pragmas.get("synchronous", _RELSTORAGE_SYNCHRONOUS)).lower()
    level = _SYNCHRONOUS.get(written)
    if level is None:
        level = int(written) if written.isdigit() else _SYNCHRONOUS[_RELSTORAGE_SYNCHRONOUS]
    return None if level >= _SYNCHRONOUS[_SAFE_SYNCHRONOUS] else f"synchronous {written}"


def postgresql_dsn(storage: Any) -> str | None:
    """How RelStorage's `storage` connects to PostgreSQL, or None for any other storage."""
    adapter = _adapter_of(storage)
    dsn = getattr(adapter, "_dsn", None)
    is_postgresql = any(kind.__name__ == "PostgreSQLAdapter" for kind in type(adapter).__mro__)
    return dsn if is_postgresql and isinstance(dsn, str) else None


def sqlite_file(storage: Any) -> Path | None:
    """The database file of RelStorage's `storage`; None if it is no SQLite."""
    adapter = _adapter_of(storage)
    directory = getattr(adapter, "data_dir", None)
    is_sqlite = any(kind.__name__ == "Sqlite3Adapter" for kind in type(adapter).__mro__)
    return Path(directory) / "main.sqlite3" if is_sqlite and isinstance(directory, str) else None


def diagnosis(error: Exception, subject: str, scheme: str) -> StorageError | None:
    """Our error for one of RelStorage's or of its drivers', or None for any other."""
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
    if NO_DRIVER in names:
        extra = RELSTORAGE_EXTRAS.get(scheme, "relstorage")
        return BadConfiguration(
            f"{subject} needs a database driver that is not installed: "
            f"pip install 'zasync[{extra}]', or a driver that RelStorage's documentation names"
        )
    first_line = redacted(str(error).strip().partition("\n")[0])
    if "sqlite3.Error" in names:
        return StorageError(f"cannot open {subject}: {first_line}")
    if isinstance(error, OSError) and scheme not in RELSTORAGE_EXTRAS:
        return None
    if any(words in first_line for words in _REFUSALS):
        return BadConfiguration(f"{subject} is refused by its server: {first_line}")
    if classify(error, from_storage=True) is Trouble.INFRASTRUCTURE:
        return StorageUnreachable(f"the server of {subject} cannot be used: {first_line}")
    return None


# A server that says this will say it again.
_REFUSALS = (
    "password authentication failed",
    "no password supplied",
    "does not exist",
    "no pg_hba.conf entry",
    "permission denied",
    "invalid connection option",
)


def _adapter_of(storage: Any) -> Any:
    """RelStorage's adapter of `storage`, or of the one that it stands before."""
    for each in (storage, getattr(storage, "base", None)):
        adapter = getattr(each, "_adapter", None)
        if adapter is not None:
            return adapter
    return None


def _postgresql(parts: SplitResult, given: dict[str, str]) -> tuple[Callable[[Any], Any], Any]:
    """How RelStorage wants a scheme's own part of a URI to be read."""
    settings = {
        "dbname": parts.path[1:],
        "user": parts.username,
        "password": parts.password,
        "host": parts.hostname,
        "port": parts.port,
    }
    known = {name: unquote(str(value)) for name, value in settings.items() if value}
    known |= {name: value for name, value in given.items() if name in LIBPQ_OPTIONS}
    rest = {name: value for name, value in given.items() if name not in LIBPQ_OPTIONS}
    dsn = " ".join(f"{name}={_quoted(value)}" for name, value in known.items())

    def adapter(options: Any) -> Any:
        from relstorage.adapters.postgresql import PostgreSQLAdapter

        return PostgreSQLAdapter(dsn=dsn, options=options)

    return adapter, rest


def _sqlite(parts: SplitResult, given: dict[str, str]) -> tuple[Callable[[Any], Any], Any]:
    """How RelStorage wants a scheme's own part of a URI to be read."""
    rest = dict(given)
    directory = rest.pop("data_dir")
    synchronous = rest.pop("synchronous", _SAFE_SYNCHRONOUS).lower()
    if synchronous not in _SYNCHRONOUS:
        raise BadConfiguration(f"synchronous={synchronous} is not one of {', '.join(_SYNCHRONOUS)}")

    def adapter(options: Any) -> Any:
        from relstorage.adapters.sqlite.adapter import Sqlite3Adapter

        return Sqlite3Adapter(directory, {"synchronous": synchronous}, options=options)

    return adapter, rest


_ADAPTERS = {"postgres": _postgresql, "sqlite": _sqlite}


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _with_port(uri: str) -> str:
    parts = urlsplit(uri)
    given = parse_qs(parts.query)
    if not (parts.username or "user" in given) or not (parts.hostname or "host" in given):
        raise BadConfiguration(
            f"{redacted(uri)} lacks a user or host: write postgresql://user@host/database, "
            "or postgresql://user@/database?host=/run/postgresql for a unix socket"
        )
    if parts.port is not None or "port" in given:
        return uri
    return with_default(uri, "port", 5432)


def _bounded(uri: str, seconds: int) -> str:
    # Only libpq knows the options; pg8000 would stumble over them.
    if "driver=pg8000" in uri or find_spec("psycopg2") is None:
        return uri
    for option, value in LIBPQ_DEFAULTS.items():
        uri = with_default(uri, option, value)
    return with_default(uri, "connect_timeout", max(2, seconds))


def forget_aborted(storage: Any) -> None:
    """Have RelStorage on SQLite forget what an aborted transaction was about to write.

    It lies in a temporary table of a connection that is used again.  RelStorage 4.3 empties that
    table only if SQLite is amid a transaction, which it is not when a read conflict ends the
    vote: the next commit over this connection then writes what was aborted.  Other storages are
    left alone; may be called again.
    """
    manager: Any = getattr(getattr(storage, "_adapter", None), "connmanager", None)
    if type(manager).__module__ != "relstorage.adapters.sqlite.connmanager":
        return
    original = manager._may_need_rollback
    if hasattr(original, "forgets_aborted"):
        return

    def may_need_rollback(connection: Any) -> bool:
        # Only those that store have something to clean up.
        return bool(getattr(connection, "before_commit_functions", ())) or original(connection)

    may_need_rollback.forgets_aborted = True  # type: ignore[attr-defined]
    manager._may_need_rollback = may_need_rollback
