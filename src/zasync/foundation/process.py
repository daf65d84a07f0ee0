# SPDX-License-Identifier: ZPL-2.1
"""Whose process wrote this record, and can it still be running?

Lets a dispatcher that starts again under its UUID take over at once from a former self that is
surely dead.  Never a judgement on others: a doubt means "it may run", and then the pings decide.
Only Linux gives sure answers.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

_ROOT = Path("/")

# The number of the first namespace of every Linux kernel, the one outside of all containers.
_OUTERMOST_NAMESPACE = 0xEFFFFFFC


@dataclass(frozen=True)
class ProcessIdentity:
    """Names one run of one process, in plain values; None is what could not be found out."""

    host: str
    machine: str | None
    """A digest of what a copy of the machine's disk does not have: its network cards, its id."""
    boot_id: str | None
    """Random, from the kernel: one boot of one machine."""
    namespace: int | None
    """In which process ids are counted: the inode of /proc/self/ns/pid."""
    pid: int
    started: int | None
    """When the process was started, in clock ticks since the boot."""

    def to_state(self) -> dict[str, str | int | None]:
        """Answer a dict of plain values, for storing."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> ProcessIdentity:
        """Answer the identity of which `to_state` was stored.

        What is missing or not of its type counts as unknown: such a process is never surely gone.
        """

        def text(name: str) -> str | None:
            return value if isinstance(value := state.get(name), str) else None

        def number(name: str) -> int | None:
            return value if isinstance(value := state.get(name), int) else None

        return cls(
            host=text("host") or "",
            machine=text("machine"),
            boot_id=text("boot_id"),
            namespace=number("namespace"),
            pid=number("pid") or 0,
            started=number("started"),
        )


def this_process() -> ProcessIdentity:
    """Answer the identity of this process; asked anew each time, so it is right after a fork."""
    pid = os.getpid()
    # A /proc that counts otherwise than we do was mounted for another namespace: of no use.
    usable = _link("proc/self") == str(pid)
    return ProcessIdentity(
        host=socket.gethostname(),
        machine=_machine(),
        boot_id=_text("proc/sys/kernel/random/boot_id"),
        namespace=_number_in(_link("proc/self/ns/pid")) if usable else None,
        pid=pid,
        started=_started(pid) if usable else None,
    )


def certainly_gone(identity: ProcessIdentity, seen_from: ProcessIdentity | None = None) -> bool:
    """Whether it is sure that the process does not run any more; False in every doubt.

    It is sure after a restart of the machine, and within one boot and namespace when there is no
    such process or one that was started at another time.  `seen_from` is this process.
    """
    here = seen_from or this_process()
    if not identity.host or identity.host != here.host:
        return False
    if identity.boot_id is None or here.boot_id is None:
        return False
    if identity.namespace is None or here.namespace is None or identity.pid <= 0:
        return False
    if identity.boot_id != here.boot_id:
        return _same_machine(identity, here)
    if identity.namespace != here.namespace:
        return False
    started = here.started if identity.pid == here.pid else _started(identity.pid)
    if started is not None:
        return identity.started is not None and identity.started != started
    return identity.pid != here.pid and _absent(identity.pid)


def certainly_running(identity: ProcessIdentity) -> bool:
    """Whether it is sure that the process is another one than this and runs; else False."""
    here = this_process()
    return (
        identity.pid not in (0, here.pid)
        and identity.started is not None
        and None not in (here.boot_id, here.namespace)
        and (identity.host, identity.boot_id) == (here.host, here.boot_id)
        and identity.namespace == here.namespace
        and identity.started == _started(identity.pid)
        and not _is_zombie(identity.pid)  # nobody may ever fetch its exit code
    )


def end_forked_child(error: BaseException | None) -> NoReturn:
    """End this process, which was forked, at once: without what the parent wants done at its end.

    Its exit code is what `error`, if it is a SystemExit, says; 1 for any other.
    """
    code: object = 0 if error is None else 1
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        traceback.print_exception(error)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(int(code))  # type: ignore[call-overload]


def _same_machine(identity: ProcessIdentity, here: ProcessIdentity) -> bool:
    """Whether two boots were surely of one machine.

    Copies of an image share their host name, and a container may have the name of one that runs
    on another machine, and a boot id of its own; so it takes the network cards too, and
    processes outside of containers.
    """
    return (
        identity.machine is not None
        and identity.machine == here.machine
        and identity.namespace == here.namespace == _OUTERMOST_NAMESPACE
    )


def _machine() -> str | None:
    cards = sorted(filter(None, _card_addresses()))
    if not cards:
        return None
    known = [_text("etc/machine-id"), _text("sys/class/dmi/id/product_uuid"), *cards]
    return hashlib.sha256("\n".join(map(str, known)).encode()).hexdigest()[:32]


def _card_addresses() -> Iterator[str | None]:
    """Answer the addresses of network cards that are devices; others change with each boot."""
    for card in _ROOT.glob("sys/class/net/*/device"):
        yield _text(str(card.parent.relative_to(_ROOT) / "address"))


def _started(pid: int) -> int | None:
    """Answer when a process was started, or None if that cannot be seen."""
    stat = _text(f"proc/{pid}/stat") or ""
    # The second field is the name of the program, which may hold anything, also brackets.
    fields = stat.rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 and fields[19].isdecimal() else None


def _is_zombie(pid: int) -> bool:
    fields = (_text(f"proc/{pid}/stat") or "").rpartition(")")[2].split()
    return bool(fields) and fields[0] in "ZX"


def _absent(pid: int) -> bool:
    """Whether there is surely no process `pid`: /proc may hide those of other users."""
    if os.name != "posix":  # on Windows, os.kill ends the process whatever the signal
        return False
    try:
        os.kill(pid, 0)  # only asks
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _text(path: str) -> str | None:
    try:
        return (_ROOT / path).read_text(errors="replace").strip() or None
    except OSError:
        return None


def _link(path: str) -> str | None:
    try:
        return os.readlink(_ROOT / path)
    except OSError:
        return None


def _number_in(text: str | None) -> int | None:
    found = re.search(r"\d+", text or "")
    return int(found.group()) if found else None
