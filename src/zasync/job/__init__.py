# SPDX-License-Identifier: ZPL-2.1
"""Stored: jobs, their callbacks and retry policies, and how one is run.

This is the public address of the stored classes, whatever file they lie in.
"""

from zasync.job.callbacks import CallbackProxy, Extras, pass_on
from zasync.job.composition import Conclusion, Group, parallel, serial
from zasync.job.job import Job
from zasync.job.marker import Fence, Marker, Markers, Slot
from zasync.job.retry import NeverRetry, RetryCommonForever, RetryCommonFourTimes
from zasync.job.run import Landing
from zasync.job.values import Box, Payload

__all__ = [
    "Box",
    "CallbackProxy",
    "Conclusion",
    "Extras",
    "Fence",
    "Group",
    "Job",
    "Landing",
    "Marker",
    "Markers",
    "NeverRetry",
    "Payload",
    "RetryCommonForever",
    "RetryCommonFourTimes",
    "Slot",
    "parallel",
    "pass_on",
    "serial",
]

for _stored in (NeverRetry, RetryCommonForever, RetryCommonFourTimes, Box, Payload):
    _stored.__module__ = __name__
