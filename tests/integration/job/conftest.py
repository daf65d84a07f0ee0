# SPDX-License-Identifier: ZPL-2.1
from tests.support.benches import bench, standing

__all__ = ["bench", "standing"]
