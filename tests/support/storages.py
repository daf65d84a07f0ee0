# SPDX-License-Identifier: ZPL-2.1
"""Fixtures for servers that are dear to make: one PostgreSQL for a whole session.

With pytest-xdist each worker has its own, made when the first test asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.postgres import NoPostgres, PostgresServer


@pytest.fixture(scope="session")
def postgres_session() -> Iterator[PostgresServer]:
    """The server of the session, as the tests before have left it; see `postgres_server`."""
    try:
        server = PostgresServer()
    except NoPostgres as reason:
        pytest.skip(f"needs PostgreSQL: {reason}")
    with server:
        yield server


@pytest.fixture
def postgres_server(postgres_session: PostgresServer) -> PostgresServer:
    """A running PostgreSQL server; make a database in it."""
    postgres_session.start()
    return postgres_session
