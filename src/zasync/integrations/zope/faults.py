# SPDX-License-Identifier: ZPL-2.1
"""What may be wrong with zope.conf, and with what a process that has one is to do."""

from __future__ import annotations

from zasync.storage import BadConfiguration


class SettingsError(BadConfiguration):
    """zope.conf says something about zasync that cannot be; the message names it."""
