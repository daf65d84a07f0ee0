# SPDX-License-Identifier: ZPL-2.1
"""What the running code can ask about the job that it is: kept per thread and per coroutine.

`zasync.local` is the public face of this module.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What surrounds a running job."""

    get_job: Callable[[], Any]
    dispatcher: Any = None
    agent_name: str | None = None
    timeout: float | None = None  # seconds that a coroutine may take
    token: int | None = None  # names the run
    host: Any = None  # zasync.job.performance.Host: what runs the job


surroundings: ContextVar[Surroundings | None] = ContextVar("surroundings", default=None)


def current() -> Surroundings:
    """The surroundings of the running job.  RuntimeError outside of any job."""
    found = surroundings.get()
    if found is None:
        raise RuntimeError("no job is running in this thread; zasync.local works inside a job only")
    return found
