# SPDX-License-Identifier: ZPL-2.1
"""`python -m zasync.job` prints the life of a job as a table of moves."""

from zasync.job.states import table

if __name__ == "__main__":
    print(table())  # noqa: T201
