# SPDX-License-Identifier: ZPL-2.1
"""Stored: calls, which are jobs that somebody asked for and wants to hear of.

A register remembers who asked for what, for the owner to look it up by a random id while it waits
or runs and for some time after.  This is the public address of the stored classes.  How a call is
told to a program, or over HTTP, is in `zasync.calls.description` and `zasync.calls.answer`.
"""

from zasync.calls.call import Call, CallOutcome, CallState, Progress
from zasync.calls.register import ANYBODY, Bucket, CallNotFound, Calls, Counts

__all__ = [
    "ANYBODY",
    "Bucket",
    "Call",
    "CallNotFound",
    "CallOutcome",
    "CallState",
    "Calls",
    "Counts",
    "Progress",
]

for _stored in (Bucket, Call, Calls):
    _stored.__module__ = __name__
