# SPDX-License-Identifier: ZPL-2.1
"""The logs of zasync, for a look at what goes on in a test."""

from __future__ import annotations

import logging
import sys
from typing import Any


def print_logs(log_file: Any = None, log_level: int = logging.CRITICAL) -> logging.Handler:
    """Write what zasync logs at `log_level` or above to `log_file` (None: standard output).

    Answers the handler; `logging.getLogger('zasync').removeHandler(handler)` ends it.
    """
    handler = logging.StreamHandler(sys.stdout if log_file is None else log_file)
    handler.setLevel(log_level)
    logger = logging.getLogger("zasync")
    if logger.getEffectiveLevel() > log_level:
        logger.setLevel(log_level)
    logger.addHandler(handler)
    return handler
