# SPDX-License-Identifier: ZPL-2.1
"""The stock of ids for new objects that a ZEO client keeps, and when it must be thrown away."""

from __future__ import annotations

from typing import Any


def forget_when_disconnected(storage: Any) -> None:
    """Have a ZEO client fetch new ids for objects once its server has gone away.

    It keeps a hundred in stock.  A server that was killed does not know which ones it has given
    away, and gives them to others: two clients then make different objects under one id, and one
    of their commits fails with an error that nobody understands.  Other storages are left alone.
    May be called again.
    """
    stock, notify = getattr(storage, "_oids", None), getattr(storage, "notify_disconnected", None)
    if not isinstance(stock, list) or notify is None or hasattr(notify, "forgets_oids"):
        return

    def disconnected() -> None:
        stock.clear()
        notify()

    disconnected.forgets_oids = True  # type: ignore[attr-defined]
    storage.notify_disconnected = disconnected
