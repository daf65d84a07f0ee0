# SPDX-License-Identifier: ZPL-2.1
"""The browser layer: pages and services are there in sites only in which zasync is installed."""

from zope.publisher.interfaces.browser import IDefaultBrowserLayer


class IZasyncLayer(IDefaultBrowserLayer):
    """A request in a site in which zasync is installed."""
