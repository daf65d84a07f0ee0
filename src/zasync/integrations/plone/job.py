# SPDX-License-Identifier: ZPL-2.1
"""Stored: a job of Plone: what `ZopeJob` does, and what Plone does when a request enters a site."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from Products.CMFCore.indexing import processQueue
from zope.component.hooks import getSite
from zope.event import notify
from zope.globalrequest import getRequest
from zope.traversing.interfaces import BeforeTraverseEvent

from zasync.integrations.zope.job import ZopeJob


class PloneJob(ZopeJob):
    """A job that runs as the user who made it, in the same Plone site and language.

    The request has the browser layers and the skin of the site.  What the job has changed is in
    the catalog when it commits; what must be found there before calls `index_now`.
    """

    def setUp(self) -> ExitStack:
        """Become the user, and enter the site as a request would."""
        stack: ExitStack = super().setUp()
        try:
            _enter(getSite(), getRequest())
        except BaseException:
            stack.close()
            raise
        return stack


def _enter(site: Any, request: Any) -> None:
    """What the publisher would have the site do with the request: layers, skin, language."""
    if site is None:
        return
    language = request.get("LANGUAGE")
    notify(BeforeTraverseEvent(site, request))
    if hasattr(site, "setupCurrentSkin"):
        site.setupCurrentSkin(request)
    if language:  # the site has chosen one anew, without the cookies and so on of who asked
        request["LANGUAGE"] = language
        binding = request.get("LANGUAGE_TOOL")
        if binding is not None:
            binding.LANGUAGE = language


def index_now() -> None:
    """Bring the catalog up to date with what the running job has changed so far.

    At the commit that happens by itself: this is for what looks into the catalog before.
    """
    processQueue()


PloneJob.__module__ = "zasync.integrations.plone.job"
