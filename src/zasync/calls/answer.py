# SPDX-License-Identifier: ZPL-2.1
"""What to answer, over HTTP, to somebody who asks how his call is: one place for all frameworks.

202 with the address to ask again while it waits or runs, 200 with the result, or with what it
failed of, when it is resolved.  One that is unknown, over, or somebody else's is a `CallNotFound`
from the register: a 404.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from zasync.calls.call import Call, CallState
from zasync.calls.description import describe


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer to be given by any framework; `body` can be shown as JSON."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any]


def answer(call: Call, *, url: str) -> Answer:
    """How `call` is, for its owner, who asks (again) at `url`.

    The same serves as the answer to the request that has put it.
    """
    headers = {"Cache-Control": "no-store"}
    body = describe(call, url=url)
    if call.state is CallState.RESOLVED:
        return Answer(200, headers, body)
    seconds = math.ceil(call.register.poll_interval.total_seconds())
    return Answer(202, {**headers, "Location": url, "Retry-After": str(seconds)}, body)
