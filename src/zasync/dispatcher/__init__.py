# SPDX-License-Identifier: ZPL-2.1
"""Running: the dispatcher of a process."""

from zasync.dispatcher.dispatcher import Dispatcher
from zasync.dispatcher.history import PollInfo
from zasync.dispatcher.registry import clear, get, pop

__all__ = ["Dispatcher", "PollInfo", "clear", "get", "pop"]
