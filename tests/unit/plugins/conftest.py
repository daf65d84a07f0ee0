# SPDX-License-Identifier: ZPL-2.1
from tests.support.plugins import no_plugins

__all__ = ["no_plugins"]
