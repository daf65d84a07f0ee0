# SPDX-License-Identifier: ZPL-2.1
from tests.support.queues import db, heard, open_view, view

__all__ = ["db", "heard", "open_view", "view"]
