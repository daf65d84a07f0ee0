# SPDX-License-Identifier: ZPL-2.1
"""What a worker works in: a bare database, or the application whose jobs it performs.

An application is set up by the module that is named after its framework, and is imported only
when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import click

from zasync.cli.errors import CommandError
from zasync.dispatcher.dispatcher import AroundJob
from zasync.storage import close_database, open_database


class Defaults(Protocol):
    """What the application's own configuration says about a worker; None: nothing."""

    @property
    def size(self) -> int | None: ...

    @property
    def poll_interval(self) -> float | None: ...

    @property
    def grace(self) -> float | None: ...


@dataclass(frozen=True)
class NoDefaults:
    """A bare database says nothing."""

    size: int | None = None
    poll_interval: float | None = None
    grace: float | None = None


class Host(Protocol):
    """Where a worker finds its database, and what surrounds its work."""

    source: str
    """Names it, like a URI; the UUIDs of its workers are chosen by it."""

    options: list[str]
    """How a child process is told of it on the command line."""

    @property
    def around_job(self) -> AroundJob | None:
        """What is set up around each attempt at a job."""

    def around(self) -> AbstractContextManager[Any]:
        """Surrounds everything: what is set up in it ends with the block."""

    def open(self) -> Any:
        """Set the application up, and answer its database.  A ZasyncError says what is wrong."""

    def defaults(self) -> Defaults:
        """What the configuration says.  A ZasyncError says what is wrong in it."""

    def check_shareable(self) -> None:
        """A ZasyncError if several processes cannot open this at once."""


class Bare:
    """A database and nothing else."""

    around_job = None

    def __init__(self, uri: str) -> None:
        self.source = uri
        self.options = ["--db", uri]
        self._db: Any = None

    @contextmanager
    def around(self) -> Iterator[None]:
        try:
            yield
        finally:
            if self._db is not None:
                close_database(self._db)

    def open(self) -> Any:
        self._db = open_database(self.source)
        return self._db

    def defaults(self) -> Defaults:
        return NoDefaults()

    def check_shareable(self) -> None:
        """A file is served to them."""


zope_option = click.option(
    "--zope",
    "zope_conf",
    metavar="FILE",
    help="Set up the Zope of this zope.conf, without its web server, and work its queues.",
)


pyramid_option = click.option(
    "--pyramid",
    "pyramid_ini",
    metavar="FILE",
    help="Set up the Pyramid application of this .ini file, and work its queues.",
)


def host_of(uri: str | None, zope_conf: str | None, pyramid_ini: str | None = None) -> Host:
    """What the options name.  CommandError unless it is exactly one thing."""
    if sum(each is not None for each in (uri, zope_conf, pyramid_ini)) != 1:
        raise CommandError(
            "name one of: a database (--db URI), a Zope (--zope FILE), a Pyramid application"
            " (--pyramid FILE)"
        )
    if uri is not None:
        return Bare(uri)
    if pyramid_ini is not None:
        return _pyramid_host(pyramid_ini)
    assert zope_conf is not None
    return _zope_host(zope_conf)


def _pyramid_host(pyramid_ini: str) -> Host:
    try:
        from zasync.integrations.pyramid.hosting import PyramidHost
    except ImportError as error:
        raise CommandError(
            f"--pyramid needs Pyramid ({error}): pip install 'zasync[pyramid]', in the environment"
            " of the application"
        ) from error
    return PyramidHost(pyramid_ini)


def _zope_host(zope_conf: str) -> Host:
    try:
        from zasync.integrations.zope.hosting import ZopeHost
    except ImportError as error:
        raise CommandError(
            f"--zope needs Zope ({error}): pip install 'zasync[zope]', in the environment of Zope"
        ) from error
    return ZopeHost(zope_conf)
