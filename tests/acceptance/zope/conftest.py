# SPDX-License-Identifier: ZPL-2.1
"""One running Zope for each module of tests: to start one takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.zope_site import Site, add_manager, running_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A Zope with a call manager, users alice and bob, and no worker."""
    with running_site(tmp_path_factory.mktemp("zope")) as running:
        add_manager(running)
        yield running
