# SPDX-License-Identifier: ZPL-2.1
"""The plugin `ldap_search`: entries of an LDAP server, plain or over TLS.

It is a coroutine, whose thread for the network has neither a transaction nor a connection to the
database.  The server is one of the worker's directories, by name, so no address and no secret is
in the job.  What speaks LDAP is in `zasync.plugins.ldap3`, which needs the extra `ldap`.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import re
import threading
from collections.abc import Sequence
from typing import Any

from zasync.foundation.text import safe_repr
from zasync.interfaces import TimeoutError
from zasync.plugins import directories, filters
from zasync.plugins.errors import ExtraMissing
from zasync.plugins.registry import Plugin

SCOPES = ("base", "one", "subtree")
MOST_ATTRIBUTES = 200
LARGEST_RESULT = 16 * 2**20  # bytes of values

_ATTRIBUTE = re.compile(r"[A-Za-z0-9][\w.;-]*|\*|\+|1\.1", re.ASCII)


async def ldap_search(
    directory: str,
    filter: str,
    *,
    base: str | None = None,
    scope: str = "subtree",
    attributes: Sequence[str] = ("*",),
    size_limit: int | None = None,
    time_limit: float | None = None,
    truncate: bool = False,
) -> list[dict[str, Any]]:
    """Search the worker's `directory` for the entries that match `filter`.

    Answers a list of {'dn': text, 'attributes': {name: [value, ...]}}; a value is text, or bytes
    if it is none.  `base` is an entry of the directory's own base, which it is by default.
    `scope` is base, one or subtree.  More than `size_limit` entries are an error, unless
    `truncate` is said; limits cannot be larger than those of the directory.

    UnknownDirectory, CredentialError, DirectoryError (with a `code`), TimeoutError, ExtraMissing.
    """
    options: dict[str, Any] = {
        "base": base,
        "scope": scope,
        "attributes": attributes,
        "truncate": truncate,
    }
    check(directory, filter, size_limit=size_limit, time_limit=time_limit, **options)
    known = directories.find(directory)
    seconds = min(known.time_limit, time_limit or known.time_limit)
    search = _client()(
        known,
        known.bind_with(),
        filter=filter,
        size_limit=min(known.size_limit, size_limit or known.size_limit),
        seconds=seconds,
        **options,
    )
    try:
        async with asyncio.timeout(seconds) as limit:
            entries: list[dict[str, Any]] = await in_thread(search)
            return entries
    except builtins.TimeoutError:
        if not limit.expired():
            raise
        raise TimeoutError(
            f"the search in the directory {directory!r} took longer than {seconds:g} s"
        ) from None


async def in_thread(search: Any) -> Any:
    """What `search()` answers, which is called in a thread that nobody waits for at the end.

    Where this is cancelled, `search.abort()` has the thread end soon.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(answer: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(answer)
        else:
            future.set_exception(error)

    def work() -> None:
        answer, error = None, None
        try:
            answer = search()
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, answer, error)

    threading.Thread(target=work, name="zasync ldap_search", daemon=True).start()
    try:
        return await future
    except asyncio.CancelledError:
        search.abort()
        raise


def _client() -> Any:
    try:
        from zasync.plugins.ldap3 import Search
    except ImportError as error:
        raise ExtraMissing(
            f"ldap_search needs a package that this worker lacks ({error}):"
            " install 'zasync[ldap]' there"
        ) from None
    return Search


def check(
    directory: str,
    filter: str,
    *,
    base: str | None = None,
    scope: str = "subtree",
    attributes: Sequence[str] = ("*",),
    size_limit: int | None = None,
    time_limit: float | None = None,
    truncate: bool = False,
) -> None:
    """What is wrong with the arguments is said where the job is made: ValueError, TypeError.

    Only a worker knows its directories.
    """
    if not isinstance(directory, str) or not directory:
        raise TypeError(f"a directory is named, as the worker knows it, not {safe_repr(directory)}")
    filters.check(filter)
    if base is not None and (not isinstance(base, str) or len(base) > filters.LONGEST):
        raise TypeError(f"base is the DN of an entry, not {safe_repr(base)}")
    if scope not in SCOPES:
        raise ValueError(f"scope is one of {', '.join(SCOPES)}, not {safe_repr(scope)}")
    if isinstance(attributes, str) or not isinstance(attributes, Sequence):
        raise TypeError(f"attributes are a sequence of names, not {safe_repr(attributes)}")
    if not attributes or len(attributes) > MOST_ATTRIBUTES:
        raise ValueError(f"attributes are 1 to {MOST_ATTRIBUTES} names, not {len(attributes)}")
    for name in attributes:
        if not isinstance(name, str) or not _ATTRIBUTE.fullmatch(name):
            raise ValueError(f"{safe_repr(name)} is no name of an attribute")
    for limit, value in (("size_limit", size_limit), ("time_limit", time_limit)):
        whole = limit == "size_limit"
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            raise TypeError(f"{limit} is a number, not {safe_repr(value)}")
        if not value > 0:
            raise ValueError(f"{limit} is more than 0, not {value!r}")


PLUGIN = Plugin("ldap_search", ldap_search, "Search an LDAP server of the worker's", check=check)
