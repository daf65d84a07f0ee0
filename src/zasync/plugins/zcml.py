# SPDX-License-Identifier: ZPL-2.1
"""The ZCML directive `zasync:plugin`; `meta.zcml` beside this file defines it.

Of all of zasync, only this module imports zope.configuration.
"""

from __future__ import annotations

from typing import Any

from zope.configuration.exceptions import ConfigurationError
from zope.configuration.fields import Bool
from zope.interface import Interface
from zope.interface.interface import InterfaceClass
from zope.schema import TextLine

from zasync.plugins.config import plugin_from_config
from zasync.plugins.handlers import BadHandler
from zasync.plugins.registry import BadPlugin, register

# A class statement has no place for a name with a hyphen.
IPluginDirective = InterfaceClass(
    "IPluginDirective",
    (Interface,),
    {
        "__module__": __name__,
        "name": TextLine(title="The name under which the plugin is asked for"),
        "handler": TextLine(title="Dotted name of the function that does it"),
        "description": TextLine(title="What it does, in a line", required=False),
        "timeout": TextLine(title="How long it may take: 90, 90s, 5m, 4h", required=False),
        "retry": Bool(title="Whether to run it again after trouble", required=False),
        "zope-aware": Bool(title="Whether to run it in Zope, as a user", required=False),
    },
    __doc__="Register a plugin.",
)


def plugin(_context: Any, **options: Any) -> None:
    """The directive: check at once, where file and line are known, and register at the end."""
    try:
        made = plugin_from_config(options)
    except (BadHandler, BadPlugin) as error:
        raise ConfigurationError(str(error)) from error
    _context.action(discriminator=("zasync:plugin", made.name), callable=register, args=(made,))
