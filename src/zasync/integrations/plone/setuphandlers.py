# SPDX-License-Identifier: ZPL-2.1
"""What the profiles do beyond their XML files, and which of them people are offered."""

from __future__ import annotations

from typing import Any

import zope.interface
from plone.base.interfaces import INonInstallable
from zope.component.hooks import getSite

from zasync.integrations.plone import register


def install(tool: Any) -> None:
    """The site gets its register."""
    register.install(getSite())


def uninstall(tool: Any) -> None:
    """What runs is cancelled, and the register goes."""
    register.uninstall(getSite())


@zope.interface.implementer(INonInstallable)
class HiddenProfiles:
    """Profiles that nobody chooses in a list: the one that is run by 'Uninstall'."""

    def getNonInstallableProfiles(self) -> list[str]:
        """Their ids."""
        return ["zasync.integrations.plone:uninstall"]
