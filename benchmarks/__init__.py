# SPDX-License-Identifier: ZPL-2.1
"""Measurements: `python -m benchmarks --help`.  See README.md here for how to read them."""
