# SPDX-License-Identifier: ZPL-2.1
"""One Plone for all tests of a session, since it takes long to start, and what each finds in it.

Where Plone is not installed there are no tests here.  Run them by `make test-plone`, which leaves
out the conftest.py of the other tests: that forgets all registrations after each test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest

collect_ignore_glob = [] if find_spec("Products.CMFPlone") else ["test_*.py"]

if find_spec("Products.CMFPlone"):
    from tests.plone.plone_instance import PloneInstance, add_documents, plone_instance, site_here


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--two-databases", action="store_true", help="The queue has its own database.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Plone takes its time, above all where much else is going on."""
    for item in items:
        item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def plone(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[PloneInstance]:
    """The instance, whose web process serves."""
    two = pytestconfig.getoption("--two-databases")
    with plone_instance(tmp_path_factory.mktemp("plone"), two_databases=two) as instance:
        instance.start_web()
        yield instance


@pytest.fixture(scope="session")
def worker(plone: PloneInstance) -> Any:
    """A worker process of its own, which works the queue."""
    process = plone.start_worker()

    def works() -> bool:
        assert process.poll() is None, plone.logs()
        with site_here() as site:
            return any(record.activated for record in queue_of(site).dispatchers.values())

    plone.wait_until(works, "the worker works")
    return process


@pytest.fixture
def no_places(plone: PloneInstance, worker: Any) -> Iterator[None]:
    """The worker begins no jobs as long as the test runs."""
    set_size(0)
    yield
    set_size(2)


@pytest.fixture
def site(plone: PloneInstance) -> Iterator[Any]:
    """The site in this process, as its manager; what is not committed is aborted."""
    with site_here(as_admin=True) as site:
        yield site


@pytest.fixture
def documents(plone: PloneInstance, request: pytest.FixtureRequest) -> Callable[[int], list[str]]:
    """Makes so many private documents, in a folder of the test's own."""
    made = iter(range(100))

    def make(count: int) -> list[str]:
        with plone.changed() as site:
            name = request.node.name.replace("[", "-").replace("]", "")[:60].replace("_", "-")
            return add_documents(site, f"{name}-{next(made)}", count)

    return make


def queue_of(site: Any) -> Any:
    """The queue without a name."""
    return site._p_jar.root()["zasync"][""]


def set_size(size: int) -> None:
    """How many jobs the workers run at once from now on."""
    import transaction

    with site_here() as site:
        for record in queue_of(site).dispatchers.values():
            for agent in record.values():
                agent.size = size
        transaction.commit()
