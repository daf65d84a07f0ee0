# SPDX-License-Identifier: ZPL-2.1
"""Databases in the states that tests of opening need: held by another process, or too new."""

from __future__ import annotations

import ZODB
from persistent.mapping import PersistentMapping

from zasync.interfaces import KEY

# For `other_process`: holds the FileStorage of its first argument until its input ends.
HOLD = """\
import sys
from ZODB.FileStorage import FileStorage
storage = FileStorage(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


class TomorrowsQueues(PersistentMapping):
    """What a zasync of schema 2 might put into the root."""

    schema = 2


def make_newer(db: ZODB.DB) -> None:
    """Commit queues of schema 2 into `db`."""
    with db.transaction() as connection:
        connection.root()[KEY] = TomorrowsQueues()
