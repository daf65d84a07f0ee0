# SPDX-License-Identifier: ZPL-2.1
"""Stored: a job of a Zope Toolkit application, which runs in the site, and for the principals, of
whoever made it.

Needs the extra `toolkit`, which `zope` includes.  `z3.zcml` beside this module has callables
become such jobs.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import zope.component
import zope.interface
from zope.authentication.interfaces import IAuthentication, PrincipalLookupError
from zope.component.hooks import getSite, setSite
from zope.security import management
from zope.security.interfaces import IParticipation
from zope.security.proxy import removeSecurityProxy

import zasync.job
from zasync.foundation.text import persistent_name
from zasync.interfaces import NEW, BadStatusError, ParkedError
from zasync.job import values


class PrincipalGone(ParkedError, LookupError):
    """Nobody knows the principal any more, for whom a job was to run; so nobody runs it instead.

    The job is parked.  It can be put back once there is such a principal again, or be discarded.
    """


@zope.interface.implementer(IParticipation)
class Participation:
    """A principal takes part in the interaction around a job."""

    interaction: Any = None

    def __init__(self, principal: Any) -> None:
        self.principal = principal


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What was there before a job was set up."""

    site: Any
    interaction: Any


class Job(zasync.job.Job):
    """A job that remembers the present site, and who takes part in the present interaction.

    Around each attempt the site is set, and there is an interaction with the same principals,
    looked up by their ids in the site's authentication utility as they are then.  If there was
    no interaction when the job was made, there is none when it runs.
    """

    _site: Any = None
    _participants: tuple[str, ...] | None = None

    def __init__(self, callable: Any, /, *args: Any, **kwargs: Any) -> None:
        super().__init__(callable, *args, **kwargs)
        self._site = removeSecurityProxy(getSite())
        interaction = management.queryInteraction()
        if interaction is not None:
            self._participants = tuple(
                removeSecurityProxy(each.principal).id for each in interaction.participations
            )

    @property
    def site(self) -> Any:
        """The site in which it runs, or None.  Can be set while the job is NEW."""
        return self._site

    @site.setter
    def site(self, site: Any) -> None:
        self._check_new("site")
        self._site = removeSecurityProxy(site)

    @property
    def participants(self) -> tuple[str, ...] | None:
        """The ids of the principals for whom it runs; None: there is no interaction.

        Can be set while the job is NEW, by trusted code.  An interaction without anybody is one
        that may do everything.
        """
        return self._participants

    @participants.setter
    def participants(self, ids: Any) -> None:
        self._check_new("participants")
        if isinstance(ids, str | bytes):
            raise TypeError(f"participants is a sequence of ids, not the single string {ids!r}")
        self._participants = None if ids is None else tuple(ids)

    def _check_new(self, what: str) -> None:
        if self.status != NEW:
            raise BadStatusError(f"{what} of {self!r} can be set while it is new only")

    def check_storable(self, connection: Any) -> None:
        super().check_storable(connection)
        if self._site is not None:
            values.check_storable(f"the site of {self.callable_name}", self._site, connection)

    # The run

    def setUp(self) -> Surroundings:
        """Set site and interaction up.  PrincipalGone, and the job is parked, if that cannot be."""
        before = Surroundings(getSite(), management.queryInteraction())
        try:
            setSite(self._site)
            management.endInteraction()
            if self._participants is not None:
                management.newInteraction(*map(self._participation, self._participants))
        except BaseException:
            self.tearDown(before)
            raise
        return before

    def tearDown(self, setup_info: Surroundings | None) -> None:
        """Have all be as it was before."""
        if setup_info is None:
            return
        management.endInteraction()
        if setup_info.interaction is not None:
            management.thread_local.interaction = setup_info.interaction
        setSite(setup_info.site)

    def _participation(self, principal_id: str) -> Participation:
        if principal_id == management.system_user.id:
            return Participation(management.system_user)
        return Participation(self._find_principal(principal_id))

    def _find_principal(self, principal_id: str) -> Any:
        site = self._site
        registry = zope.component.getGlobalSiteManager() if site is None else site.getSiteManager()
        where = "globally" if site is None else f"in the site {persistent_name(site)}"
        authentication = registry.queryUtility(IAuthentication)
        if authentication is None:
            raise PrincipalGone(
                f"principal {principal_id!r}, for whom {self!r} is to run, cannot be looked up:"
                f" there is no authentication utility {where}"
            )
        try:
            return authentication.getPrincipal(principal_id)
        except PrincipalLookupError:
            raise PrincipalGone(
                f"principal {principal_id!r}, for whom {self!r} is to run, is not known {where} any"
                " more"
            ) from None
