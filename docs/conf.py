# SPDX-License-Identifier: ZPL-2.1
"""How Sphinx builds the documentation."""

from importlib import metadata

project = "zasync"
release = metadata.version("zasync")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"zasync {release}"
