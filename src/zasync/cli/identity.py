# SPDX-License-Identifier: ZPL-2.1
"""Which UUID a worker has: the same one at each start, and never that of another worker.

A stable UUID lets a worker that was killed recover its own jobs as soon as it is started again,
and keeps the list of dispatchers short.  So each database has a directory of slots
(`zasync.dispatcher.slots`), of which a worker takes the first that is free.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
from collections.abc import Iterator, MutableMapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click
import zc.lockfile  # type: ignore[import-untyped]

from zasync import instanceuuid
from zasync.cli.errors import IdentityTaken
from zasync.dispatcher.slots import Lock, free_slot
from zasync.foundation import clock
from zasync.instanceuuid import InstanceUUID
from zasync.storage import file_storage_path, is_file_storage

FILE = "ZASYNC_UUID"  # names the file itself, as for any instance
DIRECTORY = "ZASYNC_STATE"  # names the directory of the slots

log = logging.getLogger("zasync.events")


@contextmanager
def worker_uuid(uri: str) -> Iterator[InstanceUUID]:
    """The UUID for a worker of the database `uri`, which is nobody else's during the block.

    It is that of the file that ZASYNC_UUID names, else of a slot in `state_directory`.
    InstanceUUIDError if the file is damaged; IdentityTaken if another worker of this host has
    the file that is named.
    """
    named = next(filter(None, map(os.environ.get, instanceuuid.VARIABLES)), None)
    if named is not None:
        with _lock(Path(named)):
            yield instanceuuid.get()
        return
    try:
        path, lock = free_slot(state_directory(uri))
    except OSError as error:
        log.warning(
            "no UUID of a worker can be kept in %s (%s); this one works under a new UUID, so jobs"
            " that it leaves when it is killed wait until it is found dead.  Name a directory in"
            " %s, or a file in %s.",
            state_directory(uri),
            error.strerror,
            DIRECTORY,
            FILE,
        )
        yield InstanceUUID(int=clock.current().uuid4().int)
        return
    try:
        yield instanceuuid.get(str(path))
    finally:
        lock.close()


def _lock(path: Path) -> AbstractContextManager[Any]:
    """The lock on the uuid file `path`; IdentityTaken if another process has it."""
    try:
        return closing(Lock(f"{path}.lock"))
    except zc.lockfile.LockError:
        raise IdentityTaken(
            f"another worker runs under the UUID in {path}; give this one a file of its own"
            f" ({FILE}), or end the other"
        ) from None
    except OSError:
        # The file may lie where nothing can be written.  What the database knows of a twin
        # protects us then, as it does from one on another host.
        return nullcontext()


def state_directory(uri: str) -> Path:
    """The directory of the slots of the database `uri` on this host."""
    named = os.environ.get(DIRECTORY)
    if named:
        return Path(named)
    if is_file_storage(uri):
        uri = str(file_storage_path(uri).absolute())
    digest = hashlib.sha256(uri.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    # With the host's name, since a home directory may be shared by many hosts.
    return Path(click.get_app_dir("zasync")) / "workers" / socket.gethostname() / digest


@contextmanager
def state_in(directory: Path) -> Iterator[None]:
    """Keep the UUIDs of the workers of this process and its children in `directory`."""
    with _variable(DIRECTORY, directory):
        yield


@contextmanager
def _variable(name: str, path: Path) -> Iterator[None]:
    former = os.environ.get(name)
    os.environ[name] = str(path)
    try:
        yield
    finally:
        if former is None:
            del os.environ[name]
        else:
            os.environ[name] = former


def for_child(environment: MutableMapping[str, str], uri: str, number: int) -> None:
    """Let the `number`th child of this process, told by `environment`, have a UUID of its own."""
    for name in instanceuuid.VARIABLES:
        if environment.get(name):
            environment[name] += f".{number}"
            return
    # A child may be given another URI, of a server that serves the file.
    environment[DIRECTORY] = str(state_directory(uri).absolute())
