# SPDX-License-Identifier: ZPL-2.1
"""No plugin of one test is known to the next, and nothing that was allowed or configured."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from zasync.plugins import addresses, credentials, registry


@pytest.fixture(autouse=True)
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registry", registry._Registry())


@pytest.fixture
def loopback() -> Iterator[None]:
    """Jobs may connect to servers of the test; it may provide credentials."""
    addresses.allow_networks("127.0.0.0/8", "::1")
    yield
    addresses.forbid_all()
    credentials.forget()
