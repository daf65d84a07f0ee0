# SPDX-License-Identifier: ZPL-2.1
"""The same tests on every storage that zasync promises to work on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance import work
from tests.conformance.places import PLACES, Place, place
from tests.support.running import Site


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have a test run on each storage that can do what its marks `where` say."""
    if "storage" in metafunc.fixturenames:
        wanted = {word for mark in metafunc.definition.iter_markers("where") for word in mark.args}
        able = {name: kind for name, kind in PLACES.items() if wanted <= kind.can}
        assert able, f"no storage can do all of {wanted}"
        params = [pytest.param(name, id=name, marks=kind.marks) for name, kind in able.items()]
        metafunc.parametrize("storage", params, indirect=True)


@pytest.fixture
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A new, empty storage, of each kind in turn."""
    work.reset()
    with place(request.param, tmp_path, request) as made:
        yield made
        work.reset()


@pytest.fixture
def client(storage: Place) -> Iterator[Site]:
    """An application that puts jobs, with its accounts."""
    site = Site(storage.open())
    site.commit(lambda: work.open_accounts(site.root))
    yield site
    site.close()
