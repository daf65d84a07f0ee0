# SPDX-License-Identifier: ZPL-2.1
"""Stored: what users have asked for in one Plone site.

It lies among the annotations of the site, so it goes with the site, and a site sees only its own.
The jobs themselves lie in the queue, which all sites share.
"""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

from Acquisition import aq_chain, aq_inner
from BTrees.OOBTree import OOBTree
from persistent import Persistent
from plone.base.interfaces import IPloneSiteRoot
from zope.annotation.interfaces import IAnnotations
from zope.component.hooks import getSite

from zasync.calls import CallNotFound, Calls
from zasync.integrations.zope.settings import find_settings
from zasync.interfaces import ZasyncError

KEY = "zasync.integrations.plone"
SWEPT_AT_ONCE = 100  # works of calls that are gone


class NotInstalled(ZasyncError, LookupError):
    """The site has no register of jobs.

    Install zasync in the site: the add-ons control panel, or the profile
    `zasync.integrations.plone:default`.
    """


class SiteJobs(Persistent):
    """The calls of one site, and of those that work on many things what came of each.

    `works` is keyed by the id of the call.  A work lies here, and not with the job, so that it is
    in the database of the content and changes in one commit with it.
    """

    def __init__(self, retention: timedelta) -> None:
        self.calls = Calls(retention=retention)
        self.works = OOBTree()

    def keep_work(self, call: Any, work: Any) -> None:
        """Keep `work` as long as `call`, and forget those of calls that have rotated out.

        The ids of calls begin with the time, so the first that is still there ends the search.
        """
        for call_id in list(itertools.islice(self.works, SWEPT_AT_ONCE)):
            if self._is_known(call_id):
                break
            del self.works[call_id]
        self.works[call.id] = work

    def _is_known(self, call_id: str) -> bool:
        try:
            self.calls.get(call_id)
        except CallNotFound:
            return False
        return True

    def discard(self, call: Any) -> None:
        """Forget `call` and its work.  BadStatusError if it has not ended, CallNotFound."""
        self.calls.discard(call)
        self.works.pop(call.id, None)


def portal() -> Any:
    """The Plone site that is being worked in.  NotInstalled if there is none."""
    for each in aq_chain(aq_inner(getSite())):
        if IPloneSiteRoot.providedBy(each):
            return each
    raise NotInstalled("no Plone site is being worked in")


def find_jobs(site: Any) -> SiteJobs | None:
    """The register of `site`, or None."""
    jobs: SiteJobs | None = IAnnotations(site).get(KEY)
    return jobs


def jobs_of(site: Any) -> SiteJobs:
    """The register of `site`; NotInstalled if it has none."""
    jobs = find_jobs(site)
    if jobs is None:
        raise NotInstalled(
            f"zasync is not installed in the site {'/'.join(site.getPhysicalPath())}; the add-ons"
            " control panel does that"
        )
    return jobs


def install(site: Any) -> None:
    """Give `site` a register, unless it has one.  Does not commit.

    It keeps calls for as long as zope.conf says, until the control panel says otherwise.
    """
    if find_jobs(site) is None:
        IAnnotations(site)[KEY] = SiteJobs(find_settings().retention)


def uninstall(site: Any) -> None:
    """Cancel what has not ended in `site`, and forget all.  Does not commit."""
    jobs = find_jobs(site)
    if jobs is None:
        return
    for call in jobs.calls:
        call.cancel()
    del IAnnotations(site)[KEY]
