# SPDX-License-Identifier: ZPL-2.1
"""For the tests of applications: time that moves when it is told to, and bounded waits.

With the testing `Reactor` nothing happens by itself: `reactor.wait_for(job)`, or any of the
`wait_for_...` functions, moves time until a job has ended.  The `wait_for_...` functions and
`get_poll` work with real reactors, too.  `zasync.ftesting` puts a whole set-up together.
"""

from zasync.testing.logs import print_logs
from zasync.testing.reactor import Reactor
from zasync.testing.virtual_clock import VirtualClock, set_now, setUpDatetime, tearDownDatetime
from zasync.testing.waits import (
    get_poll,
    tear_down_dispatcher,
    wait_for_annotation,
    wait_for_deactivation,
    wait_for_death,
    wait_for_result,
    wait_for_start,
)

__all__ = [
    "Reactor",
    "VirtualClock",
    "get_poll",
    "print_logs",
    "setUpDatetime",
    "set_now",
    "tearDownDatetime",
    "tear_down_dispatcher",
    "wait_for_annotation",
    "wait_for_deactivation",
    "wait_for_death",
    "wait_for_result",
    "wait_for_start",
]
