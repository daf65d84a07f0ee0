# SPDX-License-Identifier: ZPL-2.1
"""What pages are registered for."""

from zope.interface import Attribute, Interface


class IAsynchronousCallManager(Interface):
    """Takes calls, and tells those who made them what became of them."""

    poll_interval = Attribute("How long to wait between two looks at a call: a timedelta.")
    rotation_period = Attribute("How long calls that have ended are kept: a timedelta.")
    offered = Attribute("Names of the plugins that users may ask for in the form.")

    def putCall(what, /, *args, **kw):  # type: ignore[no-untyped-def]
        """Have something done for the application."""

    def putSessionCall(what, /, *args, **kw):  # type: ignore[no-untyped-def]
        """Have something done for the user, or browser, that asks."""

    def getCall(call_id):  # type: ignore[no-untyped-def]
        """One's own call of that id."""
