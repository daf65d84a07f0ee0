# SPDX-License-Identifier: ZPL-2.1
"""Callables that are registered under a name, so that they can be asked for by it.

`job_for(name, *args)` makes a job of one; what is not registered is refused there, in the
caller's process.  The registry is in `zasync.plugins.registry`; the shipped plugins are in the
modules named after them: `schedule`, `aggregate`, `http_fetch`, `ldap_search`; `session` holds
long-lived connections.
"""

from zasync.plugins.config import register_from_config
from zasync.plugins.fetched import Fetched
from zasync.plugins.handlers import BadHandler, importable
from zasync.plugins.registry import (
    BadPlugin,
    Plugin,
    UnknownPlugin,
    blank_job,
    get,
    job_for,
    names,
    plugin,
    provide_zope_jobs,
    register,
    unregister,
)

__all__ = [
    "BadHandler",
    "BadPlugin",
    "Fetched",
    "Plugin",
    "UnknownPlugin",
    "blank_job",
    "get",
    "importable",
    "job_for",
    "names",
    "plugin",
    "provide_zope_jobs",
    "register",
    "register_from_config",
    "unregister",
]
