# SPDX-License-Identifier: ZPL-2.1
"""The application that `zasync demo` runs: a full-text index over a tree of files.

It is written as one would write one's own: persistent objects in `catalog`, functions that become
jobs in `jobs`, the choice of files in `corpus`, what is told at the end in `report`.
"""
