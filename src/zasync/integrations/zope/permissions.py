# SPDX-License-Identifier: ZPL-2.1
"""The permissions of the asynchronous call manager, by the names that the Security tab shows.

`pages.zcml` declares them with the roles that have them by default.
"""

MAKE_SESSION_CALLS = "Make asynchronous session calls"
"""Ask for something for oneself, and see what became of it.  Default: Authenticated, Manager."""

MAKE_APPLICATION_CALLS = "Make asynchronous application calls"
"""Have the application ask for something that belongs to no visitor.  Default: Manager."""

MANAGE_CALLS = "Manage asynchronous calls"
"""See all calls and tracebacks, cancel and retry, change settings.  Default: Manager."""

ADD_CALL_MANAGERS = "Add Asynchronous Call Managers"
"""Make a call manager in a folder.  Default: Manager."""
