# SPDX-License-Identifier: ZPL-2.1
"""What the shipped plugins may fail with, beside what the network and the storage raise."""

from __future__ import annotations

from zasync.interfaces import ZasyncError


class ExtraMissing(ZasyncError, ImportError):
    """The worker lacks a package that a plugin needs; the message says how to install it."""


class FetchError(ZasyncError):
    """A download could not be done: the server cannot be reached, breaks off, redirects badly."""


class HttpStatusError(FetchError):
    """The server answered, and not with what was asked for: `status` is its answer."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class TooLarge(FetchError):
    """What is to be downloaded is larger than the limit."""


class NoBlobs(ZasyncError):
    """The storage of the database keeps no blobs, so nothing large can be put there."""


class DirectoryError(ZasyncError):
    """The LDAP server cannot be reached, or refuses.

    `code` is what LDAP calls its answer (such as 'invalidCredentials', 'noSuchObject',
    'sizeLimitExceeded'), or 'unreachable', 'certificate', 'startTLS' or 'connection'.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class SessionLost(ZasyncError, ConnectionError):
    """The connection of a session was lost, and could not be made again in the time allowed."""
