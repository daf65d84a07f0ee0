# SPDX-License-Identifier: ZPL-2.1
"""zasync inside web frameworks, one package for each.  Each needs the extra of its name."""
