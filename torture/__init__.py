# SPDX-License-Identifier: ZPL-2.1
"""A torture run: real processes, real faults, and a checker that knows nothing of how zasync works.

`python -m torture --help`; what it does and how to read its table is in docs/torture.md.
"""
