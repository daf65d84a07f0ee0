# SPDX-License-Identifier: ZPL-2.1
"""What `config.include("zasync.integrations.pyramid")` does to an application.

The queues and the register of calls are made when the application is: by then the databases of
pyramid_zodbconn are known, in whatever order things were included.
"""

from __future__ import annotations

from typing import Any

from pyramid.events import ApplicationCreated
from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import IRequestExtensions

from zasync import configure, subscribers
from zasync.calls import Calls
from zasync.foundation.attempts import OwnManager, committed, end
from zasync.integrations.pyramid import asking, views
from zasync.integrations.pyramid.settings import Settings, read
from zasync.interfaces import DatabaseOpened
from zasync.storage import check_schema


def includeme(config: Any) -> None:
    """Give requests the queue and the calls, add the view of a call, make what is missing.

    ConfigurationError tells of a setting that is unknown or wrong, and of what else is missing.
    """
    settings = read(config.registry.settings)
    config.registry.zasync_settings = settings
    configure.minimal()
    config.add_request_method(asking.queue_of, "zasync_queue", reify=True)
    config.add_request_method(asking.queues_of, "zasync_queues", reify=True)
    config.add_request_method(asking.calls_of, "zasync_calls", reify=True)
    if settings.calls_path is not None:
        config.add_route(views.ROUTE, settings.calls_path)
        config.add_view(views.show_call, route_name=views.ROUTE, request_method="GET")
        config.add_view(views.cancel_call, route_name=views.ROUTE, request_method="DELETE")
    config.add_subscriber(_created, ApplicationCreated)


def _created(event: Any) -> None:
    registry = event.app.registry
    settings: Settings = registry.zasync_settings
    database = primary_database(registry)
    _check_transactions(registry)
    if settings.database is not None and settings.database not in database.databases:
        raise ConfigurationError(
            f"the setting zasync.database names {settings.database!r}, and there is no"
            f" zodbconn.uri.{settings.database}"
        )
    check_schema(database)
    installer = subscribers.QueueInstaller(settings.all_queues, db_name=settings.database)
    installer(DatabaseOpened(database))
    _install_calls(database, settings)


def primary_database(registry: Any) -> Any:
    """The database of `zodbconn.uri`.  ConfigurationError if there is none."""
    databases = getattr(registry, "_zodb_databases", None)
    if databases is None:
        raise ConfigurationError(
            'zasync needs pyramid_zodbconn: config.include("pyramid_zodbconn"), and the setting'
            " zodbconn.uri"
        )
    if "" not in databases:
        raise ConfigurationError("zasync needs the setting zodbconn.uri of pyramid_zodbconn")
    return databases[""]


def _check_transactions(registry: Any) -> None:
    extensions = registry.queryUtility(IRequestExtensions)
    if extensions is None or "tm" not in extensions.descriptors:
        raise ConfigurationError(
            'zasync needs pyramid_tm: config.include("pyramid_tm"); without it nothing that a'
            " request puts would be committed"
        )


def _install_calls(database: Any, settings: Settings) -> None:
    """Make the register, or set what the settings say of the one that is there; commits."""
    manager = OwnManager()
    connection = database.open(transaction_manager=manager)
    try:
        committed(_make_calls, connection, settings, transaction_manager=manager)
    finally:
        end(manager)
        connection.close()


def _make_calls(connection: Any, settings: Settings) -> None:
    root = asking.home_of(connection).root()
    calls = root.get(asking.CALLS_KEY)
    if calls is None:
        calls = root[asking.CALLS_KEY] = Calls()
    queue = settings.queue if settings.calls_queue is None else settings.calls_queue
    wanted = {
        "queue": queue,
        "retention": settings.calls_retention,
        "poll_interval": Calls(poll_interval=settings.calls_poll_interval).poll_interval,
    }
    for name, value in wanted.items():
        if getattr(calls, name) != value:  # else each start of a process would be a commit
            setattr(calls, name, value)
