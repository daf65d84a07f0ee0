# SPDX-License-Identifier: ZPL-2.1
"""The UUID by which this instance is known from one start to the next, kept in a file.

`UUID` is read, and the file made if there is none, when the name is first used: importing this
module does neither.  The file is named by the environment variable ZASYNC_UUID, else by
ZC_ASYNC_UUID; else it is `uuid.txt` in the working directory.  It is never overwritten.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tempfile
import threading
import uuid
from typing import TYPE_CHECKING, Any

import zope.interface

from zasync.foundation.text import printable
from zasync.interfaces import IUUID, ZasyncError

if TYPE_CHECKING:
    UUID: InstanceUUID
    """The UUID of this instance; InstanceUUIDError if its file is damaged or cannot be made."""

VARIABLES = ("ZASYNC_UUID", "ZC_ASYNC_UUID")
DEFAULT_NAME = "uuid.txt"

_FORM = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_ENOUGH = 1024  # bytes of the file, for its first line

_TEXT = """\
{uuid}

The first line of this file is the name of one instance of zasync.  Its dispatcher finds its own
jobs by it after a restart, so keep the file for as long as the instance is in use.

Each instance needs a file of its own.  If you copy an instance, delete the copy of this file:
a new one is made at the next start.  Of two dispatchers that run with the same name, one will
refuse to work.

The environment variable ZASYNC_UUID says where this file is; without it, it is {default} in
the working directory.
"""


class InstanceUUIDError(ZasyncError, OSError, ValueError):
    """The file with the UUID of this instance is damaged, or can be neither read nor made.

    The message names the file, what is wrong and what to do about it.
    """


@zope.interface.implementer(IUUID)
class InstanceUUID(uuid.UUID):
    """The UUID of an instance.  Equal to the plain `uuid.UUID`, and pickled as such."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return uuid.UUID, (str(self),)


def __getattr__(name: str) -> Any:
    if name == "UUID":
        return get()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def get(name: str | None = None) -> InstanceUUID:
    """Answer the UUID of this instance, making its file if there is none; or that of file `name`.

    The answer for a file name stays the same for the life of the process, whatever becomes of the
    file and of the working directory.  InstanceUUIDError if the file is damaged or cannot be made.
    """
    name = name or _file_name()
    with _lock:
        if name not in _known:
            _known[name] = _read(name) or _made(name)
        return _known[name]


def reset() -> None:
    """Forget what was read, so that the next use reads again.  For tests."""
    with _lock:
        _known.clear()


_lock = threading.Lock()
_known: dict[str, InstanceUUID] = {}


def _file_name() -> str:
    for variable in VARIABLES:
        if name := os.environ.get(variable):
            return name
    return DEFAULT_NAME


def _read(name: str) -> InstanceUUID | None:
    """Answer the UUID in the file, or None if there is no file."""
    try:
        content = _content(name)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _error(name, f"cannot be read ({error.strerror})", "let this process read") from error
    first_line = content.partition(b"\n")[0].decode("ascii", "replace").strip()
    if not first_line:
        raise _error(name, "is empty", _REPAIR)
    if not _FORM.fullmatch(first_line):
        raise _error(name, f"does not begin with a UUID but with {first_line[:40]!a}", _REPAIR)
    value = InstanceUUID(first_line)
    if not value.int:
        raise _error(name, "holds the UUID that is all zeros, which is no name", _REPAIR)
    return value


_REPAIR = (
    "put the UUID of this instance back into its first line, or, if this is a new instance, delete"
)


def _content(name: str) -> bytes:
    # Not blocking, or a pipe of that name would make us wait for ever.
    descriptor = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return os.read(descriptor, _ENOUGH)
    finally:
        os.close(descriptor)


def _made(name: str) -> InstanceUUID:
    """Make the file, or answer what another process has put there meanwhile."""
    value = InstanceUUID(int=uuid.uuid4().int)
    try:
        _write(name, _TEXT.format(uuid=value, default=DEFAULT_NAME).encode("ascii"))
    except FileExistsError:
        theirs = _read(name)
        if theirs is None:
            raise _error(name, "is a symbolic link that leads nowhere", "delete") from None
        return theirs
    except OSError as error:
        reason = f"is missing and cannot be made ({error.strerror})"
        raise _error(name, reason, "make its directory and let this process write") from error
    return value


def _write(name: str, content: bytes) -> None:
    """Make the file with all of its content at once; FileExistsError if there is one."""
    directory, base = os.path.split(os.path.abspath(name))
    # Made anew under a name that nobody can guess, without following symbolic links.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{base}.", suffix=".tmp", dir=directory)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.chmod(temporary, 0o644)
        _publish(temporary, name, content)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    with contextlib.suppress(OSError):  # not every system can; the file itself is safe
        _sync_directory(directory)


def _publish(temporary: str, name: str, content: bytes) -> None:
    """Give the finished file its name; unlike renaming, this never replaces another."""
    try:
        os.link(temporary, name)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: not at once, but exclusively all the same
        with open(name, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def _sync_directory(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _error(name: str, what: str, cure: str) -> InstanceUUIDError:
    path = printable(os.path.abspath(name), one_line=True)
    return InstanceUUIDError(
        f"The file with the UUID of this instance, {path}, {what}.  To go on, {cure} it; or name"
        f" another file in the environment variable {VARIABLES[0]}."
    )
