# SPDX-License-Identifier: ZPL-2.1
"""`python -m zasync`: the command line, as `zasync` is."""

from zasync.cli import main

if __name__ == "__main__":
    main()
