# SPDX-License-Identifier: ZPL-2.1
"""The storages of the kill grid, shared by many cases; and the recovery times in the summary.

`make test` kills on ZEO only; ZASYNC_KILLS names others, such as "zeo,sqlite,postgresql".
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kills.cases import Ground
from tests.support.nursery import Nursery
from torture.servers import Unavailable, backend

STORAGES = os.environ.get("ZASYNC_KILLS", "zeo").split(",")


@pytest.fixture(scope="session", params=STORAGES)
def ground(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ground]:
    """A storage that is served, and a nursery of workers."""
    directory = tmp_path_factory.mktemp("kills")
    try:
        server = backend(request.param, directory)
    except Unavailable as reason:
        pytest.skip(str(reason))
    with server:
        nursery = Nursery(directory)
        ground = Ground(server.uri, nursery, directory)
        yield ground
        ground.close()
        nursery.close()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    times = sorted(
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "recovery" and getattr(report, "when", "") == "call"
    )
    if times:
        last = len(times) - 1
        middle, late = times[last // 2], times[round(last * 0.99)]
        terminalreporter.write_line(
            f"{len(times)} deaths; recovered in {middle:.2f} s (median), {late:.2f} s (99 %),"
            f" {times[-1]:.2f} s (longest)"
        )
