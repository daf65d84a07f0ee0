# SPDX-License-Identifier: ZPL-2.1
"""What every layer stands on: the clock, transactions with retry, containers, reporting.

Nothing here knows what a job is.
"""
