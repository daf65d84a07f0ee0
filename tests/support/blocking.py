# SPDX-License-Identifier: ZPL-2.1
"""A storage in memory whose calls do not return while it is blocked, as behind a dead network."""

from __future__ import annotations

import threading
from typing import Any

from ZODB.DemoStorage import DemoStorage


class BlockingStorage(DemoStorage):  # type: ignore[misc]
    """While blocked, it lets nobody read (`reads`) or commit but the main thread."""

    def __init__(self) -> None:
        super().__init__()
        self._open = threading.Event()
        self._open.set()
        self._reads = False
        self.waiting = 0  # calls that do not return

    def block(self, *, reads: bool = False) -> None:
        self._reads = reads
        self._open.clear()

    def unblock(self) -> None:
        self._open.set()

    def _pass(self) -> None:
        if threading.current_thread() is threading.main_thread() or self._open.is_set():
            return
        self.waiting += 1
        self._open.wait(60)
        self.waiting -= 1

    def loadBefore(self, oid: bytes, tid: bytes) -> Any:
        if self._reads:
            self._pass()
        return super().loadBefore(oid, tid)

    def tpc_begin(self, *args: Any, **options: Any) -> Any:
        self._pass()  # before it would hold the lock
        return super().tpc_begin(*args, **options)
