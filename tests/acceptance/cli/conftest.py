# SPDX-License-Identifier: ZPL-2.1
"""A directory to call commands in."""

from pathlib import Path

import pytest

from .commands import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)
